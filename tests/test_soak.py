"""The soak's checks, small: what `make soak` does with thousands is done here with a few."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dsgp_lab import Lab, gated
from dsgp_lab.checksums import differing, read_sums
from dsgp_lab.tasks import data_folder

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools" / "soak"))

import bad_input  # noqa: E402
import damage  # noqa: E402
import disks  # noqa: E402
import hostile  # noqa: E402
import masks  # noqa: E402
import sharing  # noqa: E402
import sliders  # noqa: E402
import sweeps  # noqa: E402
from figures import Figure, rows_of, with_rows  # noqa: E402


def holds(figure: Figure) -> None:
    """The bar is met."""
    assert figure.met, f"{figure.check}: {figure.found}"


def test_a_check_replaces_its_own_row_only() -> None:
    old = Figure("a", "1 | 2", "0", True).row("one", 1.0, "here")
    page = with_rows("", {"one": old}, ["one", "two"]) + "\n## Below\n\ntext\n"
    new = with_rows(page, {"two": Figure("b", "none", "0", False).row("two", 2.0, "here")}, ["two", "one"])
    assert list(rows_of(new)) == ["two", "one"]
    assert rows_of(new)["one"] == old
    assert new.endswith("\n## Below\n\ntext\n")
    assert "| **no** |" in new


def test_the_page_meets_every_bar() -> None:
    """What is committed: every check there, and none that missed its bar."""
    page = (ROOT / "docs" / "soak.md").read_text("utf-8")
    names = re.findall(r'^        "([a-z-]+)": ', (ROOT / "tools/soak/__main__.py").read_text("utf-8"), re.M)
    assert list(rows_of(page)) == names
    assert "**no**" not in page


def test_random_masks() -> None:
    holds(masks.random_masks(len(masks.FAMILIES) * masks.BATCH))


def test_a_wrong_mask_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "gated", lambda anatomy, mask: gated(anatomy, ~mask))
    monkeypatch.setattr(masks, "FAMILIES", ("bert",))
    assert masks.random_masks(masks.BATCH).met is False


def test_sweeps_that_are_killed() -> None:
    holds(sweeps.killed_sweep(kills=3, cells=10))


def test_two_processes_share_a_folder() -> None:
    holds(sweeps.two_processes(8))


@pytest.mark.parametrize("check", [disks.full_disk_sweep, disks.full_disk_training])
def test_a_full_disk(check: object) -> None:
    figure = check()  # type: ignore[operator]
    if figure.met is None:
        pytest.skip(figure.found)
    holds(figure)


def test_four_threads_share_a_model(toy_lab: Lab) -> None:
    holds(sharing.one_model(toy_lab, rounds=4))


def test_a_changed_byte_is_noticed() -> None:
    holds(damage.damaged_bytes(only="[rt]*/**/*"))


def test_the_data_are_as_their_sums_say() -> None:
    """Files of one's own may stand beside the shipped ones; those must be listed and unchanged."""
    names = [name for name in differing(data_folder()) if not name.endswith(" not listed")]
    assert names == [], "after a change that was meant: make checksums"
    if shutil.which("git") and (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "data"]
        tracked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        listed = {path.relative_to(ROOT).as_posix() for path in read_sums(ROOT / "data")}
        assert {*tracked.split("\0")} - {"", "data/SHA256SUMS"} == listed, "make checksums"


def test_bad_input_in_python(toy_lab: Lab) -> None:
    holds(bad_input.python(toy_lab))


def test_bad_files() -> None:
    holds(bad_input.files())


@pytest.mark.slow
def test_bad_commands(toy_folder: str) -> None:
    holds(bad_input.command_line(toy_folder))


@pytest.mark.slow
def test_bad_input_in_panels(toy_lab: Lab) -> None:
    holds(bad_input.panel(toy_lab))


@pytest.mark.slow
def test_hostile_text_is_never_markup() -> None:
    holds(hostile.as_strings())


def test_active_parts_are_seen() -> None:
    assert hostile.active(f"<p>{hostile.HOSTILE}</p>") != hostile.active("<p>film</p>")


@pytest.mark.slow
def test_slider_moves_leave_no_thread(toy_lab: Lab) -> None:
    found = sliders.slider_moves(toy_lab, moves=20, pause=0.0).found
    assert "0 threads left, last mask right" in found
