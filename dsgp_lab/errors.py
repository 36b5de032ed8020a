"""The one error that users of the lab meet: what came, what is allowed, what to do next."""

from __future__ import annotations


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
