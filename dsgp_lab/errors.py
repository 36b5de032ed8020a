"""The one error that users of the lab meet: what came, what is allowed, what to do next."""

from __future__ import annotations

from pathlib import Path


class LabError(ValueError):
    """A mistake that the user can mend.

    >>> raise LabError(got="keep=1.5", allowed="above 0, at most 1", hint="write keep=0.6")
    Traceback (most recent call last):
    ...
    dsgp_lab.errors.LabError: Got keep=1.5. Allowed: above 0, at most 1. Next: write keep=0.6.
    """

    def __init__(self, *, got: str, allowed: str, hint: str) -> None:
        self.got, self.allowed, self.hint = got, allowed, hint
        super().__init__(f"Got {got}. Allowed: {allowed}. Next: {hint}.")


def cannot_read(
    path: Path, error: Exception, allowed: str, hint: str = "restore it with git checkout"
) -> LabError:
    """The error for a file of the project that is missing or damaged.

    >>> cannot_read(Path("a.json"), ValueError("no JSON"), allowed="the file as it was").got
    'a.json, which cannot be read (ValueError: no JSON)'
    """
    reason = f"{type(error).__name__}: {error}"
    return LabError(got=f"{path}, which cannot be read ({reason})", allowed=allowed, hint=hint)


def shown_path(path: Path | str) -> str:
    """A path as a user would write it: from the folder at hand, or as it is where it lies elsewhere.

    >>> shown_path(Path.cwd() / "runs" / "sweep"), shown_path("runs/sweep"), shown_path("/no/such/place")
    ('runs/sweep', 'runs/sweep', '/no/such/place')
    """
    path, here = Path(path), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
