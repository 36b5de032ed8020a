"""views/: same data in both twins, safe text, hatching, stable digests, small outputs, clear errors."""

from __future__ import annotations

import html
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import LineCollection
from matplotlib.transforms import Bbox

from dsgp_lab import views
from dsgp_lab.errors import LabError
from dsgp_lab.views.style import Array, nice_ticks, text_width
from dsgp_lab.views.view import PLOTLY_MIME

NASTY = '<script>alert("1")</script> <b>bold</b> <a href="http://x">x</a> $x^2$ 100 % 🎬 映画 %{z}\nnew line'


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).gamma(1, 0.03, shape)


def attention(count: int) -> Array:
    weights = random(count, count)
    return weights / weights.sum(1, keepdims=True)


HEADS, BLOCKS = random(6, 12), random(6, 12, seed=1)
VIEWS: dict[str, Callable[[str], views.View]] = {
    "heatmap": lambda text: views.sensitivity_heatmap(
        HEADS, BLOCKS, title=text, unit=text, mask_heads=HEADS > 0.02, mask_blocks=BLOCKS > 0.02
    ),
    "signed": lambda text: views.sensitivity_heatmap(HEADS - 0.03, BLOCKS - 0.03, signed=True, title=text),
    "one unit": lambda text: views.sensitivity_heatmap([[0.0]], [[1.0]], title=text, mask_heads=[[False]]),
    "12 x 16": lambda text: views.sensitivity_heatmap(random(12, 16), random(12, 16), title=text),
    "30 x 9": lambda text: views.sensitivity_heatmap(
        random(30, 9), random(30, 12), title=text, mask_heads=random(30, 9) > 0.02, names=("KV group", text)
    ),
    "grid": lambda text: views.sensitivity_grid(
        [(text, HEADS, BLOCKS)] * 4, masks=[(HEADS > 0.02, BLOCKS > 0.02)] * 4
    ),
    "neurons": lambda text: views.neuron_bars(random(1536) - 0.01, layer=3, title=text, block_size=128),
    "sorted neurons": lambda text: views.neuron_bars(
        random(128), layer=3, block=5, order="sorted", unit=text
    ),
    "attention": lambda text: views.attention_map(attention(9), [text] * 9, layer=1, head=2),
    "long attention": lambda text: views.attention_map(attention(512), [text] * 512, layer=1, head=2),
    "correlations": lambda text: views.rank_correlation_bars(
        [text, "random"], [0.8, -0.05], low=[0.7, -0.1], high=[0.85, 0.0]
    ),
    "scatter": lambda text: views.estimate_scatter(
        [(text, HEADS, HEADS**2), ("blocks", BLOCKS, BLOCKS)], diagonal=True
    ),
    "headroom": lambda text: views.headroom_bars([text], {"unit": [0.4], text: [0.6]}),
    "prediction": lambda text: views.prediction_bars(
        [text, "positive"], [0.03, 0.97], [0.6, 0.4], title=text
    ),
    "cost": lambda text: views.cost_bars(160e6, 270e6, scorer=12e6, title=text),
    "timing": lambda text: views.timing_bars(
        11.7, {"score": 1.2, text: 0.1, "run": 6.6}, notice=text, interval=((11.5, 12.1), (7.6, 8.2))
    ),
}


@pytest.fixture(params=VIEWS)
def build(request: pytest.FixtureRequest) -> Callable[[str], views.View]:
    return VIEWS[request.param]


def strings(value: object) -> list[str]:
    """All strings in nested JSON."""
    if isinstance(value, dict):
        return [text for part in value.values() for text in strings(part)]
    if isinstance(value, list):
        return [text for part in value for text in strings(part)]
    return [value] if isinstance(value, str) else []


def test_a_view_is_small_and_complete(build: Callable[[str], views.View]) -> None:
    view = build("a warm, funny film")
    data, metadata = view._repr_mimebundle_()
    assert set(data) == {PLOTLY_MIME, "image/png", "text/plain"}
    assert data["text/plain"] == view.digest == repr(view)
    assert view.digest.startswith(view.alt)
    assert metadata["image/png"]["alt"] == view.alt
    assert len(view.png()) < 60_000
    assert len(json.dumps(data[PLOTLY_MIME])) < 60_000
    assert "sendChartToCloud" in data[PLOTLY_MIME]["config"]["modeBarButtonsToRemove"]


def test_text_of_the_user_is_never_markup(build: Callable[[str], views.View]) -> None:
    view = build(NASTY)
    for text in strings(json.loads(view.figure.to_json())):
        bare = re.sub(r"<br>|<extra></extra>", "", text)
        assert "<" not in bare
        assert "$" not in bare
    page = view.html()
    assert "<script>alert" not in page
    assert "</script> <b>" not in page
    assert "<script" not in view.svg().decode().lower()


def test_drawing_is_silent_and_repeatable(build: Callable[[str], views.View]) -> None:
    view = build(NASTY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert view.png() == view.png()
        assert view.svg() == build(NASTY).svg()


def test_both_twins_have_one_size(build: Callable[[str], views.View]) -> None:
    view = build("a warm, funny film")
    still = view.static()
    assert tuple(still.get_size_inches() * still.dpi) == (view.figure.layout.width, view.figure.layout.height)


def test_no_text_is_cut_off_or_overlaps_or_is_under_12_points(build: Callable[[str], views.View]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    still = build("a warm, funny film").static()
    FigureCanvasAgg(still).draw()
    frame = still.bbox
    seen: list[tuple[str, Bbox]] = []
    for text in still.findobj(Text):
        if isinstance(text, Text) and text.get_visible() and text.get_text().strip():
            assert float(text.get_fontsize()) >= 12
            box = text.get_window_extent()
            assert box.x0 >= frame.x0 - 2, text.get_text()
            assert box.x1 <= frame.x1 + 2, text.get_text()
            assert box.y0 >= frame.y0 - 2, text.get_text()
            assert box.y1 <= frame.y1 + 2, text.get_text()
            for other, place in seen:
                assert not place.padded(-2).overlaps(box.padded(-2)), f"{other} and {text.get_text()} overlap"
            seen.append((text.get_text(), box))
    assert seen


def test_the_digest_hides_small_differences_between_machines(build: Callable[[str], views.View]) -> None:
    assert build("film").digest == build("film").digest
    view = views.sensitivity_heatmap(HEADS * (1 + 1e-6), BLOCKS * (1 - 1e-6), title="x")
    assert view.digest == views.sensitivity_heatmap(HEADS, BLOCKS, title="x").digest


def test_heat_map_holds_the_data_in_the_agreed_order() -> None:
    mask = np.ones((6, 12), dtype=bool)
    mask[4, 7] = False
    view = views.sensitivity_heatmap(torch.tensor(HEADS), BLOCKS, mask_heads=torch.tensor(mask))
    heads, crosses, blocks = view.figure.data
    np.testing.assert_allclose(np.array(heads.z, dtype=float), HEADS, rtol=1e-3)
    np.testing.assert_allclose(np.array(blocks.z, dtype=float), BLOCKS, rtol=1e-3)
    assert (crosses.x, crosses.y) == (("head 7",), ("layer 4",))
    assert list(view.figure.layout.yaxis.range) == [-0.5, 5.5]
    axes = view.static().axes[0]
    assert axes.get_ylim() == (-0.5, 5.5)
    assert axes.get_xlim() == (-0.5, 11.5)
    np.testing.assert_allclose(np.reshape(np.asarray(axes.collections[0].get_array()), (6, 12)), HEADS)
    assert "Heads kept: 71 of 72; in each layer: 12 12 12 12 11 12" in view.digest
    assert heads.customdata[4][7][1] == "pruned"
    ranks = np.array(heads.customdata, dtype=object)[:, :, 0].astype(int)
    assert ranks.flat[HEADS.argmax()] == 1
    assert sorted(ranks.ravel()) == list(range(1, 73))


def test_signed_values_are_centred_at_zero() -> None:
    trace = views.sensitivity_heatmap(HEADS - 0.01, BLOCKS, signed=True).figure.data[0]
    assert trace.zmin == -trace.zmax
    with pytest.raises(LabError, match="signed=True"):
        views.sensitivity_heatmap(HEADS - 0.01, BLOCKS)


def test_inputs_side_by_side_share_a_scale() -> None:
    figure = views.sensitivity_grid([("a", HEADS, BLOCKS), ("b", 3 * HEADS, BLOCKS)]).figure
    heads = [trace for trace in figure.data if trace.type == "heatmap"][:2]
    assert [trace.zmax for trace in heads] == pytest.approx([3 * HEADS.max()] * 2, rel=1e-3)
    assert [trace.showscale for trace in heads] == [False, True]
    fixed = views.sensitivity_heatmap(HEADS, BLOCKS, zmax=(1.0, 2.0)).figure
    assert [trace.zmax for trace in fixed.data] == [1.0, 2.0]


def test_a_sorted_layer_starts_with_its_strongest_neuron() -> None:
    values = np.array([0.1, -0.5, 0.3])
    view = views.neuron_bars(values, layer=0, order="sorted", ids=[7, 12345, 9])
    assert "Strongest: neuron 12345, neuron 9, neuron 7" in view.digest
    assert [tuple(trace.x) for trace in view.figure.data] == [(1, 2), (0,)]
    assert view.figure.data[1].customdata[0][0] == 12345


def test_every_neuron_of_a_wide_layer_is_seen_in_the_still() -> None:
    values = np.zeros(1536)
    values[700] = 1.0
    lines = views.neuron_bars(values, layer=0).static().axes[0].collections[0]
    assert isinstance(lines, LineCollection)
    assert np.asarray(lines.get_segments()[700]).tolist() == [[700.0, 0.0], [700.0, 1.0]]


def test_spans_keep_the_attention_mass_and_say_so() -> None:
    weights, tokens = attention(100), [f"word{i}" for i in range(100)]
    view = views.attention_map(weights, tokens, layer=0, head=0, max_tokens=32)
    drawn = np.array(view.figure.data[0].z, dtype=float)
    assert drawn.shape == (25, 25)
    np.testing.assert_allclose(drawn.sum(1), 1, atol=1e-3)
    assert "100 tokens drawn in spans of 4" in view.digest
    assert any("spans of 4" in note.text for note in view.figure.layout.annotations)
    assert "spans" not in views.attention_map(weights[:9, :9], tokens[:9], layer=0, head=0).digest


def test_queries_run_down_and_keys_to_the_right() -> None:
    figure = views.attention_map([[0.0, 1.0], [0.5, 0.5]], ["a", "b"], layer=0, head=0).figure
    assert list(figure.layout.yaxis.range) == [1.5, -0.5]
    assert list(figure.layout.xaxis.range) == [-0.5, 1.5]
    assert [list(row) for row in figure.data[0].z] == [[0.0, 1.0], [0.5, 0.5]]


def test_the_best_scorer_stands_on_top_with_its_interval() -> None:
    view = views.rank_correlation_bars(["a", "b"], [0.2, 0.8], low=[0.1, 0.7], high=[0.3, 0.9])
    assert view.figure.layout.yaxis.ticktext == ("b", "a")
    assert view.figure.data[0].error_x.array == pytest.approx((0.1, 0.1))
    assert "Best first: b 0.8, a 0.2" in view.digest


def test_scatter_reports_the_rank_correlation_also_of_constant_scores() -> None:
    digest = views.estimate_scatter([("heads", HEADS, HEADS**2), ("blocks", np.ones(4), np.arange(4))]).digest
    assert "heads: 72 units, Spearman rank correlation 1.00" in digest
    assert "blocks: 4 units, Spearman rank correlation not defined" in digest


def test_prediction_and_cost_facts() -> None:
    assert "The prediction changed." in VIEWS["prediction"]("negative").digest
    same = views.prediction_bars(["negative", "positive"], [0.03, 0.97], [0.11, 0.89])
    assert "Pruned: positive with 89 %\nSame prediction." in same.digest
    assert "Sub-network 59 % of the dense MACs, with the scorer 64 %" in VIEWS["cost"]("MACs").digest


def test_the_digest_of_times_holds_no_times() -> None:
    assert "11.7" not in VIEWS["timing"]("plan").digest
    slow = views.timing_bars(23.0, {"score": 2.0, "run": 30.0})
    assert slow.digest == views.timing_bars(11.0, {"score": 1.0, "run": 6.0}).digest


def test_part_of_a_stack_is_told_by_hatching_too() -> None:
    first, second = VIEWS["headroom"]("a").figure.data
    assert first.marker.pattern.shape is None
    assert second.marker.pattern.shape == "/"


MISTAKES: list[tuple[Callable[[], object], str]] = [
    (
        lambda: views.sensitivity_heatmap(np.zeros((1, 6, 12)), BLOCKS),
        r"heads of shape \[1, 6, 12\]",
    ),
    (lambda: views.sensitivity_heatmap(np.zeros((0, 12)), BLOCKS), r"shape \[0, 12\]"),
    (lambda: views.sensitivity_heatmap(HEADS * np.nan, BLOCKS), "72 values that are NaN"),
    (
        lambda: views.sensitivity_heatmap(HEADS, BLOCKS, mask_heads=HEADS[:3] > 0),
        r"head mask of shape \[3, 12\]",
    ),
    (lambda: views.sensitivity_grid([]), "0 inputs"),
    (lambda: views.sensitivity_grid([("a", HEADS, BLOCKS)] * 5), "5 inputs"),
    (lambda: views.sensitivity_grid([("a", HEADS, BLOCKS), ("b", HEADS[:2], BLOCKS)]), "2 shapes"),
    (lambda: views.sensitivity_grid([("a", HEADS, BLOCKS)], masks=[(None, None)] * 2), "2 masks"),
    (lambda: views.neuron_bars([1.0], layer=0, order="random"), "order='random'"),  # type: ignore[arg-type]
    (lambda: views.neuron_bars([1.0], layer=0, ids=[1, 2]), "2 neuron ids"),
    (lambda: views.attention_map(attention(3), ["a"], layer=0, head=0), r"\[3, 3\] and 1 tokens"),
    (lambda: views.rank_correlation_bars(["a", "b"], [0.1]), "1 correlations for 2 names"),
    (lambda: views.estimate_scatter([("a", HEADS, HEADS[:2])]), "estimates"),
    (lambda: views.headroom_bars(["a"], {"x": [0.9], "y": [0.9]}), "sum to 1.8"),
    (lambda: views.headroom_bars([], {"x": []}), "shape"),
    (lambda: views.prediction_bars(["a", "b"], [2.0, -1.0], [0.5, 0.5]), "dense probabilities from -1 to 2"),
    (lambda: views.prediction_bars(["a"], [0.5, 0.5], [0.5, 0.5]), "2 dense probabilities"),
    (lambda: views.cost_bars(-1.0, 2.0), "MACs"),
    (lambda: views.timing_bars(float("nan"), {"run": 1.0}), "NaN"),
]


@pytest.mark.parametrize(("mistake", "message"), MISTAKES)
def test_mistakes_get_a_sentence(mistake: Callable[[], object], message: str) -> None:
    with pytest.raises(LabError, match=f"(?s){message}.*Allowed.*Next"):
        mistake()


def test_save_writes_each_kind(tmp_path: Path) -> None:
    view = VIEWS["heatmap"]("a <b>warm</b> film")
    assert view.save(tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert b"a &lt;b&gt;warm&lt;/b&gt; film" in view.save(tmp_path / "x.svg").read_bytes()
    page = view.save(tmp_path / "x.html").read_text(encoding="utf-8")
    assert html.escape(view.digest) in page
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", page)
    assert str(tmp_path) not in page
    with pytest.raises(LabError, match=r"a file ending in '\.gif'"):
        view.save(tmp_path / "x.gif")


def test_show_makes_one_output(monkeypatch: pytest.MonkeyPatch) -> None:
    import IPython.display

    shown: list[dict[str, object]] = []
    monkeypatch.setattr(IPython.display, "display", lambda data, **options: shown.append(data))
    views.show(VIEWS["cost"]("MACs"))
    assert [set(data) for data in shown] == [{PLOTLY_MIME, "image/png", "text/plain"}]


@given(st.text(max_size=60))
def test_escaped_labels_hold_no_markup_and_lose_nothing(text: str) -> None:
    escaped = views.escape_label(text)
    assert "<" not in escaped.replace("<br>", "")
    assert "$" not in escaped
    assert html.unescape(escaped.replace("<br>", "\n")) == html.unescape(html.escape(text, quote=False))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 14), st.integers(1, 14), st.integers(1, 20), st.sampled_from([1e-12, 1e-3, 1.0, 1e9]))
def test_any_size_and_magnitude_can_be_drawn(layers: int, heads: int, blocks: int, size: float) -> None:
    view = views.sensitivity_heatmap(size * random(layers, heads), size * random(layers, blocks))
    assert view.png()
    assert len(view.figure.data) == 2


@given(st.floats(-1e9, 1e9), st.floats(1e-9, 1e9), st.integers(2, 9))
def test_ticks_lie_within_the_axis(low: float, reach: float, most: int) -> None:
    if low + reach - low < reach / 2:  # the reach is lost in rounding
        return
    ticks = nice_ticks(low, low + reach, most)
    assert len(ticks) <= most
    assert ticks == sorted(ticks)


def test_text_width_is_close_to_the_real_one() -> None:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    for text in ["negative", "constant (static mean)", "##withstanding", "MNLI mismatched", "[CLS]"]:
        real = TextPath((0, 0), text, size=16, prop=FontProperties(family="DejaVu Sans")).get_extents().x1
        assert real - 4 <= text_width(text) <= 1.35 * real
