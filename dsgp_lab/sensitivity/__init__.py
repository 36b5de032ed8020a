"""Scorers: one method per file, one `Scorer` base, one `Sensitivity` result.

To add a scorer: subclass `Scorer` in a file of its own (source, formula, cost and limits in the
docstring), and add it to SCORERS; tests/test_sensitivity.py then checks it like the others.
"""

from __future__ import annotations

from dsgp_lab.errors import LabError
from dsgp_lab.sensitivity.activation import ActivationNorm, Flap, WandaSp
from dsgp_lab.sensitivity.base import Scorer, Sensitivity, UnitScores, lengths
from dsgp_lab.sensitivity.first_order import FirstOrder, Fisher
from dsgp_lab.sensitivity.griffin import Griffin, ReadShares
from dsgp_lab.sensitivity.leave_one_out import LeaveOneOut
from dsgp_lab.sensitivity.probe import Probe
from dsgp_lab.sensitivity.prompt_router import PromptRouter
from dsgp_lab.sensitivity.references import Constant, Random

__all__ = [
    "SCORERS",
    "ActivationNorm",
    "Constant",
    "FirstOrder",
    "Fisher",
    "Flap",
    "Griffin",
    "LeaveOneOut",
    "Probe",
    "PromptRouter",
    "Random",
    "ReadShares",
    "Scorer",
    "Sensitivity",
    "UnitScores",
    "WandaSp",
    "lengths",
    "make_scorer",
]

SCORERS: dict[str, type[Scorer]] = {
    scorer.name: scorer
    for scorer in (FirstOrder, ActivationNorm, WandaSp, Fisher, Flap, Griffin, LeaveOneOut, Random)
}
"""Scorers that need nothing but their name; `Constant` is made with `Constant.fit`."""


def make_scorer(scorer: str | Scorer) -> Scorer:
    """A scorer by name, with its default settings; a Scorer is returned as it is. Else a LabError.

    >>> make_scorer("first_order")
    FirstOrder(target='margin', signed=False)
    """
    if isinstance(scorer, Scorer):
        return scorer
    if not isinstance(scorer, str) or scorer not in SCORERS:
        raise LabError(
            got=f"scorer={scorer!r}",
            allowed=f"{', '.join(sorted(SCORERS))}, and in a Lab also constant, router, twin",
            hint="use one of these names, or a Scorer object such as FirstOrder(target='margin')",
        )
    return SCORERS[scorer]()
