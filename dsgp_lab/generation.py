"""Generation: a prompt continued token by token, by the whole model or by a sub-network cut once.

The sub-network does everything: it reads the prompt (prefill), fills a KV cache of the kept groups, and
decodes. Nothing is masked, and no dense run is hidden in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dsgp_lab.anatomy import Inputs
from dsgp_lab.decoder import Cut, DecoderSubNetwork
from dsgp_lab.decoder_layer import Watch
from dsgp_lab.devices import now
from dsgp_lab.errors import LabError
from dsgp_lab.kv_cache import KVCache
from dsgp_lab.subnetwork import check_tokens


@dataclass(frozen=True, eq=False)
class Generation:
    """New tokens of each prompt (without the end token), and what they took.

    tokens: ids of each prompt's continuation; seconds of prefill (the first token included) and of decode
    (all further ones); steps: decode steps; cache_bytes: keys and values at the end.
    """

    tokens: tuple[tuple[int, ...], ...]
    prefill_seconds: float
    decode_seconds: float
    steps: int
    cache_bytes: int


@dataclass(frozen=True, eq=False)
class ReadPrompt:
    """Prompts that were read: cache, logits of the first new token [batch, vocabulary], seconds."""

    cache: KVCache
    logits: Tensor
    seconds: float


@torch.inference_mode()
def read_prompt(
    subnetwork: DecoderSubNetwork,
    inputs: Inputs,
    cut: Cut,
    max_new_tokens: int,
    watch: Watch | None = None,
) -> ReadPrompt:
    """Prefill, with room for `max_new_tokens` in the cache; `watch`: see `DecoderSubNetwork.prefill`."""
    start = now(subnetwork.anatomy.device)
    inputs = left_padded(inputs)
    batch, width = inputs["input_ids"].shape
    cache = subnetwork.new_cache(cut, batch, width + max_new_tokens)
    hidden = subnetwork.prefill(inputs, cut, cache, watch)[:, -1]
    return ReadPrompt(cache, subnetwork.head(hidden), now(subnetwork.anatomy.device) - start)


@torch.inference_mode()
def generate(
    subnetwork: DecoderSubNetwork,
    inputs: Inputs,
    cut: Cut | None = None,
    max_new_tokens: int = 32,
    end_ids: frozenset[int] | set[int] = frozenset(),
    temperature: float = 0.0,
    seed: int = 0,
    prompt: ReadPrompt | None = None,
) -> Generation:
    """Continue prompts that all run under one cut (None: the whole model) until an end token or the limit.

    Greedy at temperature 0, else drawn at random with this seed. Padding may be on either side.
    `prompt` is these prompts as read already, once, by a cut with the same KV groups: the cache is shared.
    Raises LabError for a limit below 1, a negative temperature, or more tokens than the model has positions.
    """
    _check(subnetwork, inputs, max_new_tokens, temperature)
    cut = subnetwork.whole if cut is None else cut
    chance = torch.Generator().manual_seed(seed)
    read = read_prompt(subnetwork, inputs, cut, max_new_tokens) if prompt is None else prompt
    cache = read.cache
    middle = now(subnetwork.anatomy.device)
    chosen = _choose(read.logits, temperature, chance)
    ids = [chosen.tolist()]
    ended = [token in end_ids for token in ids[0]]
    while len(ids) < max_new_tokens and not all(ended):
        chosen = _choose(subnetwork.step(chosen, cut, cache), temperature, chance)
        ids.append(chosen.tolist())
        ended = [done or token in end_ids for done, token in zip(ended, ids[-1], strict=True)]
    stop = now(subnetwork.anatomy.device)
    rows = tuple(_until_end(row, end_ids) for row in zip(*ids, strict=True))
    return Generation(rows, read.seconds, stop - middle, len(ids) - 1, cache.num_bytes)


@torch.inference_mode()
def agreement(
    subnetwork: DecoderSubNetwork, inputs: Inputs, continuation: Sequence[int], cut: Cut, reader: Cut
) -> float:
    """Share of a continuation's tokens that a cut chooses too, each after the prompt and those before it.

    reader: what reads the prompt, the cut itself or one with the same KV groups. A single prompt.
    """
    if not continuation:
        return 1.0
    wanted = torch.tensor([list(continuation)], device=subnetwork.anatomy.device)
    if reader is cut:
        ids = torch.cat([inputs["input_ids"], wanted], dim=1)
        hidden = subnetwork.prefill({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, cut)
        chosen = subnetwork.head(hidden[0, -len(continuation) - 1 : -1]).argmax(-1)
    else:
        read = read_prompt(subnetwork, inputs, reader, len(continuation))
        steps = [subnetwork.step(token, cut, read.cache) for token in wanted[0, :-1].split(1)]
        chosen = torch.cat([read.logits, *steps]).argmax(-1)
    return float((chosen == wanted[0]).float().mean())


def left_padded(inputs: Inputs) -> dict[str, Tensor]:
    """The same inputs with all padding on the left, and no column that is padding for all.

    >>> right = {"input_ids": torch.tensor([[7, 8, 0]]), "attention_mask": torch.tensor([[1, 1, 0]])}
    >>> left_padded({**right, "input_ids": torch.tensor([[7, 8, 0]])})["input_ids"].tolist()
    [[7, 8]]
    """
    real = inputs["attention_mask"].bool()
    order = real.int().argsort(dim=1, stable=True)
    width = int(real.sum(1).max())
    return {name: inputs[name].gather(1, order)[:, -width:] for name in ("input_ids", "attention_mask")}


def _choose(logits: Tensor, temperature: float, chance: torch.Generator) -> Tensor:
    """The next token of each row of logits [batch, vocabulary]."""
    if temperature == 0:
        return logits.argmax(-1)
    weights = (logits.float() / temperature).softmax(-1)
    return torch.multinomial(weights.cpu(), 1, generator=chance)[:, 0].to(logits.device)


def _until_end(row: tuple[int, ...], end_ids: frozenset[int] | set[int]) -> tuple[int, ...]:
    """Tokens before the first end token.

    >>> _until_end((5, 6, 2, 7), {2})
    (5, 6)
    """
    ends = [i for i, token in enumerate(row) if token in end_ids]
    return row[: ends[0]] if ends else row


def _check(subnetwork: DecoderSubNetwork, inputs: Inputs, max_new_tokens: int, temperature: float) -> None:
    if not isinstance(max_new_tokens, int) or isinstance(max_new_tokens, bool) or max_new_tokens < 1:
        raise LabError(
            got=f"max_new_tokens={max_new_tokens!r}",
            allowed="a whole number of at least 1",
            hint="write max_new_tokens=32",
        )
    if not temperature >= 0:
        raise LabError(
            got=f"temperature={temperature!r}", allowed="0 (greedy) or above", hint="leave it out for greedy"
        )
    limit = int(subnetwork.anatomy.model.config.max_position_embeddings)
    wanted = int(check_tokens(inputs).sum(1).max()) + max_new_tokens
    if wanted > limit:
        raise LabError(
            got=f"{wanted} tokens, prompt and continuation together",
            allowed=f"at most {limit}, the model's positions",
            hint="shorten the prompt or lower max_new_tokens",
        )
