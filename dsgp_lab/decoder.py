"""DecoderSubNetwork: a language model cut to a mask, physically smaller, with and without a KV cache.

The counterpart of `SubNetwork`, with the same calls. Its decision is the token after the last real one;
`all_logits` gives those of every token, and `generation.generate` continues a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dsgp_lab.anatomy import Anatomy, DecoderFamily, Inputs
from dsgp_lab.anatomy.decoder import last_real, placed
from dsgp_lab.decoder_layer import Masks, Tokens, Watch, rotations, run_layer
from dsgp_lab.errors import LabError
from dsgp_lab.kv_cache import KVCache
from dsgp_lab.mask import Mask
from dsgp_lab.packed_decoder import DecoderWeights, Means, lean_norm, pack_decoder
from dsgp_lab.subnetwork import SubNetwork, SubNetworkOutput, check_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Cut = tuple[DecoderWeights, ...]
"""The weights of every layer under one mask."""


class DecoderSubNetwork:
    """Runs a language model cut to a mask, at reduced cost; the model itself is left as it is.

    Logits equal those of the gated run within 1e-4 in float32, with the cache and without. Weights are a copy
    made here: after training on, make a new one (an outdated one raises LabError).
    """

    def __init__(self, model: PreTrainedModel | Anatomy) -> None:
        self.anatomy = Anatomy.of(model)
        if not isinstance(self.anatomy.family, DecoderFamily):
            raise LabError(
                got=f"a {self.anatomy.family.name} model, an encoder",
                allowed="language models",
                hint="use SubNetwork(model), or make_subnetwork(model), which takes both",
            )
        self.family: DecoderFamily = self.anatomy.family
        self._check_model()
        layers = range(self.anatomy.num_layers)
        self.packed = tuple(pack_decoder(index, self.anatomy) for index in layers)
        base = self.anatomy.model.base_model
        self.final_norm = lean_norm(base.get_submodule(self.family.final_norm), self.family)
        self.windows = {layer.window for layer in self.packed}
        self._watched = list(base.parameters())
        self._versions = self._weight_versions()
        self._whole = tuple(layer.whole for layer in self.packed)
        self._rooms: Cut | None = None

    def __call__(self, inputs: Inputs, mask: Mask) -> SubNetworkOutput:
        """Decisions [batch, vocabulary], each input cut to its own mask; equal masks run together."""
        mask.check_fits(self.anatomy, len(inputs["input_ids"]))
        if len(mask) == 1:
            return SubNetworkOutput(self.run(inputs, self.select(mask)), groups=1)
        groups = mask.groups()
        parts = [
            self.run({name: values[rows] for name, values in inputs.items()}, self.select(shared))
            for shared, rows in groups
        ]
        order = torch.tensor([row for _, rows in groups for row in rows], device=parts[0].device)
        return SubNetworkOutput(torch.cat(parts)[order.argsort()], groups=len(groups))

    def dense(self, inputs: Inputs) -> Tensor:
        """Decisions of the whole model through the lean path [batch, vocabulary]."""
        return self.run(inputs, self._whole)

    @property
    def whole(self) -> Cut:
        """The weights of the whole model."""
        return self._whole

    @torch.inference_mode()
    def select(self, mask: Mask, reuse: bool = False, means: Sequence[Means] | None = None) -> Cut:
        """Copy the weights that run under the mask of a single input.

        With `reuse`, into memory that is kept for this: several times faster, but each such cut overwrites
        the last one. With `means`, a layer each, cut units are replaced by their means.
        """
        mask.check_fits(self.anatomy)
        if len(mask) != 1:
            raise LabError(
                got=f"{len(mask)} masks",
                allowed="the mask of one input",
                hint="use mask[i], or DecoderSubNetwork(...)(inputs, mask), which groups a batch by mask",
            )
        if reuse and self._rooms is None:
            self._rooms = tuple(layer.room() for layer in self.packed)
        nothing = (None,) * len(self.packed)
        rooms = self._rooms if reuse and self._rooms is not None else nothing
        parts = zip(self.packed, mask.heads[0], mask.blocks[0], rooms, means or nothing, strict=True)
        return tuple(layer.cut(*rest) for layer, *rest in parts)

    @torch.inference_mode()
    def run(self, inputs: Inputs, cut: Cut) -> Tensor:
        """Logits of the token after each input's last real one [batch, vocabulary]."""
        hidden = self.prefill(inputs, cut)
        rows = torch.arange(len(hidden), device=hidden.device)
        return self.head(hidden[rows, last_real(inputs)])

    @torch.inference_mode()
    def all_logits(self, inputs: Inputs, cut: Cut) -> Tensor:
        """Logits after every token [batch, tokens, vocabulary]; those on padding mean nothing."""
        return self.head(self.prefill(inputs, cut))

    @torch.inference_mode()
    def prefill(
        self,
        inputs: Inputs,
        cut: Cut,
        cache: KVCache | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Hidden states after the last layer [batch, tokens, hidden] of inputs that all run under one cut.

        Keys and values go into `cache`; `watch` is shown what the neurons do (see `Watch`).
        """
        self._check_model()
        real = check_tokens(inputs)
        full = placed(inputs)
        if cache is not None:
            cache.start(real, full["position_ids"][:, -1] + 1)
        return self._run(full, cut, self._prefill_masks(real), cache, 0, watch)

    @torch.inference_mode()
    def step(self, tokens: Tensor, cut: Cut, cache: KVCache) -> Tensor:
        """One token more for each input [batch] -> logits of the next one [batch, vocabulary]."""
        column, positions = cache.grow()
        inputs = {"input_ids": tokens[:, None], "position_ids": positions}
        masks = {window: cache.seen(window) for window in self.windows}
        return self.head(self._run(inputs, cut, masks, cache, column)[:, -1])

    def new_cache(self, cut: Cut, batch: int, capacity: int) -> KVCache:
        """An empty cache for prompts and continuations of `capacity` columns together."""
        groups = [len(weights.out) // self.anatomy.context_dim for weights in cut]
        device, dtype = self.anatomy.device, self.packed[0].whole.out.dtype
        return KVCache.empty(groups, batch, capacity, self.anatomy.head_dim, device, dtype)

    def head(self, hidden: Tensor) -> Tensor:
        """Final norm and language-model head [..., hidden] -> [..., vocabulary]."""
        return self.family.classify(self.anatomy.model, self.final_norm(hidden))

    def _run(
        self,
        inputs: Inputs,
        cut: Cut,
        masks: Masks,
        cache: KVCache | None,
        start: int,
        watch: Watch | None = None,
    ) -> Tensor:
        base = self.anatomy.model.base_model
        hidden = self.family.embed(base, inputs)
        batch, count, width = hidden.shape
        rotation = None
        if self.family.rotate is not None:
            turned = self.family.rotate(base, hidden, inputs["position_ids"])
            rotation = rotations(turned, self.anatomy.queries_per_head)
        tokens = Tokens(batch, start, rotation, masks)
        pairs = [None] * len(cut) if cache is None else cache.pairs
        rows = hidden.reshape(batch * count, width)
        for layer, weights, pair in zip(self.packed, cut, pairs, strict=True):
            rows = run_layer(layer, weights, rows, tokens, pair, watch)
        return rows.view(batch, count, width)

    def _prefill_masks(self, real: Tensor) -> Masks:
        """What each token may look at [batch, 1, queries * tokens, tokens], for each kind of layer.

        A padding token may look at itself, so that no softmax is empty.
        """
        columns = torch.arange(real.shape[1], device=real.device)
        back = columns[:, None] - columns[None, :]
        masks: Masks = {}
        for window in self.windows:
            seen = (back >= 0) if window is None else (back >= 0) & (back < window)
            allowed = (seen & real[:, None, :]) | (back == 0)
            masks[window] = allowed.repeat(1, self.anatomy.queries_per_head, 1)[:, None]
        return masks

    def _check_model(self) -> None:
        if self.anatomy.model.training:
            raise LabError(
                got="a model in training mode, whose dropout makes every run different",
                allowed="a model in evaluation mode",
                hint="call model.eval() first",
            )
        if hasattr(self, "_versions") and self._weight_versions() != self._versions:
            raise LabError(
                got="a model whose weights changed after this DecoderSubNetwork was made",
                allowed="the weights it was made from",
                hint="make a new one (or a new LanguageLab) after training",
            )

    def _weight_versions(self) -> list[tuple[int, int]]:
        return [(weight.data_ptr(), weight._version) for weight in self._watched]


def make_subnetwork(
    model: PreTrainedModel | Anatomy | SubNetwork | DecoderSubNetwork,
) -> SubNetwork | DecoderSubNetwork:
    """The sub-network of an encoder or of a language model; a sub-network is returned as it is."""
    if isinstance(model, SubNetwork | DecoderSubNetwork):
        return model
    anatomy = Anatomy.of(model)
    return DecoderSubNetwork(anatomy) if isinstance(anatomy.family, DecoderFamily) else SubNetwork(anatomy)
