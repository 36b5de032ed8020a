"""What is installed and found, what is missing, and how to get it. Nothing is downloaded or changed."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from dsgp_lab.diagnosis import Check, Diagnosis, Status
from dsgp_lab.errors import LabError

PROJECT = "dsgp_lab"
EXTRAS = {
    "lab": "the notebooks in JupyterLab",
    "test": "the tests",
    "llm": "language models from GGUF files",
    "cluster": "sweeps on a Dask cluster",
}
NAMED = ("torch", "transformers", "datasets", "peft", "numpy", "jupyterlab", "anywidget", "gguf", "pytest")


def diagnose() -> Diagnosis:
    """Check Python, packages, threads, GPU, base encoder, checkpoints, teaching sets, data files, and GLUE.

    Cost: a second or two, most of it importing torch; up to five more if the hub does not answer.
    """
    return Diagnosis(
        (
            _python(),
            *_packages(),
            _threads(),
            _gpu(),
            _found("base encoder", _base),
            _found("language model", _language_model),
            _found("checkpoints", _checkpoints),
            _found("teaching sets", _teaching),
            _found("files of data/", _data_files),
            _found("GLUE", _glue),
        )
    )


def grouped(lines: Iterable[str]) -> dict[str, list[Requirement]]:
    """Requirements of a package's metadata by extra; those that it always needs under "".

    >>> grouped(["numpy>=2", 'pytest>=8; extra == "test"', "tomli; python_version < '3'"])["test"]
    [<Requirement('pytest>=8; extra == "test"')>]
    """
    groups: dict[str, list[Requirement]] = {"": [], **{extra: [] for extra in EXTRAS}}
    for requirement in map(Requirement, lines):
        for extra in groups:
            holds = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
            if holds and (not extra or "extra" in str(requirement.marker)):
                groups[extra].append(requirement)
    return groups


def problem(requirement: Requirement, version: str | None) -> str:
    """What is wrong with an installed version (None: not installed); empty if nothing is.

    >>> problem(Requirement("torch>=2.6"), "2.13.0+cpu")
    ''
    >>> problem(Requirement("torch>=2.6"), "2.5.1")
    'torch 2.5.1, needed >=2.6'
    """
    if version is None:
        return f"{requirement.name} is not installed"
    if requirement.specifier.contains(version, prereleases=True):
        return ""
    return f"{requirement.name} {version}, needed {requirement.specifier}"


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _python() -> Check:
    version = platform.python_version()
    try:
        needed = metadata.metadata(PROJECT)["Requires-Python"]
    except metadata.PackageNotFoundError:
        hint = "run make lab, or pip install -e '.[lab]' -c constraints.txt"
        return Check("Python", "missing", f"{version}; the package {PROJECT} is not installed", hint)
    if not SpecifierSet(needed).contains(version, prereleases=True):
        return Check("Python", "missing", f"{version}, needed {needed}", "install a newer Python")
    return Check("Python", "ok", f"{version} on {platform.system()} {platform.machine()}")


def _packages() -> list[Check]:
    try:
        return [_group(*group) for group in grouped(metadata.requires(PROJECT) or ()).items()]
    except metadata.PackageNotFoundError:
        return []  # the check of Python says so


def _group(extra: str, requirements: list[Requirement]) -> Check:
    name = f"packages for [{extra}]" if extra else "packages"
    versions = {requirement.name: _installed(requirement.name) for requirement in requirements}
    problems = [found for r in requirements if (found := problem(r, versions[r.name]))]
    if problems:
        of = f".[{extra}]" if extra else "."
        hint = f"pip install -e '{of}' -c constraints.txt" + (f" (only for {EXTRAS[extra]})" if extra else "")
        return Check(name, "warn" if extra else "missing", "; ".join(problems), hint)
    shown = ", ".join(f"{key} {versions[key]}" for key in versions if key in NAMED or len(versions) == 1)
    return Check(name, "ok", f"{len(versions)} within bounds: {shown}")


def _threads() -> Check:
    try:
        import torch
    except ImportError as error:
        return Check("threads", "missing", f"torch does not load: {error}", "run make clean, then make lab")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    used = torch.get_num_threads()
    detail = f"torch uses {used}, this process may use {cores} of {os.cpu_count()} CPUs"
    if used > cores:
        return Check("threads", "warn", detail, f"set OMP_NUM_THREADS={cores} before measuring times")
    return Check("threads", "ok", detail)


def _gpu() -> Check:
    try:
        import torch
    except ImportError:
        return Check("GPU", "warn", "unknown without torch")
    if torch.cuda.is_available():
        return Check("GPU", "ok", torch.cuda.get_device_name(0))
    return Check("GPU", "ok", "no CUDA device; the lab runs on the CPU")


def _found(name: str, look: Callable[[], tuple[Status, str, str]]) -> Check:
    """A check made by `look`; a LabError or a package that does not load becomes its finding."""
    try:
        return Check(name, *look())
    except LabError as error:
        return Check(name, "missing", error.got, error.hint)
    except ImportError as error:
        return Check(name, "missing", f"unknown: {error}", "install the packages first")


def _base() -> tuple[Status, str, str]:
    from dsgp_lab.models import BASE_NAME, base_folder

    with _cache_only():
        folder = base_folder()
    return "ok", f"{BASE_NAME}, SHA-256 as expected, in {folder}", ""


def _language_model() -> tuple[Status, str, str]:
    from dsgp_lab.language_models import INSTALL, LANGUAGE_MODEL, has_language_model, language_file

    path = language_file()
    if path is None or not has_language_model():
        return "warn", "not installed; only notebook 08 and language models need it", INSTALL
    return "ok", f"{LANGUAGE_MODEL}, SHA-256 as expected, in {path.parent}", ""


def _checkpoints() -> tuple[Status, str, str]:
    from dsgp_lab.models import CARD
    from dsgp_lab.tasks import data_folder

    home = data_folder() / "checkpoints"
    names = sorted(path.parent.name for path in home.glob(f"*/{CARD}"))
    damaged = [f"{name}: {problem}" for name in names for problem in _damage(home / name)]
    if damaged:
        return "missing", "; ".join(damaged), f"fetch them again, for example with git checkout -- {home}"
    if not names:
        return "missing", f"none in {home}", "fetch the whole repository, or run dsgp-lab train sst2"
    return "ok", f"{', '.join(names)}, hashes as their cards say", ""


def _damage(folder: Path) -> list[str]:
    """Files of a checkpoint that are absent or differ from its card."""
    from dsgp_lab.models import CARD, sha256

    try:
        card = json.loads((folder / CARD).read_text("utf-8"))
        expected = {folder / name: entry["sha256"] for name, entry in card["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{CARD} cannot be read ({type(error).__name__})"]
    return [
        f"{path.name} {'altered' if path.is_file() else 'absent'}"
        for path, digest in expected.items()
        if not path.is_file() or sha256(path) != digest
    ]


def _teaching() -> tuple[Status, str, str]:
    from dsgp_lab.tasks import data_folder, load_teaching

    names = sorted(path.stem for path in (data_folder() / "teaching").glob("*.jsonl"))
    if not names:
        return "missing", f"none in {data_folder() / 'teaching'}", "fetch the whole repository"
    return "ok", ", ".join(f"{name} ({len(load_teaching(name))})" for name in names), ""


def _data_files() -> tuple[Status, str, str]:
    from dsgp_lab.checksums import NAME, differing, read_sums
    from dsgp_lab.tasks import data_folder

    folder = data_folder()
    if not (folder / NAME).is_file():
        return "warn", f"no {NAME} in {folder}", "make checksums writes one"
    names = differing(folder)
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        hint = f"git checkout -- {folder} brings them back; if the change was meant: make checksums"
        return "warn", f"not as {NAME} says: {', '.join(names[:5])}{more}", hint
    return "ok", f"{len(read_sums(folder))} files as {NAME} says", ""


def _glue() -> tuple[Status, str, str]:
    from dsgp_lab.hub import hub_access
    from dsgp_lab.tasks import GLUE_FOLDER_VARIABLE, TASKS

    advice = f"not needed for the course; set {GLUE_FOLDER_VARIABLE} to a folder with GLUE (see README)"
    named = os.environ.get(GLUE_FOLDER_VARIABLE)
    if not named:
        with hub_access() as answers:
            if answers:
                return (
                    "ok",
                    f"from the Hugging Face hub, which answers; {GLUE_FOLDER_VARIABLE} is not set",
                    "",
                )
        return "warn", f"{GLUE_FOLDER_VARIABLE} is not set, and the hub does not answer or is off", advice
    folder = Path(named)
    if not folder.is_dir():
        return "warn", f"{GLUE_FOLDER_VARIABLE}={named} is no folder", advice
    absent = [
        f"{task.name}/{split}"
        for task in TASKS.values()
        for split in task.splits
        if not any((folder / task.name / f"{split}.{ending}").is_file() for ending in ("jsonl", "jsonl.gz"))
    ]
    if absent:
        return "warn", f"{named} lacks {', '.join(absent)}", advice
    return "ok", f"all {len(TASKS)} tasks in {named}", ""


@contextmanager
def _cache_only() -> Iterator[None]:
    """Within this block the hub's libraries use their cache alone."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    try:
        constants.HF_HUB_OFFLINE = True
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
