"""The language model's commands: generate, language, prompt-router."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dsgp_lab.cli_options import AsJson, Device, Dtype, Model, Threads
from dsgp_lab.errors import LabError
from dsgp_lab.whole_files import check_place

language_app = typer.Typer(rich_markup_mode=None)
"""Its commands are `dsgp-lab`'s own: `cli` adds them without a name between."""


def _language_lab(model: str | None, device: str, dtype: str) -> Any:
    """The embedded language model, or one's own."""
    from dsgp_lab.devices import check_device, check_dtype
    from dsgp_lab.language import LanguageLab

    place: dict[str, Any] = {"device": check_device(device), "dtype": check_dtype(dtype)}
    return LanguageLab.from_pretrained(model, **place) if model else LanguageLab(**place)


SPEED = ("rounds", "new_tokens", "rivals")
"""Options of `language --speed` alone."""
NOT_SPEED = ("scope", "cut_attention", "repair", "answers", "out")
"""Options of `language` without it."""


def _check_together(context: typer.Context, speed: bool, rivals: bool) -> None:
    """Refuse options that would have no effect."""
    idle = (*NOT_SPEED, *(() if rivals else ("scorers",))) if speed else SPEED
    for name in idle:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = f"--{name.replace('_', '-')}"
            needed = "without it, or with --rivals too" if name == "scorers" else f"without {option}"
            raise LabError(
                got=f"{option} {'with' if speed else 'without'} --speed",
                allowed=f"--speed {needed}" if speed else f"{option} with --speed",
                hint="write --json > FILE to keep the times" if name == "out" else f"leave {option} out",
            )


@language_app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What the language model is asked.")],
    keep: Annotated[float, typer.Option(help="Share of the layers' MACs that may run.")] = 0.7,
    scorer: Annotated[
        str, typer.Option(help="How units are scored; a wrong name lists them all.")
    ] = "griffin",
    tokens: Annotated[int, typer.Option(help="New tokens at most.")] = 32,
    model: Model = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
) -> None:
    """Continue a prompt with a language model cut to it.

    The dense model continues it too, for comparison.
    """
    from dsgp_lab.evaluate.latency import threads

    with threads(1):
        lab = _language_lab(model, device, dtype)
        typer.echo(str(lab.prune(prompt, keep, scorer, max_new_tokens=tokens)))


@language_app.command()
def language(
    context: typer.Context,
    scorers: Annotated[str | None, typer.Option(help="Names with commas; default: all there are.")] = None,
    keeps: Annotated[str, typer.Option(help="Shares of the layers' MACs.")] = "0.8,0.7,0.6",
    scope: Annotated[str, typer.Option(help="layer: units compete in each layer; global: in all.")] = "layer",
    cut_attention: Annotated[
        bool, typer.Option("--cut-attention", help="KV groups compete too; else only neurons go.")
    ] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Replace what is cut by its mean.")] = False,
    answers: Annotated[bool, typer.Option("--answers", help="Also answer the prompts: minutes.")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON file to save in and to go on from.")] = None,
    speed: Annotated[bool, typer.Option("--speed", help="Time it instead, at the last share.")] = False,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds of --speed.")] = 10,
    new_tokens: Annotated[str, typer.Option(help="Lengths of answers in --speed.")] = "32",
    rivals: Annotated[
        bool, typer.Option("--rivals", help="Also time transformers, and scoring in a run of its own.")
    ] = False,
    threads: Threads = 1,
    as_json: AsJson = False,
    model: Model = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
) -> None:
    """Measure a language model pruned per prompt.

    Perplexity and agreement with controls, answers, or speed.
    """
    import json
    from functools import partial

    from dsgp_lab.evaluate.language import evaluate_language
    from dsgp_lab.evaluate.language_speed import bench_language
    from dsgp_lab.evaluate.latency import threads as limited
    from dsgp_lab.evaluate.sweep_plan import listed, numbers
    from dsgp_lab.language_data import load_prompts
    from dsgp_lab.language_policy import Policy

    names, budgets = listed(scorers), numbers(keeps, float, "keeps")
    _check_together(context, speed, rivals)
    if rivals and len(names or ()) > 1:
        raise LabError(
            got=f"--scorers {scorers} with --rivals", allowed="one name", hint="leave the others out"
        )
    if out is not None:
        check_place(out)
    with limited(threads):
        lab = _language_lab(model, device, dtype)
        table: Any
        if speed:
            sizes, rival = numbers(new_tokens, int, "new-tokens"), (names or ("griffin",))[0]
            settings: dict[str, Any] = {"rounds": rounds, "num_threads": threads, "transformers": rivals}
            table = bench_language(lab, budgets[-1], rival if rivals else None, new_tokens=sizes, **settings)
        else:
            prompts = load_prompts() if answers else ()
            policy: Any = Policy(scope, cut_attention, repair)  # type: ignore[arg-type]
            say = partial(typer.echo, err=True)
            table = evaluate_language(lab, names, budgets, policy, prompts=prompts, out=out, say=say)
    typer.echo(json.dumps(table.record(), indent=2) if as_json else str(table))


@language_app.command("prompt-router")
def train_prompt_router(
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: the project's own.")] = None,
    texts: Annotated[int, typer.Option(help="Texts that the model writes and learns from.")] = 320,
    rank: Annotated[int, typer.Option(help="Numbers that a prompt is summed up in.")] = 16,
    seed: Annotated[int, typer.Option(help="Of the texts.")] = 0,
    threads: Threads = 1,
    model: Model = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
) -> None:
    """Train a router for prompts on what the model writes."""
    import json
    from functools import partial

    from dsgp_lab.evaluate.latency import threads as limited
    from dsgp_lab.tasks import data_folder
    from dsgp_lab.training.prompt_router import save_router
    from dsgp_lab.training.prompt_router import train_prompt_router as train

    if model is not None and out is None:
        raise LabError(
            got="--model without --out",
            allowed="both",
            hint="the project's own folder is for the embedded model",
        )
    if out is not None:
        check_place(out / "card.json")
    with limited(threads):
        fit, card = train(
            _language_lab(model, device, dtype),
            texts,
            rank=rank,
            seed=seed,
            say=partial(typer.echo, err=True),
        )
    typer.echo(json.dumps(card, indent=2))
    typer.echo(f"Written to {save_router(fit, card, out or data_folder() / 'language')}.", err=True)
