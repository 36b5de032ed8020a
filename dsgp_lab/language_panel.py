"""A prompt box: generate dense and pruned side by side, live, in a notebook."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from dsgp_lab.errors import LabError

if TYPE_CHECKING:
    from dsgp_lab.language import LanguageLab


def language_panel(lab: LanguageLab, prompt: str, keep: float = 0.8, max_new_tokens: int = 32) -> Any:
    """Widgets: prompt, budget and a button; below, both continuations and what they took."""
    import ipywidgets as widgets

    text = widgets.Textarea(value=prompt, description="prompt", layout={"width": "95%"})
    budget = widgets.FloatSlider(value=keep, min=0.3, max=1.0, step=0.05, description="keep")
    button = widgets.Button(description="Generate", button_style="primary")
    output = widgets.HTML()

    def generate(_: object) -> None:
        button.disabled = True
        output.value = "<p>Scoring, cutting, generating ...</p>"
        try:
            run = lab.prune(text.value, budget.value, max_new_tokens=max_new_tokens)
            output.value = side_by_side(run)
        except LabError as error:
            output.value = f"<p>{html.escape(str(error))}</p>"
        finally:
            button.disabled = False

    button.on_click(generate)
    return widgets.VBox([text, widgets.HBox([budget, button]), output])


def side_by_side(run: Any) -> str:
    """Both continuations of a PrunedGeneration as an HTML table, every text escaped."""
    cells = "".join(
        f'<td style="text-align:left;vertical-align:top;width:50%"><b>{name}</b>, {rate:.0f} tokens/s<br>'
        f'<span style="white-space:pre-wrap">{html.escape(made.text)}</span></td>'
        for name, made, rate in (
            ("dense", run.dense, run.dense.rate),
            (f"pruned to {run.macs.kept / run.macs.dense:.2f} of the MACs", run.pruned, run.pruned.rate),
        )
    )
    note = f"Agreement on the dense tokens: {run.agreement:.2f}."
    return f'<table style="width:95%"><tr>{cells}</tr></table><p>{note}</p>'
