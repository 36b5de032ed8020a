"""The explorer's figures, and what it says about its scorer."""

from __future__ import annotations

from dsgp_lab.edits import Unit
from dsgp_lab.exploration import Exploration
from dsgp_lab.exploration_results import Choice, Planned, Scored
from dsgp_lab.views import attention_map, neuron_bars, sensitivity_heatmap
from dsgp_lab.views.view import View


def mask_view(choice: Choice, scored: Scored, planned: Planned) -> View:
    """The scores as heat maps, with a cross on each unit that does not run."""
    scores, mask, text = planned.sensitivity, planned.mask, scored.text
    return sensitivity_heatmap(
        scores.heads[0],
        scores.blocks[0],
        mask_heads=mask.heads[0],
        mask_blocks=mask.blocks[0],
        title=text if isinstance(text, str) else " / ".join(text),
        unit=f"{choice.scorer.replace('_', ' ')} score",
        signed=bool((scores.heads < 0).any() or (scores.blocks < 0).any()),
    )


def unit_view(exploration: Exploration, choice: Choice, scored: Scored, unit: Unit) -> View:
    """What a head attends to, or a block's neurons."""
    if unit.kind == "head":
        weights = exploration.attention(choice, scored, unit)
        return attention_map(weights, scored.tokens, layer=unit.layer, head=unit.number)
    values, ids = exploration.neurons(choice, scored, unit)
    slope = "d margin / d gate"
    return neuron_bars(values, layer=unit.layer, block=unit.number, ids=ids, order="sorted", unit=slope)


def about_scorer(choice: Choice, scored: Scored, planned: Planned) -> str:
    """What the measured time holds of the scorer's own."""
    if scored.sensitivity is None:
        return "Without the router." if choice.edited else "The decisions of the router are part of it."
    return f"Scoring took {1e3 * planned.sensitivity.seconds:.0f} ms more, once, not counted here."
