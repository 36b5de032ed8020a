"""The units of one text as characters, for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from rich.table import Table

    from dsgp_lab.mask import Mask
    from dsgp_lab.sensitivity import Sensitivity

SHADES = "▁▂▃▄▅▆▇█"
PRUNED = "·"


def shade(scores: Tensor, kept: Tensor, top: float) -> str:
    """One character a unit: its height is the score's share of `top`, pruned units are dots.

    >>> import torch
    >>> shade(torch.tensor([0.0, 1.0, 0.5]), torch.tensor([True, True, False]), top=1.0)
    '▁█·'
    """
    levels = (scores.clamp(min=0) / max(top, 1e-12) * (len(SHADES) - 1)).round().int().tolist()
    return "".join(
        SHADES[level] if keep else PRUNED for level, keep in zip(levels, kept.tolist(), strict=True)
    )


def unit_map(sensitivity: Sensitivity, mask: Mask) -> Table:
    """Heads and blocks of the first input, layers from bottom to top."""
    from rich.table import Table

    table = Table("layer", "heads", "neuron blocks", title=f"bar = sensitivity, {PRUNED} = pruned")
    tops = float(sensitivity.heads[0].max()), float(sensitivity.blocks[0].max())
    for layer in reversed(range(sensitivity.heads.shape[1])):
        heads = shade(sensitivity.heads[0, layer], mask.heads[0, layer], tops[0])
        blocks = shade(sensitivity.blocks[0, layer], mask.blocks[0, layer], tops[1])
        table.add_row(str(layer), heads, blocks)
    return table
