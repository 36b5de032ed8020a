"""Multiply-accumulate operations (MACs) of units, masks and whole models.

Counted are the matrix products inside the transformer layers; embeddings, norms, the pooler and
the classifier are left out (under 0.1 % at 25 tokens in the base encoder). With n tokens, hidden
size d, head size h and s neurons in a block (METHOD: cost of units):

    head  = 4 n d h + 2 n n h      (query, key, value and output projection; scores and mixing)
    block = 2 n d s

In a language model a head is a KV group of q query heads, 2 (q + 1) n d h + 2 q n n h (the causal half of the
square is counted too, as kernels compute it), and a block of a gated feed-forward part has 3 n d s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor

from dsgp_lab.report import Report, Reported

if TYPE_CHECKING:
    from dsgp_lab.anatomy import Anatomy
    from dsgp_lab.mask import Mask

Length = TypeVar("Length", int, Tensor)


@dataclass(frozen=True)
class CostModel:
    """MACs of one model's units; lengths are real token counts, an int or a tensor [batch].

    >>> cost = CostModel(6, 12, 12, hidden_size=384, head_dim=32, block_size=128)
    >>> cost.head(25), cost.block(25), cost.dense(25)
    (1268800, 2457600, 268300800)
    """

    num_layers: int
    num_heads: int
    num_blocks: int
    hidden_size: int
    head_dim: int
    block_size: int
    queries_per_head: int = 1
    ffn_matrices: int = 2

    @property
    def context_dim(self) -> int:
        """Width of a head's context, or of all contexts in a KV group."""
        return self.queries_per_head * self.head_dim

    @staticmethod
    def of(anatomy: Anatomy) -> CostModel:
        """The cost model of an anatomy."""
        names = CostModel.__annotations__
        return CostModel(**{name: getattr(anatomy, name) for name in names})

    def head(self, length: Length) -> Length:
        """MACs of one head, or of one KV group."""
        projections = 2 * length * self.hidden_size * (self.context_dim + self.head_dim)
        return projections + 2 * length * length * self.context_dim

    def block(self, length: Length) -> Length:
        """MACs of one neuron block."""
        return self.ffn_matrices * length * self.hidden_size * self.block_size

    def layer(self, length: Length) -> Length:
        """MACs of one whole layer."""
        return self.num_heads * self.head(length) + self.num_blocks * self.block(length)

    def dense(self, length: Length) -> Length:
        """MACs of the whole encoder."""
        return self.num_layers * self.layer(length)

    def masked(self, mask: Mask, lengths: Tensor) -> Tensor:
        """MACs of the encoder cut to each input's mask [batch]."""
        heads, blocks = mask.heads.flatten(1).sum(1), mask.blocks.flatten(1).sum(1)
        lengths = lengths.to(heads.device)
        return heads * self.head(lengths) + blocks * self.block(lengths)


@dataclass(frozen=True, repr=False)
class Macs(Reported):
    """MACs of one pruned run beside the dense one, all at the input's real length.

    >>> macs = Macs(kept=150, dense=300, scorer=3, charged=True)
    >>> macs.share
    0.51
    """

    kept: int
    dense: int
    scorer: int
    charged: bool
    """Whether the scorer's MACs count against the budget: True for a product path, False for an
    oracle, which looks at the full run and is an instrument only."""

    @property
    def share(self) -> float:
        """Share of the dense MACs that ran, the scorer's included where it is charged."""
        return (self.kept + (self.scorer if self.charged else 0)) / self.dense

    def report(self) -> Report:
        """Rows for print and notebook."""
        charged = "" if self.charged else ", an oracle: not charged"
        return Report(
            title="MACs of the encoder layers",
            rows=(
                ("dense", f"{self.dense / 1e6:.1f} M", "1.000"),
                ("units that ran", f"{self.kept / 1e6:.1f} M", f"{self.kept / self.dense:.3f}"),
                (f"scorer{charged}", f"{self.scorer / 1e6:.1f} M", f"{self.scorer / self.dense:.3f}"),
            ),
            header=("", "MACs", "of dense"),
        )
