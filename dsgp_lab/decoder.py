"""DecoderSubNetwork: a language model cut to a mask, physically smaller, with and without a KV cache.

The counterpart of `SubNetwork`, with the same calls. Its decision is the token after the last real one;
`all_logits` gives those of every token, and `generation.generate` continues a text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention

from dsgp_lab.anatomy import Anatomy, DecoderFamily, DecoderParts, Inputs
from dsgp_lab.anatomy.decoder import Rotation, last_real, placed
from dsgp_lab.errors import LabError
from dsgp_lab.mask import Mask
from dsgp_lab.packed_decoder import DecoderWeights, PackedDecoderLayer, lean_norm, pack_decoder
from dsgp_lab.subnetwork import SubNetwork, SubNetworkOutput, check_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Cut = tuple[DecoderWeights, ...]
"""The weights of every layer under one mask."""


@dataclass(eq=False)
class KVCache:
    """Keys and values of the tokens so far, of kept KV groups only; a layer without one has none.

    keys, values: a layer [batch, groups, capacity, head_dim]; real [batch, capacity]: which columns are
    tokens; length: columns in use; positions [batch]: real tokens so far.
    """

    keys: list[Tensor]
    values: list[Tensor]
    real: Tensor
    positions: Tensor
    length: int = 0
    padded: bool = field(default=False)

    @property
    def num_bytes(self) -> int:
        """Size of the part in use."""
        share = self.length / self.real.shape[1]
        return round(share * sum(part.nbytes for part in (*self.keys, *self.values)))


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
        layers = zip(self.anatomy.layers, self.anatomy.order, strict=True)
        self.packed: tuple[PackedDecoderLayer, ...] = tuple(
            pack_decoder(layer, self.anatomy, order)
            for layer, order in layers
            if isinstance(layer, DecoderParts)
        )
        base = self.anatomy.model.base_model
        self.final_norm = lean_norm(base.get_submodule(self.family.final_norm), self.family)
        config = self.anatomy.model.config
        self.windows = [self.family.window(config, i) for i in range(self.anatomy.num_layers)]
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
    def select(self, mask: Mask, reuse: bool = False) -> Cut:
        """Copy the weights that run under the mask of a single input.

        With `reuse`, into memory that is kept for this: several times faster, but each such cut overwrites
        the last one.
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
        rooms = self._rooms if reuse and self._rooms is not None else (None,) * len(self.packed)
        layers = zip(self.packed, mask.heads[0], mask.blocks[0], rooms, strict=True)
        return tuple(layer.cut(heads, blocks, room) for layer, heads, blocks, room in layers)

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
        activations: list[Tensor] | None = None,
    ) -> Tensor:
        """Hidden states after the last layer [batch, tokens, hidden] of inputs that all run under one cut.

        Keys and values go into `cache`, activated neurons [batch * tokens, neurons] of each layer (block by
        block, in the anatomy's order) into `activations`, where they are given.
        """
        self._check_model()
        real = check_tokens(inputs)
        full = placed(inputs)
        if cache is not None:
            tokens = real.shape[1]
            cache.real[:, :tokens] = real
            cache.length, cache.padded = tokens, not bool(real.all())
            cache.positions = full["position_ids"][:, -1] + 1
        masks = self._prefill_masks(real)
        return self._run(full, cut, masks, cache, 0, activations)

    @torch.inference_mode()
    def step(self, tokens: Tensor, cut: Cut, cache: KVCache) -> Tensor:
        """One token more for each input [batch] -> logits of the next one [batch, vocabulary]."""
        start = cache.length
        cache.real[:, start] = True
        cache.length = start + 1
        inputs = {"input_ids": tokens[:, None], "position_ids": cache.positions[:, None]}
        cache.positions = cache.positions + 1
        masks = {window: self._step_mask(cache, window) for window in set(self.windows)}
        return self.head(self._run(inputs, cut, masks, cache, start)[:, -1])

    def new_cache(self, cut: Cut, batch: int, capacity: int) -> KVCache:
        """An empty cache for prompts and continuations of `capacity` columns together."""
        device, dtype = self.anatomy.device, self.packed[0].whole.out.dtype

        def make() -> list[Tensor]:
            shape = (capacity, self.anatomy.head_dim)
            return [torch.zeros(batch, len(w.out), *shape, device=device, dtype=dtype) for w in cut]

        real = torch.zeros(batch, capacity, dtype=torch.bool, device=device)
        return KVCache(make(), make(), real, torch.zeros(batch, dtype=torch.long, device=device))

    def head(self, hidden: Tensor) -> Tensor:
        """Final norm and language-model head [..., hidden] -> [..., vocabulary]."""
        return self.family.classify(self.anatomy.model, self.final_norm(hidden))

    def _run(
        self,
        inputs: Inputs,
        cut: Cut,
        masks: dict[int | None, Tensor | None],
        cache: KVCache | None,
        start: int,
        activations: list[Tensor] | None = None,
    ) -> Tensor:
        base = self.anatomy.model.base_model
        hidden = self.family.embed(base, inputs)
        batch, tokens, width = hidden.shape
        rotation = None
        if self.family.rotate is not None:
            rotation = _prepared(self.family.rotate(base, hidden, inputs["position_ids"]))
        rows = hidden.reshape(batch * tokens, width)
        for index, (layer, weights) in enumerate(zip(self.packed, cut, strict=True)):
            if len(weights.out):
                attended = self._attention(
                    layer, weights, rows, batch, rotation, masks[self.windows[index]], cache, index, start
                )
                rows = torch.addmm(rows, attended, weights.out.flatten(0, 1))
            if layer.out_bias is not None:
                rows = rows + layer.out_bias
            if weights.ffn_out.shape[0]:
                active = _active(layer, weights, rows)
                if activations is not None:
                    activations.append(active)
                rows = torch.addmm(rows, active, weights.ffn_out)
            if layer.ffn_out_bias is not None:
                rows = rows + layer.ffn_out_bias
        return rows.view(batch, tokens, width)

    def _attention(
        self,
        layer: PackedDecoderLayer,
        weights: DecoderWeights,
        rows: Tensor,
        batch: int,
        rotation: Rotation | None,
        mask: Tensor | None,
        cache: KVCache | None,
        index: int,
        start: int,
    ) -> Tensor:
        """Contexts [batch * tokens, groups * queries * head_dim] of rows [batch * tokens, hidden].

        The queries of a group are laid one after the other as if they were more tokens, so that key and
        value need not be repeated for them.
        """
        groups, queries, dim = len(weights.out), self.anatomy.queries_per_head, self.anatomy.head_dim
        bias = None if weights.qkv_bias is None else weights.qkv_bias.flatten()
        projected = linear(layer.attention_norm(rows), weights.qkv.flatten(0, 1), bias)
        by_group = projected.view(batch, -1, groups, queries + 2, dim).permute(0, 2, 3, 1, 4)
        tokens = by_group.shape[3]
        turned, value = by_group[:, :, : queries + 1], by_group[:, :, queries + 1]
        if layer.query_norm is not None and layer.key_norm is not None:
            normed = [layer.query_norm(turned[:, :, :queries]), layer.key_norm(turned[:, :, queries:])]
            turned = torch.cat(normed, dim=2)
        if rotation is not None:
            turned = torch.addcmul(turned * rotation[0], turned.roll(dim // 2, -1), rotation[1])
        query = turned[:, :, :queries].reshape(batch, groups, queries * tokens, dim)
        key = turned[:, :, queries]
        if cache is not None:
            stop = start + tokens
            cache.keys[index][:, :, start:stop] = key
            cache.values[index][:, :, start:stop] = value
            key, value = cache.keys[index][:, :, :stop], cache.values[index][:, :, :stop]
        context = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=layer.scale)
        by_token = context.view(batch, groups, queries, tokens, dim).permute(0, 3, 1, 2, 4)
        return by_token.reshape(batch * tokens, groups * queries * dim)

    def _prefill_masks(self, real: Tensor) -> dict[int | None, Tensor | None]:
        """What each token may look at [batch, 1, queries * tokens, tokens], for each kind of layer.

        A padding token may look at itself, so that no softmax is empty.
        """
        columns = torch.arange(real.shape[1], device=real.device)
        back = columns[:, None] - columns[None, :]
        masks: dict[int | None, Tensor | None] = {}
        for window in set(self.windows):
            seen = (back >= 0) if window is None else (back >= 0) & (back < window)
            allowed = (seen & real[:, None, :]) | (back == 0)
            masks[window] = allowed.repeat(1, self.anatomy.queries_per_head, 1)[:, None]
        return masks

    def _step_mask(self, cache: KVCache, window: int | None) -> Tensor | None:
        """Likewise for one token after those in the cache; None where it may look at all of them."""
        if not cache.padded and (window is None or cache.length <= window):
            return None
        seen = cache.real[:, : cache.length].clone()
        if window is not None:
            seen[:, : max(0, cache.length - window)] = False
        return seen[:, None, None, :]

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


def _active(layer: PackedDecoderLayer, weights: DecoderWeights, rows: Tensor) -> Tensor:
    """Activated neurons [rows, neurons]: act(gate) * up, or act(up) where nothing is gated."""
    bias = None if weights.ffn_in_bias is None else weights.ffn_in_bias.flatten()
    projected = linear(layer.ffn_norm(rows), weights.ffn_in.flatten(0, 1), bias)
    if len(weights.ffn_in) == 1:
        return layer.activation(projected)
    gate, up = projected.chunk(2, dim=-1)
    return layer.activation(gate) * up


def _prepared(rotation: Rotation) -> Rotation:
    """Cosine and sine [batch, tokens, dim] -> [batch, 1, 1, tokens, dim], the sine's first half negated.

    Then x * cos + roll(x, dim / 2) * sin is the rotation.
    """
    cos, sin = (part[:, None, None] for part in rotation)
    half = sin.shape[-1] // 2
    return cos, torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
