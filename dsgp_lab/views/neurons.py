"""Drill-down: the neurons of one layer, or of one block, as bars."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from dsgp_lab.errors import LabError
from dsgp_lab.views.chart import Axis, Bars, Chart, Plot, Rule
from dsgp_lab.views.style import BLUE, ORANGE, as_array, finite, percent, sentence, short, shorten
from dsgp_lab.views.view import View, make_view


def neuron_bars(
    values: Any,
    *,
    layer: int,
    block: int | None = None,
    order: Literal["place", "sorted"] = "place",
    ids: Any = None,
    block_size: int | None = None,
    title: str | None = None,
    unit: str = "sensitivity",
) -> View:
    """Draw one bar per neuron of a layer, or of one block of it.

    values: [neurons], of any sign. order: "place" leaves them where they stand, "sorted" puts the largest
    magnitude first. ids: [neurons], the neuron's number in the model, for hovering (the lab may reorder
    them). block_size: draw a border every so many neurons (only in place).
    """
    numbers = finite(values, 1, "neurons")
    if order not in ("place", "sorted"):
        raise LabError(got=f"order={order!r}", allowed='"place" or "sorted"', hint='write order="sorted"')
    names = np.arange(len(numbers)) if ids is None else as_array(ids)
    if names.shape != numbers.shape:
        raise LabError(
            got=f"{names.size} neuron ids",
            allowed=f"one for each of the {numbers.size} neurons",
            hint="pass the same slice of ids as of values",
        )
    by_size = np.argsort(-np.abs(numbers), kind="stable")
    ranks = np.empty(len(numbers), dtype=int)
    ranks[by_size] = np.arange(1, len(numbers) + 1)
    drawn = by_size if order == "sorted" else np.arange(len(numbers))
    where = f"layer {layer}" if block is None else f"layer {layer}, block {block}"
    title = f"Neurons of {where}" if title is None else title
    positions = np.arange(len(numbers), dtype=float)
    low, high = min(0.0, float(numbers.min())), max(0.0, float(numbers.max()))
    reach = (high - low) or 1.0
    limits = (low - 0.05 * reach if low < 0 else 0.0, high + 0.05 * reach)
    signs = [
        Bars(
            "",
            positions[chosen],
            numbers[drawn][chosen],
            hover=("neuron %{customdata[0]}", "%{y:.3g}", f"rank %{{customdata[1]}} of {len(numbers)}"),
            hover_data=tuple(
                (int(name), int(rank))
                for name, rank in zip(names[drawn][chosen], ranks[drawn][chosen], strict=True)
            ),
            horizontal=False,
            thickness=1.0 if len(numbers) > 200 else 0.8,
            colour=colour,
        )
        for colour, chosen in ((BLUE, numbers[drawn] >= 0), (ORANGE, numbers[drawn] < 0))
        if chosen.any()
    ]
    borders = []
    if block_size and order == "place":
        edges = np.arange(block_size, len(numbers), block_size) - 0.5
        borders = [Rule((float(edge), limits[0]), (float(edge), limits[1])) for edge in edges]
    x_title = "neuron, largest first" if order == "sorted" else "neuron"
    plot = Plot(
        "",
        Axis(x_title, (-0.5 - 0.01 * len(numbers), len(numbers) * 1.01 - 0.5)),
        Axis(unit, limits, grid=True),
        (*signs, *borders),
    )
    sizes = np.abs(numbers)[by_size]
    tenth = max(1, len(numbers) // 10)
    share = sizes[:tenth].sum() / sizes.sum() if sizes.any() else 0.0
    facts = [
        "Strongest: " + ", ".join(f"neuron {int(name)}" for name in names[by_size][:5]),
        f"Largest magnitude {short(sizes[0])}, median {short(float(np.median(sizes)))}",
        f"The strongest {tenth} neurons hold {percent(float(share))} of the sum of magnitudes",
    ]
    return make_view(
        Chart(shorten(title, 70), ((plot,),), (260,)),
        f"{sentence(title)} Bars for {len(numbers)} neurons.",
        facts,
    )
