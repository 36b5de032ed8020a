"""Figures of results and masks: budget curves, gains, maps; beside what all figures must keep."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from test_views import (
    test_a_view_is_small_and_complete,  # noqa: F401
    test_both_twins_have_one_size,  # noqa: F401
    test_drawing_is_silent_and_repeatable,  # noqa: F401
    test_no_text_is_cut_off_or_overlaps_or_is_under_12_points,  # noqa: F401
    test_text_of_the_user_is_never_markup,  # noqa: F401
)

from dsgp_lab.errors import LabError
from dsgp_lab.views.curves import Curve, budget_curves, method_curves
from dsgp_lab.views.gains import gain_bars
from dsgp_lab.views.lines import BAND
from dsgp_lab.views.maps import MOST_WORDS, group_map, word_map
from dsgp_lab.views.picker import curve_picker
from dsgp_lab.views.view import View

METHODS = ("router", "twin", "mismatched", "static_fisher", "oracle_first_order")


def curve(name: str, shift: float = 0.0) -> Curve:
    x = np.array([0.25, 0.35, 0.5, 0.7])
    y = -6 * (1 - x) - shift
    return Curve(name, x, y, y - 1.5, y + 1)


def rates(groups: int, units: int) -> np.ndarray:
    return np.random.default_rng(0).random((groups, units))


WORDS = ["There", "is", "not", "a", "dull", "moment", "in", "these", "two", "hours", "."]
COUNTS = np.random.default_rng(1).integers(0, 4, (11, 6))
VIEWS: dict[str, Callable[[str], View]] = {
    "one panel": lambda text: budget_curves({text: [curve(name, i) for i, name in enumerate(METHODS)]}),
    "three panels": lambda text: budget_curves(
        {name: [curve("router"), curve(text, 3)] for name in "abc"}, title=text
    ),
    "eight panels": lambda text: budget_curves(
        {name: [curve("router"), curve("twin", 30)] for name in ("mnli-mm", text, *"abcdef")}, floor=-20
    ),
    "seven panels": lambda text: budget_curves({name: [curve("router")] for name in (text, *"abcdef")}),
    "picker": lambda text: curve_picker(
        {name: [curve(method, i) for i, method in enumerate(METHODS)] for name in (text, *"abcdef")},
        title=text,
    ),
    "gains": lambda text: gain_bars(
        ["cola", text], {"budget 0.25": ([1, -2], [0.5, -3], [2, -1]), text: ([3, 0], [-1, -1], [4, 1])}
    ),
    "words": lambda text: word_map(COUNTS, COUNTS, [text, *WORDS[1:]], title=text),
    "many words": lambda text: word_map(np.zeros((40, 12)), np.ones((40, 12)), [text] * 40, unit=text),
    "groups": lambda text: group_map(rates(8, 24), [text, *"abcdefg"], [f"block 0/{i}" for i in range(24)]),
}


@pytest.fixture(params=VIEWS)
def build(request: pytest.FixtureRequest) -> Callable[[str], View]:
    return VIEWS[request.param]


# Curves


def rows(**changes: object) -> pd.DataFrame:
    """A table of two methods, the router with two seeds."""
    made = [
        {
            "task": "sst2",
            "regime": "frozen",
            "method": method,
            "keep": keep,
            "macs": keep + 0.01,
            "seed": seed,
            "loss": 4 * (1 - keep) + seed,
            "ci_low": seed - 1.0,
            "ci_high": seed + 4.0,
        }
        for method, seeds in (("router", (0, 1)), ("twin", (0,)))
        for keep in (0.5, 0.25)
        for seed in seeds
    ]
    return pd.DataFrame(made).assign(**changes)


def test_curves_are_the_means_over_seeds_turned_upside_down() -> None:
    router, twin = method_curves(rows())
    assert (router.name, twin.name) == ("router", "twin")
    assert router.x.tolist() == [0.26, 0.51]
    assert router.y.tolist() == [-3.5, -2.5]
    assert router.low.tolist() == [-4.5, -4.5]
    assert router.high.tolist() == [0.5, 0.5]
    assert [each.name for each in method_curves(rows(), ["random", "twin"])] == ["twin"]
    averages = rows().drop(columns="task")  # the averages have no such column
    assert method_curves(averages)[0].y.tolist() == router.y.tolist()


def test_both_twins_join_the_points_and_shade_the_interval() -> None:
    view = budget_curves({"a": [curve("router")], "b": [curve("oracle_signed")]})
    band, line, other_band, other, points, other_points = view.figure.data
    first = curve("router")
    np.testing.assert_allclose(line.x, first.x)
    np.testing.assert_allclose(line.y, first.y, rtol=1e-3)
    np.testing.assert_allclose(band.y, [*first.high, *first.low[::-1]], rtol=1e-3)
    assert (band.fill, band.opacity, band.line.width, band.hoverinfo) == ("toself", BAND, 0, "skip")
    assert (line.line.dash, other.line.dash) == ("solid", "dash")  # an oracle is no competitor
    assert (line.yaxis, other.yaxis, other_band.xaxis) == ("y", "y2", "x2")
    assert line.line.color == points.marker.color == band.fillcolor
    assert (points.name, points.showlegend, line.showlegend) == ("router", True, False)
    assert other_points.name == "oracle signed"
    still, second = view.static().axes
    np.testing.assert_allclose(still.lines[-1].get_xydata(), np.stack([first.x, first.y], 1))
    assert still.lines[-1].get_color() == line.line.color
    assert second.lines[-1].get_linestyle() == "--"
    outline = still.collections[0].get_paths()[0].vertices
    assert (outline[:, 1].min(), outline[:, 1].max()) == (first.low.min(), first.high.max())


def test_a_method_looks_the_same_in_every_figure() -> None:
    both, alone = (
        budget_curves({"": [curve("twin"), curve("router")]}),
        budget_curves({"": [curve("router")]}),
    )
    assert both.figure.data[-1].marker == alone.figure.data[-1].marker
    assert both.figure.data[-2].marker != both.figure.data[-1].marker


def test_panels_share_their_scales() -> None:
    layout = budget_curves({"a": [curve("router")], "b": [curve("twin", 20)]}).figure.layout
    assert layout.yaxis.range == layout.yaxis2.range
    assert layout.xaxis.range == layout.xaxis2.range
    assert layout.yaxis.range[0] < -25 < 0 < layout.yaxis.range[1]
    assert set(layout.yaxis2.ticktext) == {""}  # grid lines without a second row of numbers


def test_a_floor_cuts_and_says_so() -> None:
    cut = budget_curves({"a": [curve("router"), curve("random", 50)]}, floor=-10)
    assert cut.figure.layout.yaxis.range[0] == -10
    assert any("below -10 is not drawn" in note.text for note in cut.figure.layout.annotations)
    whole = budget_curves({"a": [curve("router")]}, floor=-10)
    assert whole.figure.layout.yaxis.range[0] > -10
    assert not any("not drawn" in note.text for note in whole.figure.layout.annotations)


def test_the_digest_gives_every_value_with_its_interval() -> None:
    digest = budget_curves({"sst2": [curve("router")]}, title="Budgets").digest
    assert digest.startswith("Budgets. Curves of points against dense over the share of MACs, 1 panel.")
    assert "sst2, router: -4.5 [-6, -3.5] at 0.25, -3.9 [-5.4, -2.9] at 0.35" in digest


def test_the_reference_can_be_left_out() -> None:
    with_it = budget_curves({"a": [curve("router")]}).figure.layout
    without = budget_curves({"a": [curve("router")]}, reference=None).figure.layout
    assert (len(with_it.shapes), len(without.shapes)) == (1, 0)
    assert with_it.yaxis.range[1] > 0 > without.yaxis.range[1]


def test_the_menu_shows_one_panel_on_its_own_scale() -> None:
    panels = {"a": [curve("router")], "none": [], "b": [curve("router"), curve("twin", 40)]}
    view = curve_picker(panels, title="One task")
    (menu,) = view.figure.layout.updatemenus
    assert [button.label for button in menu.buttons] == ["a", "b"]  # a panel without a curve is left out
    assert [bool(trace.visible) for trace in view.figure.data] == [True] * 3 + [False] * 6
    alone = budget_curves({"b": panels["b"]}, title="One task").figure
    shown, changed = menu.buttons[1].args
    assert shown["visible"] == [False] * 3 + [True] * 6
    assert list(changed["yaxis.range"]) == list(alone.layout.yaxis.range)
    assert list(changed["yaxis.tickvals"]) == list(alone.layout.yaxis.tickvals)
    assert [note["text"] for note in changed["annotations"]] == ["One task", "b"]
    first = budget_curves({"a": panels["a"]}, title="One task")
    assert view.png() == first.png()
    assert "Panels: a, b" in view.digest
    assert first.digest.splitlines()[1] in view.digest


def test_a_single_panel_needs_no_menu_and_none_is_an_error() -> None:
    assert not curve_picker({"a": [curve("router")]}).figure.layout.updatemenus
    with pytest.raises(LabError, match="no curves"):
        curve_picker({"a": []})


# Gains and maps


def test_gains_say_what_is_sure() -> None:
    view = gain_bars(["a", "b", "c"], {"x": ([1, -1, 0.1], [0.5, -2, -1], [2, -0.5, 1])})
    assert "x: 1 above 0 for sure, 1 below 0, 1 undecided" in view.digest
    (bars,) = view.figure.data
    assert bars.error_x.array == pytest.approx((1, 0.5, 0.9))
    assert bars.error_x.arrayminus == pytest.approx((0.5, 1, 1.1))
    assert view.figure.layout.xaxis.range[0] < -2


def test_a_gain_that_is_not_there_is_left_out() -> None:
    nan = float("nan")
    view = gain_bars(["a", "b"], {"x": ([1, nan], [0, nan], [2, nan]), "y": ([1, 1], [0.5, 0], [2, 2])})
    x, y = view.figure.data
    assert (len(x.x), len(y.x)) == (1, 2)
    assert x.y[0] < y.y[0] < y.y[1]
    assert "x: 0 above 0 for sure, 0 below 0, 1 undecided" in view.digest


def test_words_run_to_the_right_and_layers_up() -> None:
    view = word_map(COUNTS, 2 * COUNTS, WORDS)
    heads, blocks = view.figure.data
    assert np.array(heads.z).tolist() == COUNTS.T.tolist()
    assert heads.zmax == blocks.zmax == 2 * COUNTS.max()
    assert list(view.figure.layout.yaxis.range) == [-0.5, 5.5]
    assert len(set(heads.x)) == len(WORDS)
    totals = 3 * COUNTS.sum(1)
    assert f"Most: {WORDS[totals.argmax()]} ({totals.max()})" in view.digest


def test_groups_run_down_and_units_to_the_right() -> None:
    values = np.array([[0.0, 0.5], [1.0, 0.25]])
    view = group_map(values, ["negation", "plain"], ["head 0/1", "block 2/3"])
    (cells,) = view.figure.data
    assert np.array(cells.z).tolist() == values.tolist()
    assert (cells.zmin, cells.zmax) == (0, 1)
    assert list(view.figure.layout.yaxis.range) == [1.5, -0.5]
    assert "head 0/1: kept by 100 % of plain, 0 % of negation" in view.digest


MISTAKES: list[tuple[Callable[[], object], str]] = [
    (lambda: method_curves(pd.concat([rows(), rows(task="rte")])), "rows of the tasks sst2, rte"),
    (lambda: method_curves(pd.concat([rows(), rows(regime="joint")])), "rows of the regimes frozen, joint"),
    (lambda: budget_curves({}), "no curves"),
    (lambda: budget_curves({"a": []}), "no curves"),
    (lambda: Curve("router", *np.zeros((3, 2)), np.zeros(3)), "2 low, 3 high of router"),
    (lambda: Curve("router", [2, 1], [0, 0], [0, 0], [0, 0]), "x in rising order"),  # type: ignore[arg-type]
    (lambda: Curve("router", *np.full((4, 2), np.nan)), "x of router with 2 values that are NaN"),
    (lambda: gain_bars(["a"], {}), "no gains"),
    (lambda: gain_bars(["a"], {"x": ([np.nan],) * 3}), "no gains"),
    (lambda: gain_bars(["a", "b"], {"x": ([1], [0], [2])}), r"\[1\] numbers of x"),
    (lambda: word_map(COUNTS, COUNTS[:, :5], WORDS), r"\[11, 6\] and \[11, 5\] for 11 words"),
    (lambda: word_map(COUNTS, COUNTS, WORDS[1:]), "for 10 words"),
    (lambda: word_map(np.ones((99, 2)), np.ones((99, 2)), ["a"] * 99), f"at most {MOST_WORDS} words"),
    (lambda: group_map([[0.5]], ["a"], ["b", "c"]), r"shape \[1, 1\]"),
    (lambda: group_map([[1.5]], ["a"], ["b"]), "1.5 to 1.5"),
]


@pytest.mark.parametrize(("mistake", "message"), MISTAKES)
def test_mistakes_in_results_get_a_sentence(mistake: Callable[[], object], message: str) -> None:
    with pytest.raises(LabError, match=f"(?s){message}.*Next"):
        mistake()
