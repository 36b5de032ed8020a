"""Where units live in a model: one file per family, one registry.

To add a family: write `anatomy/<family>.py` with a `Family` table (copy bert.py and change the
paths; for a language model a `DecoderFamily`, see llama.py), add it to FAMILIES below, and add a subclass of
`FamilySuite` in tests/test_families.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsgp_lab.anatomy.base import Anatomy, Family, Inputs, LayerParts, matrix
from dsgp_lab.anatomy.bert import BERT
from dsgp_lab.anatomy.decoder import DecoderFamily, DecoderParts
from dsgp_lab.anatomy.distilbert import DISTILBERT
from dsgp_lab.anatomy.electra import ELECTRA
from dsgp_lab.anatomy.gemma import GEMMA
from dsgp_lab.anatomy.gpt2 import GPT2
from dsgp_lab.anatomy.llama import LLAMA
from dsgp_lab.anatomy.mistral import MISTRAL
from dsgp_lab.anatomy.qwen2 import QWEN2
from dsgp_lab.anatomy.qwen3 import QWEN3
from dsgp_lab.anatomy.roberta import ROBERTA
from dsgp_lab.errors import LabError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "FAMILIES",
    "Anatomy",
    "DecoderFamily",
    "DecoderParts",
    "Family",
    "Inputs",
    "LayerParts",
    "family_of",
    "matrix",
    "register_family",
]

ENCODERS = (BERT, ROBERTA, ELECTRA, DISTILBERT)
DECODERS = (LLAMA, GPT2, MISTRAL, QWEN2, QWEN3, GEMMA)
FAMILIES: dict[str, Family] = {family.model_type: family for family in (*ENCODERS, *DECODERS)}
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
            allowed=f"models of these families: {supported}",
            hint="load one of these, or describe the new one in a Family table and call"
            " dsgp_lab.anatomy.register_family (recipe in dsgp_lab/anatomy/__init__.py)",
        )
    return FAMILIES[model_type]
