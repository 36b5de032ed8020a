"""What every figure shares: sizes, colours, text that is safe to draw, numbers that are short enough to read.

Sizes are pixels at 96 dots per inch, so that 12 pt is 16 px in the interactive figure and in its still twin.
"""

from __future__ import annotations

import html
from typing import Any

import numpy as np

from dsgp_lab.errors import LabError

Array = np.ndarray[Any, Any]

DPI = 96
WIDTH = 800
FONT_PX = 16
TITLE_PX = 18
FONT_FAMILY = "DejaVu Sans, Verdana, Arial, sans-serif"
INK = "#1a1a1a"
GRID = "#dddddd"
PAPER = "#ffffff"

# Okabe and Ito (2008): told apart with every common kind of colour blindness.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#8C8C8C"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, GREY)


def as_array(values: Any) -> Array:
    """Return tensors, arrays, lists and numbers as one numpy array (detached, on the CPU).

    >>> as_array([[1, 2], [3, 4]]).shape
    (2, 2)
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
        values = values.numpy()
    return np.asarray(values)


def finite(values: Any, ndim: int, what: str) -> Array:
    """Return `values` as a float array of `ndim` axes; a wrong shape, nothing at all or a NaN is an error.

    >>> finite([1, 2, 3], 1, "neurons")
    array([1., 2., 3.])
    """
    array = as_array(values).astype(float)
    if array.ndim != ndim or array.size == 0:
        raise LabError(
            got=f"{what} of shape {list(array.shape)}",
            allowed=f"{ndim} axes, none of them empty",
            hint="pass one input's values, for example sensitivity.heads[0]",
        )
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise LabError(
            got=f"{what} with {bad} values that are NaN or infinite",
            allowed="finite numbers",
            hint="look at the model and the scorer that made them: a figure would hide them",
        )
    return array


def significant(value: float, digits: int = 4) -> float:
    """Round to significant digits, which keeps the figure's JSON small.

    >>> significant(0.123456), significant(-1234567.0), significant(-0.0)
    (0.1235, -1235000.0, 0.0)
    """
    return float(f"{value:.{digits}g}") + 0.0


def short(value: float) -> str:
    """Two significant digits: what a digest shows, the same on every machine.

    >>> short(0.12345), short(-0.0), short(1234.0)
    ('0.12', '0', '1200')
    """
    value = significant(value, 2)
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}"


def percent(share: float) -> str:
    """Write a share as a whole percentage.

    >>> percent(0.614)
    '61 %'
    """
    return f"{round(100 * share) + 0:d} %"


def shorten(text: str, length: int) -> str:
    """Cut a text at `length` characters and say so with an ellipsis; white space becomes single spaces.

    >>> shorten("a warm, funny film", 8)
    'a warm,…'
    """
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def sentence(title: str) -> str:
    """End a title like a sentence, unless it already ends like one.

    >>> sentence("Prediction"), sentence("A warm, funny film."), sentence("Which scorer?")
    ('Prediction.', 'A warm, funny film.', 'Which scorer?')
    """
    return title if title.endswith((".", "!", "?", "…")) else f"{title}."


def escape_label(text: str) -> str:
    """Make a user's text safe as a plotly label.

    Plotly renders a few HTML tags (<b>, <a href>) and, where MathJax is loaded, $formulas$; a user's text
    must do neither. A line break stays one. Quotes stay as they are: plotly knows no entity for them.

    >>> escape_label("<b>50 % & $x$</b>")
    '&lt;b&gt;50 % &amp; &#36;x&#36;&lt;/b&gt;'
    """
    return html.escape(text, quote=False).replace("$", "&#36;").replace("\n", "<br>")


def text_width(text: str) -> int:
    """Estimate the width of a label in pixels, in DejaVu Sans: wide, narrow and usual characters.

    >>> text_width("layer"), text_width("…"), text_width("映画")
    (46, 16, 32)
    """
    ems = {"narrow": 0.4, "usual": 0.625, "wide": 1.0}
    return round(FONT_PX * sum(ems[_breadth(character)] for character in text))


def _breadth(character: str) -> str:
    if character in "mwMW@%…—" or ord(character) > 0x1100:
        return "wide"
    return "narrow" if character in "ijlt.,:;'|!I[]() " else "usual"


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers between low and high, at most `most` of them.

    >>> nice_ticks(0, 0.183), nice_ticks(-0.4, 0.4)
    ([0.0, 0.05, 0.1, 0.15], [-0.4, -0.2, 0.0, 0.2, 0.4])
    """
    size = 10.0 ** np.floor(np.log10(high - low))
    for factor in (0.1, 0.2, 0.5, 1, 2, 5):
        step = size * factor
        first, last = np.ceil(low / step - 1e-6), np.floor(high / step + 1e-6)
        if last - first < most:
            return [significant(step * number) for number in np.arange(first, last + 1)]
    return [significant(low)]
