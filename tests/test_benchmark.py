"""The benchmark: its inputs, variants, records and files. Times themselves are test_latency.py's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from dsgp_lab import DynamicPruner, Lab, LabError
from dsgp_lab.cli import REGIME_NAMES, app
from dsgp_lab.cost_table import CostPoint, CostTable, Machine
from dsgp_lab.evaluate import bench_rivals as rivals_module
from dsgp_lab.evaluate import bench_variants, benchmark
from dsgp_lab.evaluate.bench import text_of_length
from dsgp_lab.evaluate.bench_executions import FOUR, HALVES, SIMILAR, bench_executions, mixed_masks
from dsgp_lab.evaluate.bench_inputs import bench_inputs
from dsgp_lab.evaluate.bench_interaction import FIRST_ORDER, SLIDER, bench_interaction, leave_one_out_map
from dsgp_lab.evaluate.bench_rivals import bench_rivals
from dsgp_lab.evaluate.bench_settled import settled_router, settled_routers
from dsgp_lab.evaluate.bench_variants import LEAN, make_variants, static_mask
from dsgp_lab.evaluate.benchmark import (
    Benchmark,
    bench_lab,
    bench_task,
    describe_machine,
    measure_steps,
    run_bench,
)
from dsgp_lab.evaluate.latency_grid import measure_grid, measure_shares
from dsgp_lab.evaluate.memory import KINDS, MemoryTable
from dsgp_lab.evaluate.results_table import Results
from dsgp_lab.evaluate.rivals import Rival, find_rival, routed_settings
from dsgp_lab.regimes import REGIMES


@pytest.fixture(autouse=True)
def no_glue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSGP_GLUE_DIR", "")


@pytest.fixture(scope="module")
def done(sst2: Lab) -> Benchmark:
    """One small benchmark."""

    def fails(task: str, regime: str) -> MemoryTable:
        raise LabError(got=f"no memory run of {task}", allowed="one", hint="none")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSGP_GLUE_DIR", "")
        patch.setattr(benchmark, "measure_memory", fails)
        return run_bench(sst2, (1, 2), (0.5,), long=16, rounds=5)


def test_inputs(sst2: Lab) -> None:
    own = bench_inputs(sst2, batch=3, count=4)
    assert (own.batch, len(own.batches), own.source) == (3, 4, "teaching set sst2")
    assert own.padded >= own.tokens
    long = bench_inputs(sst2, batch=2, count=3, tokens=100)
    assert (long.tokens, long.padded) == (100, 100)
    first, second = (each["input_ids"] for each in long.batches[:2])
    assert not torch.equal(first, second)
    assert set(first[:, -1].tolist()) == {sst2.tokenizer.sep_token_id}
    again = bench_inputs(sst2, batch=2, count=3, tokens=100)
    assert torch.equal(again.batches[2]["input_ids"], long.batches[2]["input_ids"])


def test_variants_give_what_they_stand_for(sst2: Lab) -> None:
    """Dense ones the dense logits (int8 nearly), gated and static those of their mask, dynamic its masks'."""
    inputs = bench_inputs(sst2, batch=2, count=2)
    made = make_variants(sst2, inputs, (0.5,))
    batch = inputs.batches[0]
    dense = sst2.subnetwork.dense(batch)
    torch.testing.assert_close(made.runs["transformers dense"](batch).logits, dense, atol=1e-4, rtol=0)
    mask = static_mask(sst2, 0.5)
    static = made.runs["static 0.5"](batch)
    torch.testing.assert_close(static, sst2.subnetwork(batch, mask).logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(made.runs["gated only 0.5"](batch).logits, static, atol=1e-4, rtol=0)
    given = made.runs["dynamic 0.5, masks given"](batch).logits
    torch.testing.assert_close(made.runs["dynamic 0.5"](batch), given, atol=1e-4, rtol=0)
    int8 = made.runs.get("int8 dense (torch)")
    assert int8 is None or 0 < float((int8(batch).logits - dense).abs().max()) < 3.0
    assert made.macs["dynamic 0.5"] == pytest.approx(0.5, abs=0.1)
    assert made.macs["gated only 0.5"] == made.macs[LEAN] == 1.0
    assert 0 < float((made.runs["int8 lean dense"](batch) - dense).abs().max()) < 1.0
    assert "int8 dynamic 0.5" not in made.runs  # of a batch each input would run alone
    assert any(re.match(r"int8 lean dense predicts what float32 does on [34] of 4", n) for n in made.notes)
    alone = bench_inputs(sst2, batch=1, count=2)
    single, given = make_variants(sst2, alone, (0.5,)), alone.batches[0]
    difference = single.runs["int8 dynamic 0.5"](given) - single.runs["dynamic 0.5"](given)
    assert 0 < float(difference.abs().max()) < 1.0


def test_a_model_without_a_router_says_so(toy_folder: str) -> None:
    lab = Lab.from_pretrained(toy_folder, block_size=16)
    lab.calibrate = lambda scorer: __import__("dsgp_lab").sensitivity.FirstOrder()  # type: ignore[method-assign,assignment]
    made = make_variants(lab, bench_inputs(lab, 1, 2), (0.5,))
    assert "dynamic 0.5" not in made.runs
    assert any("has no router" in note for note in made.notes)


def results(*lines: tuple[str, float, float], regime: str = "frozen") -> pd.DataFrame:
    """Rows of a results table for SST-2: method, budget, points; the dense model has 89.5."""
    found = [
        {"task": "sst2", "regime": regime, "method": method, "keep": keep, "value": value, "dense": 89.5}
        for method, keep, value in lines
    ]
    return pd.DataFrame(found)


def test_the_rival_is_the_cheapest_static_mask_as_accurate() -> None:
    rows = results(
        ("router", 0.5, 88.0), ("twin", 0.5, 86.0), ("twin", 0.7, 88.5), ("static_fisher", 0.8, 89.0),
        ("random", 0.3, 99.0), ("mismatched", 0.5, 99.0),
    )  # fmt: skip
    assert find_rival(rows, "sst2", "frozen", 0.5) == Rival("sst2", "frozen", 0.5, 88.0, "twin", 0.7, 88.5)
    assert "no router for sst2 at 0.6" in str(find_rival(rows, "sst2", "frozen", 0.6))
    assert "in regime joint" in str(find_rival(rows, "sst2", "joint", 0.5))
    rows.loc[0, "value"] = 89.2
    dense = find_rival(rows, "sst2", "frozen", 0.5)
    assert isinstance(dense, Rival)
    assert (dense.method, dense.keep, dense.value) == ("dense", 1.0, 89.5)
    rows.loc[0, "value"] = 95.0
    assert "no static mask" in str(find_rival(rows, "sst2", "frozen", 0.5))
    seeds = pd.concat([results(("router", 0.5, 88.0), ("twin", 0.5, value)) for value in (86.0, 91.0)])
    found = find_rival(seeds, "sst2", "frozen", 0.5)
    assert isinstance(found, Rival)
    assert (found.method, found.value) == ("twin", 88.5)


def test_settings_with_a_router() -> None:
    rows = pd.concat([results(("router", keep, 88.0), ("twin", keep, 88.0)) for keep in (0.35, 0.5, 0.35)])
    assert routed_settings(rows) == [("sst2", "frozen", 0.5), ("sst2", "frozen", 0.35)]


def test_routers_meet_their_rivals(sst2: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = results(("router", 0.5, 88.0), ("twin", 0.6, 88.5), ("router", 0.3, 89.2), ("router", 0.2, 99.0))
    rows = pd.concat([frozen, results(("router", 0.5, 88.0), regime="shared")])
    monkeypatch.setattr(rivals_module, "WARMUP", 5)

    def lab(task: str, regime: str) -> Lab:
        if regime != "frozen":
            raise LabError(got=f"no {regime} checkpoint", allowed="one", hint="train it")
        return sst2

    monkeypatch.setattr(rivals_module, "Lab", lab)
    said: list[str] = []
    done = bench_rivals(["sst2", "mrpc"], rounds=5, results=Results(rows, rows, ()), say=said.append)
    assert [line.split(" s, ")[1] for line in said] == [
        f"{number} of 4: sst2, frozen, {keep:g}" for number, keep in enumerate((0.5, 0.3, 0.2), 1)
    ]
    assert [(each.router_keep, each.method, each.keep) for each in done.rivals] == [
        (0.5, "twin", 0.6),
        (0.3, "dense", 1.0),
    ]
    for word in ("mrpc: the results table has no router", "sst2, frozen, 0.2: no static mask",
                 "sst2, shared: left out: no shared checkpoint"):  # fmt: skip
        assert any(note.startswith(word) for note in done.notes), word
    twin, dense = done.tables
    assert twin.baseline == "twin 0.6, frozen"
    assert twin["dynamic 0.5"].macs == pytest.approx(0.5, abs=0.1)
    assert twin[twin.baseline].macs == pytest.approx(0.6, abs=0.1)
    assert dense[dense.baseline].macs == 1.0
    assert [record["keep"] for record in twin.records()] == [0.6, 0.5]
    assert "88.5" in str(done)
    assert done._repr_html_().count("<tr>") == 3
    with pytest.raises(LabError, match="imdb"):
        bench_rivals(["imdb"], results=Results(rows, rows, ()))


def test_what_a_click_takes(sst2: Lab) -> None:
    table = bench_interaction(sst2, tokens=12, rounds=5)
    names = [row.variant for row in table.rows]
    assert names == [LEAN, SLIDER, FIRST_ORDER, leave_one_out_map(sst2)]
    assert names[-1] == "leave-one-out map, 144 units"
    assert [row.macs for row in table.rows] == [1.0, None, pytest.approx(2.0, abs=0.1), 145.0]
    assert table[names[-1]].median_ms > 5 * table[LEAN].median_ms
    assert table[names[-1]].median_ms < 30_000


def test_missing_onnx_is_said(sst2: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_variants, "find_spec", lambda name: None)
    made = make_variants(sst2, bench_inputs(sst2, 1, 2), (0.5,))
    assert any("ONNX Runtime dense is left out: onnxruntime" in note for note in made.notes)


def test_a_failing_memory_run_costs_its_table_alone(done: Benchmark) -> None:
    assert done.memory is None
    assert "Memory is left out. Got no memory run of sst2." in str(done)


@pytest.mark.parametrize("tokens", [0, 513])
def test_lengths_that_the_model_cannot_read(sst2: Lab, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "bench_half", None)  # nothing is measured
    said = f"texts of {tokens} tokens.*1 to 512"
    with pytest.raises(LabError, match=said):
        run_bench(sst2, long=tokens)
    with pytest.raises(LabError, match=said):
        text_of_length(sst2, tokens)
    with pytest.raises(LabError, match=said):
        bench_inputs(sst2, 1, 1, tokens)
    with pytest.raises(LabError, match=said):
        measure_shares(sst2, [], tokens)
    with pytest.raises(LabError, match=said):
        measure_grid(sst2, (1,), (tokens,))


def test_a_task_without_texts_is_refused_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "bench_half", None)
    with pytest.raises(LabError, match="wnli"):
        run_bench(Lab("wnli"))


def test_all_forms(done: Benchmark, sst2: Lab, tmp_path: Path) -> None:
    records = done.records()
    assert {record["baseline"] for record in records} == {LEAN}
    assert {record["batch"] for record in records} == {1, 2}
    assert {record["variant"] for record in records if record["macs"] is None} == {SLIDER}
    text, page, marked = str(done), done._repr_html_(), done.markdown()
    for shown in (text, page, marked):
        for word in ("Where the time goes", "Machine", "MACs / dense", "dynamic 0.5", "lean dense again"):
            assert word in shown
    parquet = done.save(tmp_path / "bench.parquet")
    described = json.loads(pq.read_schema(parquet).metadata[b"machine"])
    assert described == describe_machine(sst2, 1) == done.description
    assert len(pd.read_parquet(parquet)) == len(records)
    assert json.loads(done.save(tmp_path / "bench.json").read_text()) == records
    for ending in ("md", "html", "txt"):
        assert "Where the time goes" in done.save(tmp_path / f"bench.{ending}").read_text("utf-8")
    with pytest.raises(LabError, match=r"ending in '\.csv'.*parquet"):
        done.save(tmp_path / "bench.csv")


def test_steps(sst2: Lab) -> None:
    steps = measure_steps(sst2, ("router", "first_order"), keep=0.5, count=3)
    assert [row[0] for row in steps.rows] == ["router", "first_order"]
    assert all(value >= 0 for row in steps.rows for value in row[1:])
    assert 0 < steps.overhead("router") < steps.overhead("first_order")
    assert steps._repr_html_().count("<tr>") == 3
    with pytest.raises(LabError, match=r"method 'flap'.*router, first_order"):
        steps.overhead("flap")


def test_grid_and_shares(sst2: Lab) -> None:
    grid = measure_grid(sst2, (1, 2), (8, 16), rounds=5)
    assert grid.ratios.shape == grid.differs.shape == (2, 2)
    shares, rows = measure_shares(sst2, [static_mask(sst2, 0.5)], tokens=16, rounds=5)
    assert float(shares[0]) == pytest.approx(0.5, abs=0.1)
    assert rows[0].ratio > 0
    with pytest.raises(LabError, match=r"no router|no frozen"):
        measure_grid(Lab("wnli"), (1,), (8,), rounds=5)


def test_ways_to_run_a_batch(sst2: Lab) -> None:
    tables = bench_executions(sst2, batch=6, rounds=5)
    assert len(tables) == 3
    for table, share in zip(tables, (0.6, 0.6, 0.5), strict=True):
        assert [row.variant for row in table.rows] == [LEAN, "together", "union", "groups", "each", "auto"]
        assert table["each"].macs == pytest.approx(share, abs=0.1)
        assert (table.batch, table.notes[0].startswith(("No cost table", "Foretold"))) == (6, True)
    masks = {kind: mixed_masks(sst2, kind, 8) for kind in (SIMILAR, FOUR, HALVES)}
    assert {kind: len(mask.groups()) for kind, mask in masks.items()} == {SIMILAR: 8, FOUR: 4, HALVES: 8}
    static = static_mask(sst2, 0.6)
    assert 0.8 < float((masks[SIMILAR].blocks == static.blocks).float().mean()) < 1
    costs = CostTable(
        Machine.of(sst2.subnetwork), (CostPoint(1, 10, 1.0, 0.1, 0.1, 0.0),), (72, 72), seconds=1.0
    )
    sst2.subnetwork._tables[1] = costs
    try:
        assert "so auto runs" in bench_executions(sst2, batch=2, rounds=5)[0].notes[0]
    finally:
        del sst2.subnetwork._tables[1]


def test_settled_routers_are_timed_beside_the_others() -> None:
    lab = bench_lab("sst2")
    assert lab.regime == "adaptive"
    assert (bench_lab("sst2", "frozen").regime, bench_lab("wnli").regime) == ("frozen", "frozen")
    settled, notes = settled_routers(lab, (0.5,))
    assert (len(settled), notes) == (2, [])
    assert settled_router(lab, 0.5, None, 0.0) is settled[0]  # not fitted twice
    for batch in (1, 2):
        inputs = bench_inputs(lab, batch, 3)
        made = make_variants(lab, inputs, (0.5,), settled)
        for each, name in zip(
            settled, ("dynamic 0.5, settled", "dynamic 0.5, settled, heads priced"), strict=True
        ):
            logits = DynamicPruner(lab.subnetwork, each, 0.5)(inputs.batches[0]).logits
            torch.testing.assert_close(made.runs[name](inputs.batches[0]), logits, atol=1e-4, rtol=0)
            assert made.macs[name] == pytest.approx(0.5, abs=0.1)
            assert any(note.startswith(f"{name}: the router is asked in layers") for note in made.notes)
    steps = measure_steps(lab, ("router",), 0.5, count=5, settled=settled[0])
    assert [row[0] for row in steps.rows] == ["router", "settled"]
    assert steps.overhead("settled") > 0
    assert "sst2, adaptive" in str(steps)


def test_what_a_router_is_settled_on_is_not_timed(
    sst2: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed, held = ({tuple(row.tolist()) for each in bench_inputs(sst2, 1, 200, held_out=held).batches
                    for row in each["input_ids"]} for held in (False, True))  # fmt: skip
    assert len(timed) > 50 < len(held)
    assert not timed & held
    rows = [{"sentence": f"a film of number {i}", "label": i % 2, "idx": i} for i in range(30)]
    (tmp_path / "sst2").mkdir()
    (tmp_path / "sst2" / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("DSGP_GLUE_DIR", str(tmp_path))
    settled_router.cache_clear()
    table = bench_task(sst2, rounds=5, keeps=(0.5,))
    assert "dynamic 0.5, settled" not in [row.variant for row in table.rows]
    assert any("Settled routers are left out" in note for note in table.notes)


def test_rivals_are_of_every_regime() -> None:
    done = CliRunner().invoke(app, ["bench", "--rivals", "all", "--regime", "frozen"])
    assert isinstance(done.exception, LabError)
    assert "leave one of the two out" in str(done.exception)
    assert REGIME_NAMES.split(", ") == list(REGIMES)  # written out there, since an import would take seconds


def test_wrong_settings(sst2: Lab) -> None:
    with pytest.raises(LabError, match=r"batches \[0\]"):
        run_bench(sst2, (0,))
    with pytest.raises(LabError, match=r"keep=2"):
        run_bench(sst2, (1,), (2.0,))
    with pytest.raises(LabError, match="at least 5 rounds"):
        bench_task(sst2, rounds=4)


def test_memory_table() -> None:
    table = MemoryTable("sst2", dict.fromkeys(KINDS, 500.0), dict(zip(KINDS, (510, 550, 561), strict=True)))
    assert [line.split()[-1] for line in str(table).splitlines()[2:5]] == ["1.00", "1.08", "1.10"]
    assert "after loading" in str(table)
    assert "loading included" in str(MemoryTable("sst2", table.loaded, table.peaks, after_loading=False))


@pytest.mark.slow
def test_memory_of_a_pruned_run() -> None:
    """Each kind in a process of its own; a pruned run peaks near the dense one."""
    from dsgp_lab.evaluate.memory import measure_memory

    table = measure_memory("sst2")
    assert set(table.peaks) == set(KINDS)
    assert all(table.loaded[kind] <= table.peaks[kind] for kind in KINDS)
    assert 0.8 < table.peaks["pruned"] / table.peaks["lean dense"] < 1.15
    if table.after_loading:
        assert table.peaks["pruned"] < 1.25 * table.loaded["transformers dense"]
    assert "MiB" in str(table)
