"""Latency measurement under a clock that the test turns: exact ratios, order, controls, errors."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
import torch

from dsgp_lab import LabError
from dsgp_lab.evaluate import latency
from dsgp_lab.evaluate.latency import LatencyTable, measure_latency


class Clock:
    """Time that passes only when a variant runs; `pace` makes the whole machine slower or faster."""

    def __init__(self) -> None:
        self.now, self.pace = 0.0, 1.0
        self.calls: list[str] = []

    def variant(self, name: str, milliseconds: float, noise: float = 0.0) -> Callable[[], None]:
        chance = Random(name)

        def run() -> None:
            self.calls.append(name)
            self.now += 1e-3 * milliseconds * self.pace * chance.uniform(1 - noise, 1 + noise)

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(latency, "_now", lambda: made.now)
    return made


def test_ratios_are_exact(clock: Clock) -> None:
    variants = {"dense": clock.variant("dense", 10.0), "half": clock.variant("half", 5.5)}
    table = measure_latency(variants, "dense", rounds=20)
    half = table["half"]
    assert half.ratio == pytest.approx(0.55)
    assert (half.ci_low, half.ci_high) == pytest.approx((0.55, 0.55))
    assert half.median_ms == pytest.approx(5.5)
    assert half.differs
    assert table["dense"].ratio == table.control.ratio == pytest.approx(1.0)
    assert not table.control.differs


def test_a_machine_that_slows_down_changes_no_ratio(clock: Clock) -> None:
    """Ratios are taken within a round; medians of times alone would mislead."""

    def drifting() -> None:
        half()
        clock.pace *= 1.01

    half = clock.variant("half", 5.0)
    variants = {"dense": clock.variant("dense", 10.0), "half": drifting}
    table = measure_latency(variants, "dense", rounds=200, warmup=0)
    assert table["half"].ratio == pytest.approx(0.5, rel=0.02)
    assert table["half"].median_ms > 5.5


def test_what_counts_is_the_median_of_the_rounds_ratios() -> None:
    """Not the ratio of the medians, which is 1 here."""
    row = latency._ratio("half", mine=[0.005, 0.010, 0.090], base=[0.010, 0.010, 0.100], seed=0)
    assert row.ratio == pytest.approx(0.9)
    assert (row.quartile_low, row.quartile_high) == pytest.approx((0.7, 0.95))
    assert row.median_ms == pytest.approx(10.0)


def test_the_control_covers_one_and_noise_is_no_difference(clock: Clock) -> None:
    variants = {
        "dense": clock.variant("dense", 10.0, noise=0.2),
        "same": clock.variant("same", 10.0, noise=0.2),
        "faster": clock.variant("faster", 8.0, noise=0.2),
    }
    table = measure_latency(variants, "dense", rounds=200)
    control = table.control
    assert control.ci_low <= 1 <= control.ci_high
    assert control.quartile_low < control.ci_low < control.ratio < control.ci_high < control.quartile_high
    assert not table["same"].differs
    assert table["faster"].differs
    assert table["faster"].ratio == pytest.approx(0.8, abs=0.03)
    lines = {line.split("  ")[0]: line for line in str(table).splitlines()}
    assert lines["same"].endswith("no measurable difference")
    assert lines["dense again"].endswith("no measurable difference")
    assert not lines["faster"].endswith("difference")
    assert not lines["dense"].endswith("difference")


def test_rounds_are_interleaved_in_random_order(clock: Clock) -> None:
    variants = {name: clock.variant(name, 1.0) for name in ("dense", "a", "b")}
    measure_latency(variants, "dense", rounds=30, warmup=2)
    warm, rest = clock.calls[:6], clock.calls[6:]
    assert sorted(warm) == ["a", "a", "b", "b", "dense", "dense"]
    rounds = [rest[i : i + 4] for i in range(0, len(rest), 4)]
    assert len(rounds) == 30
    assert all(sorted(turn) == ["a", "b", "dense", "dense"] for turn in rounds)
    assert len({tuple(turn) for turn in rounds}) > 5
    first = list(clock.calls)
    clock.calls.clear()
    measure_latency(variants, "dense", rounds=30, warmup=2)
    assert clock.calls == first  # the seed decides
    clock.calls.clear()
    measure_latency(variants, "dense", rounds=30, warmup=2, seed=1)
    assert clock.calls != first


def test_everything_needed_to_read_it_is_shown(clock: Clock) -> None:
    setting = "<b>toy</b>, 25 tokens"
    table = measure_latency({"dense": clock.variant("dense", 1.0)}, "dense", rounds=5, setting=setting)
    for shown in (str(table), repr(table), table.report().markdown()):
        assert "Latency, <b>toy</b>, 25 tokens" in shown
        assert f"5 rounds, {torch.get_num_threads()} thread" in shown
        assert f"torch {torch.__version__}" in shown
        assert "dense again" in shown
    assert "&lt;b&gt;toy" in table._repr_html_()
    assert "<b>toy" not in table._repr_html_()


@pytest.mark.parametrize("rounds", [4, 0, -1])
def test_too_few_rounds(rounds: int) -> None:
    with pytest.raises(LabError, match=f"baseline 'a', {rounds} rounds.*at least 5 rounds"):
        measure_latency({"a": lambda: None}, "a", rounds=rounds)


def test_unknown_baseline() -> None:
    with pytest.raises(LabError, match=r"baseline 'dense', 100 rounds.*one of a, b and"):
        measure_latency({"a": lambda: None, "b": lambda: None}, "dense")


def test_an_unknown_variant_of_a_table(clock: Clock) -> None:
    table: LatencyTable = measure_latency({"dense": clock.variant("dense", 1.0)}, "dense", rounds=5)
    with pytest.raises(LabError, match=r"variant 'half'.*Allowed: dense"):
        table["half"]


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with latency.threads(2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == before
    with pytest.raises(KeyError), latency.threads(2):
        raise KeyError
    assert torch.get_num_threads() == before


def test_the_real_clock_runs() -> None:
    import time

    table = measure_latency(
        {"long": lambda: time.sleep(0.004), "short": lambda: time.sleep(0.001)}, "long", rounds=7, warmup=1
    )
    assert 0.1 < table["short"].ratio < 0.9
