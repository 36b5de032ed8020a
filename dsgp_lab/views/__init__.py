"""Figures: plain numbers in, a View out. Nothing here runs a model."""

from dsgp_lab.views.attention import attention_map
from dsgp_lab.views.heatmap import sensitivity_grid, sensitivity_heatmap
from dsgp_lab.views.neurons import neuron_bars
from dsgp_lab.views.prediction import cost_bars, prediction_bars, timing_bars
from dsgp_lab.views.ranking import estimate_scatter, headroom_bars, rank_correlation_bars
from dsgp_lab.views.style import escape_label
from dsgp_lab.views.view import View, show

__all__ = [
    "View",
    "attention_map",
    "cost_bars",
    "escape_label",
    "estimate_scatter",
    "headroom_bars",
    "neuron_bars",
    "prediction_bars",
    "rank_correlation_bars",
    "sensitivity_grid",
    "sensitivity_heatmap",
    "show",
    "timing_bars",
]
