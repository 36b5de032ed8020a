"""The public face of the package: few names, loaded when used, quick to import."""

from __future__ import annotations

import subprocess
import sys

import pytest

import dsgp_lab


def test_every_public_name_is_there() -> None:
    for name in dsgp_lab.__all__:
        assert getattr(dsgp_lab, name).__name__ == name
    assert dsgp_lab.__all__ == sorted(dsgp_lab.__all__) == dir(dsgp_lab)
    assert len(dsgp_lab.__all__) < 25  # they fit on one screen


def test_public_names_say_what_they_are() -> None:
    for name in dsgp_lab.__all__:
        assert (getattr(dsgp_lab, name).__doc__ or "").strip(), name


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Labb'; it has Anatomy, .*Lab, "):
        dsgp_lab.Labb  # noqa: B018


def test_a_package_that_does_not_load_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dsgp_lab.pruner", None)
    with pytest.raises(ImportError) as raised:
        dsgp_lab.DynamicPruner  # noqa: B018
    assert "dsgp-lab doctor" in raised.value.__notes__[0]


def test_import_is_quick_and_loads_no_torch() -> None:
    """Timed in a fresh interpreter, best of three: the machine may be busy."""
    code = (
        "import sys, time; start = time.perf_counter(); import dsgp_lab; from dsgp_lab import LabError;"
        "print(time.perf_counter() - start, *{'torch', 'transformers', 'plotly'} & set(sys.modules))"
    )
    seconds = []
    for _ in range(3):
        made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        taken, *heavy = made.stdout.split()
        assert heavy == []
        seconds.append(float(taken))
    assert min(seconds) < 0.5
