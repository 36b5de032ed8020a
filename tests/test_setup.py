"""The files around the package: they agree with each other, and what they promise exists."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from typer.main import get_command
from typer.testing import CliRunner

from dsgp_lab.cli import app

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
README = (ROOT / "README.md").read_text("utf-8")
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")

CONDA_NAMES = {"pytorch": "torch"}
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}

# Written so that no pattern matches its own text here.
PLACES_OF_A_MACHINE = (
    r"(?<![\w.:/-])/(?:home|root|work|workspace|mnt|opt|srv|Users|tmp|private|var)/\w",
    r"[A-Z]:\\+Users",
    r"file:/[/]",
)
INDEX_ADDRESSES = (
    r"--(?:extra-)?index-url|--find[-]links|--trusted[-]host",
    r"https?://\S*(?:/[s]imple|pypi\.|[p]ythonhosted|[d]ownload\.pytorch|[a]naconda\.org|[c]onda\.anaconda)",
)
SAMPLES = "tests/test_notebooks.py"  # its samples of machine paths are what it must find


def bounds(lines: list[str]) -> dict[str, str]:
    """Requirements as {canonical name: specifier}."""
    return {canonicalize_name(r.name): str(r.specifier) for r in map(Requirement, lines)}


def constraints() -> dict[str, str]:
    """constraints.txt as {canonical name: version}; every line must be exact."""
    pins: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        if line.startswith("#"):
            continue
        match = re.fullmatch(r"([A-Za-z0-9][\w.-]*)==([0-9][0-9A-Za-z.]*)", line)
        assert match, f"not an exact, public version: {line!r}"
        name = canonicalize_name(match[1])
        assert name not in pins, f"twice: {name}"
        pins[name] = match[2]
    return pins


def tracked_files() -> list[Path]:
    """What git tracks or would track; without git, every file outside hidden and generated folders."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
        paths = [ROOT / name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        generated = re.compile(r"(^|/)(\.(?!ci/)[^/]+/|__pycache__/|[^/]+\.egg-info/|build/|runs/)")
        paths = [p for p in ROOT.rglob("*") if not generated.search(p.relative_to(ROOT).as_posix())]
    return [path for path in paths if path.is_file()]


def test_environment_yml_has_the_packages_and_bounds_of_pyproject() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    listed = environment["dependencies"]
    conda = bounds([entry for entry in listed if isinstance(entry, str)])
    (from_pip,) = [entry["pip"] for entry in listed if isinstance(entry, dict)]
    conda = {CONDA_NAMES.get(name, name): specifier for name, specifier in conda.items()}
    assert environment["channels"] == ["conda-forge"]
    assert conda.pop("pip") == ""
    assert conda.pop("python") == PROJECT["requires-python"]
    assert from_pip[-1] == "-e ."
    wanted = bounds(PROJECT["dependencies"] + EXTRAS["lab"] + EXTRAS["test"])
    assert conda | bounds(from_pip[:-1]) == wanted


def test_constraints_are_exact_and_within_pyprojects_bounds() -> None:
    pins = constraints()
    for line in PROJECT["dependencies"] + [line for extra in EXTRAS.values() for line in extra]:
        requirement = Requirement(line)
        pinned = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(Version(pinned)), f"{line}, but {pinned} in constraints.txt"
    assert canonicalize_name(PROJECT["name"]) not in pins
    assert pins["torch"] == "2.13.0"


def test_every_import_is_declared() -> None:
    used = [EXTRAS[name] for name in ("lab", "llm", "cluster", "onnx")]
    library = bounds(PROJECT["dependencies"] + [entry for extra in used for entry in extra])
    everything = library | bounds(EXTRAS["test"])
    tools = everything | bounds(EXTRAS["browser"] + EXTRAS["docs"])
    for folder, declared in (("dsgp_lab", library), ("tests", everything), ("tools", tools)):
        places = ("dsgp_lab",) if folder == "dsgp_lab" else ("tests", "tools")  # tools/soak is both
        own = {"dsgp_lab", *(path.stem for place in places for path in (ROOT / place).rglob("*.py"))}
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    modules = [node.module or ""]
                for top in {module.split(".")[0] for module in modules} - own - sys.stdlib_module_names:
                    name = canonicalize_name(DISTRIBUTIONS.get(top, top))
                    assert name in declared, f"{path.relative_to(ROOT)} imports {top}"


def test_the_readmes_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):(?!=)", MAKEFILE, re.MULTILINE))
    named = set(re.findall(r"(?:^ {4}|`)make ([a-z-]+)", README, re.MULTILINE))
    assert {"lab", "test", "demo", "bench", "quick"} <= named
    assert named <= targets
    documented = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))
    assert documented == targets, "a target without a line in make help"


def test_the_readmes_commands_exist() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    lines = re.findall(r"(?:^ {4}|`)(dsgp-lab [^`\n#]+)", README, re.MULTILINE)
    assert {"analyze", "doctor", "bench"} <= {shlex.split(line)[1] for line in lines}
    for line in lines:
        name, *arguments = shlex.split(line)[1:]
        assert name in commands, line
        if commands[name].context_settings.get("ignore_unknown_options"):
            continue  # another parser's options
        parameters = commands[name].params
        options = {option for each in parameters for option in (*each.opts, *each.secondary_opts)}
        assert {word for word in arguments if word.startswith("--")} <= options, line


@pytest.mark.slow
@pytest.mark.parametrize("name", ["doctor", "analyze", "results"])
def test_the_readmes_quick_commands_run(name: str) -> None:
    """As they stand there. The others train, sweep or measure; their options are checked above."""
    lines = re.findall(rf"^ {{4}}(dsgp-lab {name}\b[^#\n]*)", README, re.MULTILINE)
    assert lines
    done = CliRunner().invoke(app, shlex.split(lines[0])[1:], env={"HF_HUB_OFFLINE": "1"})
    assert not isinstance(done.exception, Exception), done.exception
    assert done.exit_code == 0 or name == "doctor"  # 1 where something is missing here
    assert len(done.output.splitlines()) > 5


def test_quick_names_test_files() -> None:
    (names,) = re.findall(r"^QUICK := ((?:.*\\\n)*.*)$", MAKEFILE, re.MULTILINE)
    files = names.replace("\\\n", " ").split()
    assert len(files) > 10
    for name in files:
        assert (ROOT / "tests" / f"test_{name}.py").is_file(), name


def test_the_readme_has_what_a_stranger_asks_for() -> None:
    for heading in (
        "In Python",
        "The paper's claims",
        "What it does not do",
        "Beside other tools",
        "Questions",
    ):
        assert f"\n## {heading}\n" in README
    assert len(re.findall(r"docs/[a-z_]+\.png", README)) == 3
    for name in re.findall(r"(?:\]\(|`)((?:docs|data|notebooks|tools)/[\w./-]+)", README):
        assert (ROOT / name).exists(), name
    for name in ("CITATION.cff", "CHANGELOG.md", "CONTRIBUTING.md", "docs/licences.md"):
        assert name in README
        assert (ROOT / name).is_file()


def test_the_citation_can_be_read() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_the_readmes_python_runs(tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(block.strip().splitlines()) <= 10
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", block]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Two texts under one budget" in done.stdout
    assert (tmp_path / "heatmap.html").stat().st_size > 1000


def test_the_readme_says_where_things_are() -> None:
    for name in ("DSGP_GLUE_DIR", "LICENSE", "<!-- bars -->", "nyu-mll/glue", "Apache-2.0", "CC0 1.0"):
        assert name in README, name
    (layout,) = re.findall(r"## Layout\n\n(.*?)\n\n", README, re.DOTALL)
    for line in layout.splitlines():
        folder = ROOT / "dsgp_lab" if line.startswith(" " * 6) else ROOT
        for name in re.split(" {2,}", line.strip())[0].split():
            assert (folder / name).exists(), name


def test_no_file_names_a_machine_or_an_index() -> None:
    patterns = re.compile("|".join(PLACES_OF_A_MACHINE + INDEX_ADDRESSES))
    for path in set(tracked_files()) - {ROOT / SAMPLES}:
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue  # not text
        found = patterns.search(text)
        assert found is None, f"{path.relative_to(ROOT)}: {found and found.group()}"


def test_ci_runs_the_readmes_test_command() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = script.read_text("utf-8").splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines
    assert lines[-1] == "make test"


def test_the_licence_is_there() -> None:
    text = (ROOT / "LICENSE").read_text("utf-8")
    for line in ("Apache License", "Version 2.0, January 2004", "END OF TERMS AND CONDITIONS"):
        assert line in text
    assert PROJECT["license"] == "Apache-2.0"


def script(folder: Path, name: str, body: str) -> Path:
    """A small executable, to stand in for a program."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n", "utf-8")
    path.chmod(0o755)
    return path


def bash(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script of tools/, without a display unless `environment` has one."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    return subprocess.run(
        ["bash", *arguments],
        cwd=ROOT,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("exit 1", "No Python from 3.11 to 3.14 among: {python}."),
        ("echo version", "No Python from 3.11 to 3.14 among: {python}."),
        ('PYTHONPATH="{folder}" exec {real} "$@"', "apt install python3."),
    ],
    ids=["broken", "too old", "without venv"],
)
def test_a_python_that_will_not_do_is_explained(tmp_path: Path, body: str, said: str) -> None:
    (tmp_path / "ensurepip.py").write_text("raise ImportError", "utf-8")
    python = script(tmp_path, "python", body.format(folder=tmp_path, real=shlex.quote(sys.executable)))
    done = bash(["tools/make_venv.sh", str(tmp_path / "venv"), str(python)])
    assert done.returncode != 0
    assert said.format(python=python) in done.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("user", ["0", "1000"])
@pytest.mark.parametrize("display", ["", ":0"])
def test_jupyterlab_is_told_about_root_and_display(tmp_path: Path, user: str, display: str) -> None:
    script(tmp_path, "id", f"echo {user}")
    script(tmp_path, "uname", "echo Linux")
    python = script(tmp_path, "python", 'printf "%s\\n" "$@"')
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = bash(["tools/open_lab.sh", str(python), "a.ipynb", "--port", "9000"], PATH=path, DISPLAY=display)
    assert done.returncode == 0, done.stderr
    assert ("--allow-root" in done.stdout) == (user == "0")
    assert ("--no-browser" in done.stdout) == (not display)
    assert "--ServerApp.ip=127.0.0.1" in done.stdout
    assert not re.search("token|password", done.stdout.replace("address with the token", ""), re.IGNORECASE)
    assert "--LabApp.default_url=/lab/tree/a.ipynb" in done.stdout
    assert done.stdout.splitlines()[-2:] == ["--port", "9000"]


@pytest.mark.slow
def test_the_readmes_table_of_pruned_models_is_what_the_results_say():
    command = [sys.executable, str(ROOT / "tools" / "pruned_table.py"), "--check"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("display", ["", ":0"])
def test_the_app_stays_on_this_machine_with_a_token(tmp_path: Path, display: str) -> None:
    script(tmp_path, "uname", "echo Linux")
    python = script(tmp_path, "python", 'printf "%s\\n" "$@"')
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = bash(["tools/open_app.sh", str(python), "--port", "9000"], PATH=path, DISPLAY=display)
    assert done.returncode == 0, done.stderr
    assert ("--no-browser" in done.stdout) == (not display)
    given = dict(line.split("=", 1) for line in done.stdout.splitlines() if line.startswith("--Voila."))
    assert (given["--Voila.ip"], given["--Voila.auto_token"]) == ("127.0.0.1", "True")
    policy = ast.literal_eval(given["--Voila.tornado_settings"])["headers"]["Content-Security-Policy"]
    assert policy.startswith("default-src 'self'")
    assert "http" not in policy
    assert done.stdout.splitlines()[-2:] == ["--port", "9000"]


def test_the_readmes_table_of_checkpoints_is_what_their_cards_say(tmp_path):
    command = [sys.executable, str(ROOT / "tools" / "dense_table.py"), "--check"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    altered = tmp_path / "project"
    shutil.copytree(ROOT / "tools", altered / "tools")
    shutil.copytree(ROOT / "data" / "checkpoints" / "sst2", altered / "data" / "checkpoints" / "sst2")
    shutil.copy(ROOT / "README.md", altered)
    command[1] = str(altered / "tools" / "dense_table.py")
    assert subprocess.run(command, capture_output=True).returncode == 1
    assert subprocess.run(command[:2], capture_output=True).returncode == 0
    assert subprocess.run(command, capture_output=True).returncode == 0
