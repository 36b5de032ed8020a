"""Where units live in a model: one file per family, one registry.

To add a family: write `anatomy/<family>.py` with a `Family` table (copy bert.py and change the
paths), add it to FAMILIES below, and add a subclass of `FamilySuite` in tests/test_families.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsgp_lab.anatomy.base import Anatomy, Family, Inputs, LayerParts
from dsgp_lab.anatomy.bert import BERT
from dsgp_lab.anatomy.distilbert import DISTILBERT
from dsgp_lab.anatomy.electra import ELECTRA
from dsgp_lab.anatomy.roberta import ROBERTA
from dsgp_lab.errors import LabError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["FAMILIES", "Anatomy", "Family", "Inputs", "LayerParts", "family_of", "register_family"]

FAMILIES: dict[str, Family] = {family.model_type: family for family in (BERT, ROBERTA, ELECTRA, DISTILBERT)}
"""The supported families by the `model_type` of their transformers configuration."""


def register_family(family: Family) -> None:
    """Support one more family from outside the package (the last one registered for a type holds)."""
    FAMILIES[family.model_type] = family


def family_of(model: PreTrainedModel) -> Family:
    """The family table of a model; LabError lists what is supported and how to add one."""
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    if model_type not in FAMILIES:
        supported = ", ".join(f"{family.name} ({kind})" for kind, family in sorted(FAMILIES.items()))
        raise LabError(
            got=f"a model of type {model_type or type(model).__name__!r}",
            allowed=f"sequence classifiers of these families: {supported}",
            hint="load one of these, or describe the new one in a Family table and call"
            " dsgp_lab.anatomy.register_family (recipe in dsgp_lab/anatomy/__init__.py)",
        )
    return FAMILIES[model_type]
