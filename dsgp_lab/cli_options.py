"""Options that several commands of `dsgp-lab` share, declared once."""

from __future__ import annotations

from typing import Annotated

import typer

Task = Annotated[str, typer.Option(help="The embedded model of this task.")]
Model = Annotated[str | None, typer.Option(help="Your own checkpoint folder or hub id instead.")]

Device = Annotated[str, typer.Option(help="Where the model runs: cpu, cuda.")]
Dtype = Annotated[str, typer.Option(help="Numbers it computes with: float32, bfloat16.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads that torch may use.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
