"""The live heat maps of the explorer: crosses by style at once, in the figure at rest; rings."""

from __future__ import annotations

import torch

from dsgp_lab import Mask
from dsgp_lab.edits import Unit
from dsgp_lab.panels.unit_map import UnitMap
from dsgp_lab.views import sensitivity_heatmap


def test_crosses_and_rings_follow_the_mask() -> None:
    chance = torch.Generator().manual_seed(0)
    scores = [torch.rand(3, units, generator=chance) for units in (4, 6)]
    heads, blocks = (torch.rand(3, units, generator=chance) > 0.5 for units in (4, 6))
    view = sensitivity_heatmap(*scores, mask_heads=heads, mask_blocks=blocks)
    drawn, mask = UnitMap(view, print), Mask(heads[None], blocks[None])
    flipped = (Unit("head", 1, 2),)
    for _ in range(2):
        assert [len(trace.x) for trace in drawn.figure.data] == [4, 12, 6, 18, 0, 0]
        drawn.set_mask(mask, flipped)
        assert drawn.figure.data[4].x == ("head 2",)
        assert drawn.quick.value.count(":nth-child") == int((~heads).sum() + (~blocks).sum())
        drawn.settle(mask)
        assert sum(drawn.figure.data[1].marker.opacity) == int((~heads).sum())
        drawn.draw(view)  # other scores: the rings are drawn again with the next mask
    assert drawn.fits(view)
    assert len(view.figure.data[1].x) == int((~heads).sum())  # the view itself is left alone
