"""Panels: ipywidgets made of state, views and `observe`. What they show is computed elsewhere."""

from dsgp_lab.panels.explorer import Explorer
from dsgp_lab.panels.worker import Worker

__all__ = ["Explorer", "Worker"]
