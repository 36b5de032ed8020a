"""The command line, as a user calls it: outputs, exit codes, one sentence for every mistake."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import pytest

from dsgp_lab import Lab, cli
from dsgp_lab.evaluate.bench_rivals import RivalTable


class Outcome(NamedTuple):
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


Call = Callable[..., Outcome]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run `dsgp-lab ARGUMENTS` in this process."""

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["dsgp-lab", *arguments])
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), out, err)

    return run


def refused(outcome: Outcome, pattern: str) -> None:
    """Exit code 2, one line on standard error, nothing else."""
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert re.match(r"Got .*\. Allowed: .*\. Next: .*\.\n$", outcome.err)
    assert re.search(pattern, outcome.err)
    assert "Traceback" not in outcome.err


def test_analyze(call: Call, sst2: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsgp_lab.lab.Lab", lambda task, regime=None: sst2)  # loaded already
    outcome = call("analyze", "a warm, funny film", "--keep", "0.5")
    assert (outcome.code, outcome.err) == (0, "")
    lines = {re.split(r" {2,}", line)[0]: line for line in outcome.out.splitlines()}
    assert lines["text"].endswith("a warm, funny film")
    assert "positive" in lines["dense prediction"]
    assert "positive" in lines["pruned prediction"]
    assert "budget 0.5" in lines["encoder MACs that ran"]
    run = sst2.prune("a warm, funny film", keep=0.5)
    rows = [line.split("│")[1:4] for line in outcome.out.splitlines() if line.startswith("│")]
    assert [row[0].strip() for row in rows] == ["5", "4", "3", "2", "1", "0"]
    for layer, heads, blocks in rows:
        for shown, kept in ((heads, run.mask.heads), (blocks, run.mask.blocks)):
            pruned = [character == "·" for character in shown.strip()]
            assert pruned == (~kept[0, int(layer)]).tolist()


def test_analyze_a_model_of_ones_own(call: Call, toy_folder: str) -> None:
    outcome = call("analyze", "a warm film", "--model", toy_folder, "--scorer", "leave_one_out")
    assert outcome.code == 0
    assert "leave_one_out" in outcome.out
    assert "class " in outcome.out
    pair = call("analyze", "a warm film", "a dull film", "--model", toy_folder)
    assert pair.code == 0
    assert "a warm film / a dull film" in pair.out


def test_markup_in_a_text_is_only_text(call: Call, toy_folder: str) -> None:
    """Neither the terminal's own markup nor escape sequences of it act."""
    outcome = call("analyze", "[bold]film[/bold] [/oops] :smile:", "--model", toy_folder)
    assert outcome.code == 0
    assert "[bold]film[/bold] [/oops] :smile:" in outcome.out


@pytest.mark.parametrize("keep", ["0", "1.5", "nan", "-1", "inf"])
def test_analyze_with_a_wrong_budget(call: Call, toy_folder: str, keep: str) -> None:
    outcome = call("analyze", "a film", "--model", toy_folder, f"--keep={keep}")
    refused(outcome, rf"^Got keep={float(keep)}\. Allowed: a number above 0 and at most 1")


def test_analyze_with_a_budget_that_is_no_number(call: Call) -> None:
    outcome = call("analyze", "a film", "--keep", "half")
    assert outcome.code == 2
    assert "Invalid value for '--keep'" in outcome.err
    assert "Traceback" not in outcome.err


def test_analyze_with_an_unknown_scorer(call: Call, toy_folder: str) -> None:
    outcome = call("analyze", "a film", "--model", toy_folder, "--scorer", "michel")
    refused(outcome, r"Got scorer='michel'\. Allowed: activation_norm, .*first_order")


def test_analyze_a_pair_where_a_text_is_due(call: Call, sst2: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsgp_lab.lab.Lab", lambda task, regime=None: sst2)
    refused(
        call("analyze", "a warm film", "a dull film"), r"a pair for 'sst2'\. Allowed: one text \(sentence\)"
    )


def test_analyze_nothing(call: Call, toy_folder: str) -> None:
    refused(call("analyze", " ", "--model", toy_folder), "Got an empty text")
    assert call("analyze").code == 2


def test_analyze_with_an_unknown_task_or_model(call: Call, tmp_path: Path) -> None:
    refused(call("analyze", "a film", "--task", "imdb"), r"Got task 'imdb'\. Allowed: cola, sst2")
    refused(call("analyze", "a film", "--model", str(tmp_path / "none")), "which does not exist")
    refused(call("analyze", "a film", "--model", str(tmp_path)), r"without config\.json")


def test_bench(call: Call, sst2: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("dsgp_lab.lab.Lab", lambda task, regime=None: sst2)
    monkeypatch.setenv("DSGP_GLUE_DIR", "")
    out = tmp_path / "bench.parquet"
    options = ("--rounds=5", "--batches=1,3", "--keeps=0.5", "--long=40", "--no-memory", f"--out={out}")
    outcome = call("bench", *options)
    assert outcome.code == 0
    titles = [line for line in outcome.out.splitlines() if line.startswith("Latency")]
    assert titles[:2] == [f"Latency, sst2, {tokens} tokens, batch 1, float32" for tokens in (25, 40)]
    assert all("teaching set sst2" in title for title in titles[2:-1])
    assert "batch 3" in titles[3]
    assert "what a click takes" in titles[-1]
    for variant, count in {
        "lean dense": 9,
        "union": 3,
        "half, a new mask": 2,
        "dynamic 0.5": 3,
        "static 0.5": 3,
    }.items():
        rows = re.findall(rf"^{variant}  +([\d.]+)  +([\d.]+)  ", outcome.out, re.MULTILINE)
        assert len(rows) == count, variant
        assert all(float(milliseconds) > 0 and float(ratio) > 0 for milliseconds, ratio in rows)
    assert "Where the time goes, sst2" in outcome.out
    assert out.is_file()
    progress = [line.split(": ", 1) for line in outcome.err.splitlines() if re.match(r"\d+ s: ", line)]
    assert [what for _, what in progress][1::7] == ["half of the units, 40 tokens", "done"]


def test_bench_of_rivals(call: Call, sst2: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def rivals(tasks: object, rounds: int, num_threads: int, say: Callable[[str], None]) -> RivalTable:
        say(f"{tasks} {rounds} {num_threads}")
        return RivalTable((), ())

    monkeypatch.setattr("dsgp_lab.lab.Lab", lambda task, regime=None: sst2)
    monkeypatch.setattr("dsgp_lab.evaluate.benchmark.bench_rivals", rivals)
    outcome = call("bench", "--rivals=mrpc,rte", "--threads=2")
    assert "['mrpc', 'rte'] 40 2" in outcome.err
    assert "Router against a static mask as accurate" in outcome.out
    assert "Latency" not in outcome.out
    assert "None 5 1" in call("bench", "--rivals=all", "--rounds=5").err


def test_bench_as_json(call: Call, sst2: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    from dsgp_lab.evaluate.latency import RECORD_KEYS

    monkeypatch.setattr("dsgp_lab.lab.Lab", lambda task, regime=None: sst2)
    monkeypatch.setenv("DSGP_GLUE_DIR", "")
    options = (
        "--rounds=5",
        "--batches=1",
        "--keeps=0.5",
        "--long=16",
        "--no-memory",
        "--rivals=none",
        "--json",
    )
    outcome = call("bench", *options)
    records = json.loads(outcome.out)
    assert all(set(RECORD_KEYS) <= set(record) for record in records)
    dynamic = [record for record in records if record["variant"] == "dynamic 0.5"]
    assert [(r["task"], r["threads"], r["batch"], r["keep"]) for r in dynamic] == [("sst2", 1, 1, 0.5)] * 2
    assert dynamic[1]["tokens"] == 16
    assert all(r["aa_low"] <= r["aa_high"] and r["ci_low"] <= r["ratio"] <= r["ci_high"] for r in records)


def test_workers_elsewhere_get_whole_paths(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the checkpoints and of the results: a worker may have been started in another folder."""
    given: list[Path] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dsgp_lab.evaluate.cluster.cluster", lambda scheduler: nullcontext())
    monkeypatch.setattr(
        "dsgp_lab.evaluate.sweep_plan.plan_cells", lambda *_, root, **__: given.append(root) or []
    )
    monkeypatch.setattr("dsgp_lab.evaluate.sweep.sweep", lambda cells, out, executor: given.append(out))
    call("sweep", "--root", "made", "--out", "cells", "--scheduler", "tcp://somewhere:1")
    call("sweep", "--root", "made", "--out", "cells")
    assert given == [tmp_path / "made", tmp_path / "cells", Path("made"), Path("cells")]


def test_calibrate(call: Call, toy_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    refused(
        call("analyze", "a warm film", "--model", toy_folder, "--at-most", "0.6 of dense"), "no cost table"
    )
    outcome = call("calibrate", "--model", toy_folder, "--seconds", "1")
    assert outcome.code == 0
    assert "Cost table of this machine" in outcome.out
    assert "Written to" in outcome.err
    found = call("analyze", "a warm film", "--model", toy_folder, "--at-most", "0.9 of dense")
    assert found.code == 0
    assert "budget at most 0.9 of dense" in found.out
    assert re.search(r"time of the cut model .* predicted [\d.]+ ms", found.out)
    refused(
        call("analyze", "a warm film", "--model", toy_folder, "--at-most", "fast"), "latency budget of 'fast'"
    )


def test_bench_texts_and_masks(sst2: Lab) -> None:
    from dsgp_lab.evaluate.bench import half_masks, text_of_length

    for tokens in (25, 128):
        inputs = text_of_length(sst2, tokens)
        assert inputs["input_ids"].shape == (1, tokens)
        assert inputs["attention_mask"].all()
        ends = inputs["input_ids"][0, [0, -1]].tolist()
        assert ends == [sst2.tokenizer.cls_token_id, sst2.tokenizer.sep_token_id]
    masks, again = half_masks(sst2, seed=0), half_masks(sst2, seed=0)
    drawn = [next(masks) for _ in range(5)]
    for mask in drawn:
        assert (int(mask.heads.sum()), int(mask.blocks.sum())) == (36, 36)
        assert next(again).overlap(mask).tolist() == [1.0]
    assert drawn[0].overlap(drawn[1]).tolist() != [1.0]


@pytest.mark.parametrize("option", ["--rounds=4", "--threads=0", "--rounds=x"])
def test_bench_with_wrong_options(
    call: Call, sst2: Lab, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setattr("dsgp_lab.lab.Lab", lambda task, regime=None: sst2)
    outcome = call("bench", option)
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    assert ("at least 5 rounds" if "4" in option else option.split("=")[0]) in outcome.err


def test_doctor(call: Call) -> None:
    """Exit code 0 where nothing that the lab needs is missing, else 1; both name what was found."""
    outcome = call("doctor")
    needed = re.findall(r"^missing +(.*)$", outcome.out, re.MULTILINE)
    assert outcome.code == (1 if needed else 0), needed
    for name in ("Python", "threads", "GPU", "base encoder", "checkpoints", "teaching sets", "GLUE"):
        assert re.search(rf"^(ok|warn|missing) +{name} ", outcome.out, re.MULTILINE), name
    assert re.search(r"^ok +checkpoints .*\bsst2\b", outcome.out, re.MULTILINE)


def test_doctor_finds_what_is_missing(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSGP_DATA_DIR", str(tmp_path))
    outcome = call("doctor")
    assert outcome.code == 1
    assert re.search(r"^missing +checkpoints ", outcome.out, re.MULTILINE)


@pytest.mark.parametrize(
    "command",
    [
        [],
        *([name] for name in ("analyze", "bench", "calibrate", "evaluate", "train", "train-router")),
        *([name] for name in ("order", "sweep", "results", "doctor")),
    ],
)
def test_help(call: Call, command: list[str]) -> None:
    outcome = call(*command, "--help")
    assert outcome.code == 0
    assert "usage:" in outcome.out.lower()
    assert "...\n" not in outcome.out.partition("\n")[2]  # nothing is cut short
    options = {
        "analyze": ["--keep", "--scorer", "--model"],
        "bench": ["--rounds", "--threads", "--batches", "--keeps", "--rivals", "--json", "--out"],
        "calibrate": ["--threads", "--seconds", "--out"],
        "train": ["--epochs", "--learning-rate", "--out"],
        "train-router": ["--regime", "--kind", "--adaptive", "--out"],
        "order": ["--write"],
        "evaluate": ["--file", "--keep", "--method", "--json"],
        "sweep": ["--tasks", "--methods", "--keeps", "--limit", "--workers"],
        "results": ["--json", "--from", "--write"],
    }
    for option in options.get("".join(command), []):
        assert option in outcome.out
    if not command:
        assert "train TASK [options]" in outcome.out
        assert all(name in outcome.out for name in ("analyze", "bench", "train", "order", "doctor"))


def test_train_with_wrong_arguments(call: Call) -> None:
    refused(call("train", "imdb"), "Got task 'imdb'")
    assert call("train").code == 2
    assert call("train", "sst2", "--no-such-option").code == 2
    assert call("no-such-command").code == 2


def test_no_arguments_show_the_help(call: Call) -> None:
    outcome = call()
    assert "analyze" in outcome.out + outcome.err


@pytest.mark.slow
def test_in_a_process_of_its_own(toy_folder: str) -> None:
    """Nothing on standard error, no progress bar, no warning; output in UTF-8."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "dsgp_lab.cli", "analyze", "a warm film 😀", "--model", toy_folder]
    made = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment)
    assert (made.returncode, made.stderr) == (0, "")
    assert "a warm film 😀" in made.stdout


def test_a_package_that_does_not_load_is_a_sentence(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dsgp_lab.doctor", None)  # any import that fails
    refused(call("doctor"), "a package that does not load .*dsgp_lab.doctor.*run dsgp-lab doctor")
