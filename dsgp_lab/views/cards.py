"""Cards: small pieces of HTML beside a panel's figures. Every text that comes in is escaped.

They follow the colours of JupyterLab's theme; outside of it they fall back to dark on white.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from dsgp_lab.views.style import BLUE, GREY, ORANGE

INK = "var(--jp-ui-font-color1, #1a1a1a)"
SOFT = "var(--jp-ui-font-color2, #555)"
LINE = "var(--jp-border-color2, #bbb)"
TRACK = "var(--jp-layout-color2, #eee)"
STRIPES = "repeating-linear-gradient(135deg, transparent 0 5px, rgba(255,255,255,.55) 5px 8px)"
FONT = "font:14px/1.45 var(--jp-ui-font-family, 'DejaVu Sans', Verdana, Arial, sans-serif)"


def card(title: str, body: str, note: str = "") -> str:
    """A titled box; `body` is HTML, title and note are plain text."""
    foot = f'<div style="color:{SOFT};font-size:13px;margin-top:4px">{escape(note)}</div>' if note else ""
    return (
        f'<section style="{FONT};color:{INK};border:1px solid {LINE};border-radius:4px;padding:8px 12px;'
        f'margin:0 0 8px 0"><div style="font-weight:600;margin-bottom:2px">{escape(title)}</div>{body}{foot}'
        "</section>"
    )


def bar(share: float, colour: str, *, hatched: bool = False) -> str:
    """A bar of 0 to 1 of the width; hatched tells the pruned model's without its colour."""
    width = 100 * min(1.0, max(0.0, share))
    stripes = f"background-image:{STRIPES};" if hatched else ""
    return (
        f'<div style="background:{TRACK};height:10px;border-radius:2px;overflow:hidden" aria-hidden="true">'
        f'<div style="width:{width:.1f}%;height:10px;background-color:{colour};{stripes}"></div></div>'
    )


def prediction_card(
    labels: Sequence[str],
    dense: Sequence[float],
    pruned: Sequence[float],
    *,
    margins: tuple[float, float],
    values: tuple[str, str] = ("", ""),
    title: str = "Prediction",
) -> str:
    """Probabilities dense beside pruned, and the margin of the dense model's class in both.

    `values` holds what both predict as text: outputs of a regression, whose labels are empty, or classes; by
    default the likeliest ones.
    """
    if not labels:
        scale = 5.0
        body = _pair("dense", float(values[0]) / scale, values[0])
        body += _pair("pruned", float(values[1]) / scale, values[1])
        return card(f"{title}, 0 to 5", body, f"Difference {float(values[1]) - float(values[0]):+.2f}.")
    rows = ""
    for label, whole, cut in zip(labels, dense, pruned, strict=True):
        rows += f'<div style="margin-top:4px">{escape(label)}</div>'
        rows += _pair("dense", whole, _percent(whole)) + _pair("pruned", cut, _percent(cut))
    likeliest = (max(zip(each, labels, strict=True))[1] for each in (dense, pruned))
    whole_best, cut_best = values if values[0] else likeliest
    verdict = (
        "Same class." if whole_best == cut_best else f"The class changed: {whole_best} became {cut_best}."
    )
    words = f"Margin of {whole_best}: dense {margins[0]:.2f}, pruned {margins[1]:.2f}."
    return card(title, rows, f"{words} {verdict}")


def _pair(name: str, share: float, value: str) -> str:
    colour, hatched = (GREY, False) if name == "dense" else (BLUE, True)
    return (
        f'<div style="display:grid;grid-template-columns:56px 1fr 62px;gap:8px;align-items:center">'
        f'<span style="color:{SOFT}">{name}</span>{bar(share, colour, hatched=hatched)}'
        f'<span style="text-align:right">{escape(value)}</span></div>'
    )


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def macs_card(kept: int, dense: int, scorer: int, charged: bool, keep: float, edited: bool) -> str:
    """A gauge of the operations: what runs, of the dense model's, beside the budget."""
    share = (kept + (scorer if charged else 0)) / dense
    mark = (
        '<div style="position:relative;height:10px;margin-top:-10px" aria-hidden="true">'
        f'<div style="position:absolute;left:{100 * keep:.1f}%;top:-3px;width:2px;height:16px;'
        f'background:{ORANGE}"></div></div>'
    )
    body = (
        f'<div><span style="font-size:22px;font-weight:600">{_percent(share)}</span> of the dense operations'
        f" (budget {_percent(keep, 0)})</div>{bar(share, BLUE, hatched=True)}{mark}"
    )
    own = (
        f"{_percent(scorer / dense)} of dense"
        if scorer / dense >= 0.0005 or not scorer
        else "under 0.1 % of dense"
    )
    kind = "counted in" if charged else "an instrument, not counted in"
    parts = [f"{kept / 1e6:.1f} of {dense / 1e6:.1f} million MACs run. Scorer: {own}, {kind}."]
    if edited:
        parts.append("Changed by hand: the budget no longer binds.")
    return card("Operations", body, " ".join(parts))


def latency_card(
    ratio: tuple[float, float, float] | None,
    control: tuple[float, float, float] = (1.0, 1.0, 1.0),
    *,
    times: tuple[float, float] = (0.0, 0.0),
    rounds: int = 0,
    setting: str = "",
    note: str = "",
) -> str:
    """Measured time of the cut run over the dense run, and dense over dense (A/A), each (middle, low, high).

    times: medians of dense and cut in milliseconds. Without a ratio: still measuring.
    """
    if ratio is None:
        return card("Measured time", f'<div style="color:{SOFT}">Measuring...</div>', note)
    body = (
        f'<div><span style="font-size:22px;font-weight:600">{ratio[0]:.2f}</span> of the dense time,'
        f" 95 % interval {ratio[1]:.2f} to {ratio[2]:.2f}</div>"
        + _ruler(ratio, control)
        + f'<div style="color:{SOFT}">cut {times[1]:.1f} ms, dense {times[0]:.1f} ms; dense against itself'
        f" (A/A) {control[0]:.2f}, {control[1]:.2f} to {control[2]:.2f}</div>"
    )
    verdict = "" if told_apart(ratio, control) else "No measurable difference from dense. "
    return card("Measured time", body, f"{verdict}{rounds} paired rounds, {setting}. {note}".strip())


def told_apart(ratio: tuple[float, float, float], control: tuple[float, float, float]) -> bool:
    """Whether the ratio's interval leaves out 1 and the gain is larger than the A/A interval is wide.

    >>> told_apart((0.6, 0.55, 0.65), (1.0, 0.98, 1.02)), told_apart((0.97, 0.95, 0.99), (1.0, 0.96, 1.05))
    (True, False)
    """
    return not ratio[1] <= 1 <= ratio[2] and abs(1 - ratio[0]) > control[2] - control[1]


def _ruler(ratio: tuple[float, float, float], control: tuple[float, float, float]) -> str:
    """Both intervals on one scale from 0 to 1.4: the cut run above, the control below."""

    def interval(values: tuple[float, float, float], colour: str, top: int) -> str:
        low, high = (100 * min(v, 1.4) / 1.4 for v in (values[1], values[2]))
        middle = 100 * min(values[0], 1.4) / 1.4
        return (
            f'<div style="position:absolute;left:{low:.1f}%;width:{max(high - low, 0.5):.1f}%;'
            f'top:{top + 3}px;height:4px;background:{colour};opacity:.6"></div>'
            f'<div style="position:absolute;left:{middle:.1f}%;top:{top}px;width:3px;height:10px;'
            f'background:{colour}"></div>'
        )

    one = 100 / 1.4
    return (
        f'<div style="position:relative;height:28px;margin:2px 0" aria-hidden="true">'
        f'<div style="position:absolute;left:{one:.1f}%;top:0;width:1px;height:28px;background:{INK}"></div>'
        f'<div style="position:absolute;left:{one:.1f}%;top:-3px;margin-left:4px;font-size:12px">1</div>'
        f"{interval(ratio, BLUE, 2)}{interval(control, GREY, 15)}</div>"
    )


def check_card(difference: float, limit: float = 1e-4) -> str:
    """The line that says whether masking and cutting gave the same logits."""
    holds = difference <= limit
    words = "Masked = compacted" if holds else "Masked and compacted differ"
    mark = "&#10003;" if holds else "&#10007;"
    return (
        f'<div style="{FONT};color:{INK};margin:0 0 8px 0">{mark} {words}: largest difference of logits'
        f" {difference:.0e}</div>"
    )


def toggled_card(unit: str, runs: bool, estimate: float, alone: float, here: float, regression: bool) -> str:
    """One unit: what its slope promised, and what leaving it out really changes."""
    what = "output" if regression else "margin"
    rows = (
        ("estimate: slope by its gate, whole model", estimate),
        ("true, left out of the whole model", alone),
        ("true, left out of this mask's model", here),
    )
    body = "".join(
        f'<div style="display:grid;grid-template-columns:1fr 70px;gap:8px"><span>{escape(name)}</span>'
        f'<span style="text-align:right;font-variant-numeric:tabular-nums">{value:+.3f}</span></div>'
        for name, value in rows
    )
    state = "runs" if runs else "is pruned"
    note = f"How far the {what} falls without the unit; a negative number: it rises."
    return card(f"{unit[:1].upper()}{unit[1:]} {state}", body, note)


def error_card(sentence: str, traceback: str = "") -> str:
    """An error as a sentence, its traceback folded."""
    fold = (
        '<details><summary>Details</summary><pre style="white-space:pre-wrap;font-size:12px">'
        f"{escape(traceback)}</pre></details>"
        if traceback
        else ""
    )
    return (
        f'<section role="alert" style="{FONT};color:{INK};border:1px solid #b3261e;border-left-width:6px;'
        f'border-radius:4px;padding:8px 12px;margin:0 0 8px 0">{escape(sentence)}{fold}</section>'
    )


def notice_card(notices: Sequence[str]) -> str:
    """Notices, a line each; nothing where there are none."""
    if not notices:
        return ""
    lines = "<br>".join(escape(notice) for notice in notices)
    style = f"{FONT};color:{INK};border-left:4px solid {ORANGE};padding:2px 10px;margin:0 0 8px 0"
    return f'<div style="{style}">{lines}</div>'
