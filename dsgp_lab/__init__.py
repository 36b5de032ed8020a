"""DSGP Lab: dynamic structured pruning of transformers, per input, measured for real.

Names are loaded when first used, so that `import dsgp_lab` takes no time before torch is needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsgp_lab.anatomy import Anatomy
    from dsgp_lab.attention import attention_weights
    from dsgp_lab.cost import CostModel
    from dsgp_lab.errors import LabError
    from dsgp_lab.gates import captured, gated
    from dsgp_lab.lab import Lab
    from dsgp_lab.language import LanguageLab
    from dsgp_lab.mask import Mask
    from dsgp_lab.plan import plan_mask
    from dsgp_lab.pruner import DynamicPruner
    from dsgp_lab.results import PrunedRun
    from dsgp_lab.router import Router
    from dsgp_lab.sensitivity import Sensitivity, make_scorer
    from dsgp_lab.subnetwork import SubNetwork
    from dsgp_lab.tasks import load_examples, load_teaching
    from dsgp_lab.views import show

_HOME = {
    "Anatomy": "anatomy",
    "CostModel": "cost",
    "DynamicPruner": "pruner",
    "Lab": "lab",
    "LabError": "errors",
    "LanguageLab": "language",
    "Mask": "mask",
    "PrunedRun": "results",
    "Router": "router",
    "Sensitivity": "sensitivity",
    "SubNetwork": "subnetwork",
    "attention_weights": "attention",
    "captured": "gates",
    "gated": "gates",
    "load_examples": "tasks",
    "load_teaching": "tasks",
    "make_scorer": "sensitivity",
    "plan_mask": "plan",
    "show": "views",
}

__all__ = [
    "Anatomy",
    "CostModel",
    "DynamicPruner",
    "Lab",
    "LabError",
    "LanguageLab",
    "Mask",
    "PrunedRun",
    "Router",
    "Sensitivity",
    "SubNetwork",
    "attention_weights",
    "captured",
    "gated",
    "load_examples",
    "load_teaching",
    "make_scorer",
    "plan_mask",
    "show",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dsgp_lab' has no attribute {name!r}; it has {', '.join(__all__)}")
    try:
        return getattr(import_module(f"dsgp_lab.{_HOME[name]}"), name)
    except ImportError as error:
        error.add_note("A package is missing or does not fit: dsgp-lab doctor names it and says what to do.")
        raise


def __dir__() -> list[str]:
    return __all__
