"""Heat maps of sensitivity: heads beside neuron blocks, or several inputs side by side on one scale.

Layers run bottom to top, units left to right, always. Units are numbered from 0, as in the tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dsgp_lab.errors import LabError
from dsgp_lab.views.chart import Axis, Cells, Chart, Plot, Scale
from dsgp_lab.views.style import Array, as_array, finite, sentence, short, shorten
from dsgp_lab.views.view import View, make_view

UNITS = ("head", "neuron block")
MAX_INPUTS = 4


def sensitivity_heatmap(
    heads: Any,
    blocks: Any,
    *,
    mask_heads: Any = None,
    mask_blocks: Any = None,
    title: str = "Sensitivity",
    unit: str = "sensitivity",
    signed: bool = False,
    zmax: float | tuple[float, float] | None = None,
    names: tuple[str, str] = UNITS,
) -> View:
    """Draw one input's sensitivities: heads [layers, heads] left, blocks [layers, blocks] right.

    mask_heads, mask_blocks: bool of the same shapes, True = kept; a pruned unit gets a cross.
    unit: what the numbers are, for example "|d margin / d gate|". signed: draw around zero in red and blue.
    zmax: end of the colour scale, one for both panels or one for each; default is the largest value of each.
    names: what the units are called, for example ("KV group", "neuron block").
    Raises LabError for a wrong shape, a NaN, a mask of another shape, or negative values without `signed`.
    """
    values = [finite(heads, 2, f"{names[0]}s"), finite(blocks, 2, f"{names[1]}s")]
    kept = [_kept(mask_heads, values[0], names[0]), _kept(mask_blocks, values[1], names[1])]
    tops = zmax if isinstance(zmax, tuple) else (zmax, zmax)
    plots = tuple(
        _plot(value, mask, name, _capital(name) + "s", _scale([value], signed, top, unit), first=first)
        for value, mask, name, top, first in zip(values, kept, names, tops, (True, False), strict=True)
    )
    chart = Chart(shorten(title, 70), (plots,), (_height(len(values[0])),), _notice(kept))
    alt = f"{sentence(title)} Heat maps of {_sizes(values, names)}."
    facts = [
        line
        for value, mask, name in zip(values, kept, names, strict=True)
        for line in _facts(value, mask, name)
    ]
    return make_view(chart, alt, facts)


def sensitivity_grid(
    inputs: Sequence[tuple[str, Any, Any]],
    *,
    masks: Sequence[tuple[Any, Any]] | None = None,
    title: str = "Sensitivity, input by input",
    unit: str = "sensitivity",
    signed: bool = False,
    zmax: float | tuple[float, float] | None = None,
    names: tuple[str, str] = UNITS,
) -> View:
    """Draw up to four inputs side by side: heads in the upper row, blocks in the lower, one scale per row.

    inputs: (label, heads [layers, heads], blocks [layers, blocks]) each. masks: (heads, blocks) each, bool,
    True = kept. The other arguments are those of `sensitivity_heatmap`.
    """
    if not 1 <= len(inputs) <= MAX_INPUTS:
        raise LabError(
            got=f"{len(inputs)} inputs",
            allowed=f"1 to {MAX_INPUTS} inputs beside each other",
            hint="choose the most telling ones, or draw several grids with the same zmax",
        )
    labels = [label for label, _, _ in inputs]
    shapes = {(np.shape(heads), np.shape(blocks)) for _, heads, blocks in inputs}
    if len(shapes) > 1 or (masks is not None and len(masks) != len(inputs)):
        raise LabError(
            got=f"{len(inputs)} inputs of {len(shapes)} shapes"
            + (f" and {len(masks)} masks" if masks else ""),
            allowed="inputs of one model, and a pair of masks for each or none at all",
            hint="score all inputs with the same model and block size",
        )
    pairs = masks if masks is not None else [(None, None)] * len(inputs)
    tops = zmax if isinstance(zmax, tuple) else (zmax, zmax)
    rows, facts, all_kept = [], [], []
    for kind, name in enumerate(names):
        values = [finite(entry[1 + kind], 2, f"{name}s") for entry in inputs]
        kept = [_kept(pair[kind], value, name) for pair, value in zip(pairs, values, strict=True)]
        scale = _scale(values, signed, tops[kind], unit)
        letters = [shorten(label, 64 // len(inputs)) for label in labels]
        rows.append(
            tuple(
                _plot(
                    value,
                    mask,
                    name,
                    letter if kind == 0 else "",
                    scale,
                    first=i == 0,
                    bar=i == len(values) - 1,
                    across=max(2, len(values)),
                )
                for i, (value, mask, letter) in enumerate(zip(values, kept, letters, strict=True))
            )
        )
        all_kept += kept
        facts += [f"{_capital(name)}s, one scale from {short(scale.low)} to {short(scale.high)}:"]
        facts += [f"- {label}: {_top(value, name)}" for label, value in zip(labels, values, strict=True)]
    height = _height(len(values[0]), len(inputs))
    chart = Chart(shorten(title, 70), tuple(rows), (height, height), _notice(all_kept))
    return make_view(
        chart, f"{sentence(title)} Heat maps of {len(inputs)} inputs on one scale per row.", facts
    )


def _kept(mask: Any, values: Array, name: str) -> Array | None:
    if mask is None:
        return None
    kept = as_array(mask).astype(bool)
    if kept.shape != values.shape:
        raise LabError(
            got=f"a {name} mask of shape {list(kept.shape)}",
            allowed=f"the shape of the values, {list(values.shape)}",
            hint="pass one input's mask, for example mask.heads[0]",
        )
    return kept


def _scale(values: Sequence[Array], signed: bool, top: float | None, unit: str) -> Scale:
    low = min(float(value.min()) for value in values)
    if low < 0 and not signed:
        raise LabError(
            got=f"a sensitivity of {short(low)}",
            allowed="values of 0 or more, or signed=True",
            hint="write signed=True: the scale is then centred at zero",
        )
    high = top if top is not None else max(float(np.abs(value).max()) for value in values)
    high = high if high > 0 else 1.0
    return Scale(-high if signed else 0.0, high, signed, unit)


def _plot(
    values: Array,
    kept: Array | None,
    name: str,
    title: str,
    scale: Scale,
    *,
    first: bool,
    bar: bool = True,
    across: int = 2,
) -> Plot:
    layers, units = values.shape
    extra = _ranks(values).astype(object)[:, :, None]
    state: tuple[str, ...] = ()
    if kept is not None:
        extra = np.concatenate([extra, np.where(kept, "kept", "pruned").astype(object)[:, :, None]], axis=2)
        state = ("%{customdata[1]}",)
    cells = Cells(
        values,
        tuple(f"layer {layer}" for layer in range(layers)),
        tuple(f"{name} {unit}" for unit in range(units)),
        scale,
        hover=("%{y}, %{x}", "%{z:.3g}", f"rank %{{customdata[0]}} of {values.size}", *state),
        crossed=None if kept is None else ~kept,
        extra=extra,
        colour_bar=bar,
    )
    return Plot(
        title,
        # beside one other plot, two labels of two digits would touch over neighbouring cells
        Axis(name, (-0.5, units - 0.5), *numbered(units, 11 if across == 2 else 24 // across)),
        Axis("layer", (-0.5, layers - 0.5), *numbered(layers, 16))
        if first
        else Axis("", (-0.5, layers - 0.5), (), ()),
        (cells,),
    )


def numbered(count: int, most: int) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Tick positions and labels for units 0 to count - 1, at most `most` of them, evenly spaced.

    >>> numbered(3, 12)
    ((0.0, 1.0, 2.0), ('0', '1', '2'))
    >>> numbered(30, 8)[1]
    ('0', '5', '10', '15', '20', '25')
    """
    step = next(
        step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, count) if -(-count // step) <= most
    )
    ticks = range(0, count, step)
    return tuple(float(tick) for tick in ticks), tuple(str(tick) for tick in ticks)


def _ranks(values: Array) -> Array:
    """Rank 1 is the unit with the largest magnitude; equal units rank in order of layer, then unit."""
    order = np.argsort(-np.abs(values), axis=None, kind="stable")
    ranks = np.empty(values.size, dtype=int)
    ranks[order] = np.arange(1, values.size + 1)
    return ranks.reshape(values.shape)


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]


def _height(layers: int, across: int = 2) -> int:
    return int(np.clip(layers * (32 if across <= 2 else 24), 120, 420))


def _sizes(values: Sequence[Array], names: tuple[str, str]) -> str:
    return " and ".join(f"{v.shape[0]} x {v.shape[1]} {name}s" for v, name in zip(values, names, strict=True))


def _notice(kept: Sequence[Array | None]) -> str:
    return "A cross marks a pruned unit." if any(mask is not None for mask in kept) else ""


def _top(values: Array, name: str) -> str:
    order = np.argsort(-np.abs(values), axis=None, kind="stable")[:5]
    places = [divmod(int(index), values.shape[1]) for index in order]
    return f"strongest (layer/{name}): " + " ".join(f"{layer}/{unit}" for layer, unit in places)


def _facts(values: Array, kept: Array | None, name: str) -> list[str]:
    means = " ".join(short(mean) for mean in np.abs(values).mean(1))
    facts = [
        f"{_capital(name)}s, mean size in each layer from 0: {means}",
        f"{_capital(name)}s, {_top(values, name)}",
    ]
    if kept is not None:
        per_layer = " ".join(str(int(count)) for count in kept.sum(1))
        facts.append(f"{_capital(name)}s kept: {int(kept.sum())} of {kept.size}; in each layer: {per_layer}")
    return facts
