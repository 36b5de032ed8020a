"""The command line, `dsgp-lab`: one function a command; the language model's are in `cli_language`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from dsgp_lab.cli_language import language_app
from dsgp_lab.cli_options import AsJson, Model, Task, Threads
from dsgp_lab.errors import LabError
from dsgp_lab.whole_files import check_place

app = typer.Typer(
    help="Dynamic structured pruning, per input, measured for real.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # which would take [options] for a style
    pretty_exceptions_enable=False,
)

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
"""For commands whose arguments, --help among them, are another parser's."""

REGIME_NAMES = "frozen, joint, shared_frozen, shared, adaptive"
"""Those of `dsgp_lab.regimes`, which is slow to import."""

app.add_typer(language_app)


@app.command()
def analyze(
    text: Annotated[str, typer.Argument(help="The text to look at.")],
    pair: Annotated[str | None, typer.Argument(help="The second text, for tasks that compare two.")] = None,
    keep: Annotated[float, typer.Option(help="Share of the encoder's MACs that may run.")] = 0.6,
    scorer: Annotated[
        str, typer.Option(help="How units are scored; a wrong name lists them all.")
    ] = "first_order",
    task: Task = "sst2",
    model: Model = None,
    at_most: Annotated[
        str | None, typer.Option(help='Budget in time instead: "4 ms", "0.6 of dense" (after calibrate).')
    ] = None,
) -> None:
    """Score a text, cut the model to it, run both."""
    from rich.console import Console
    from rich.text import Text

    from dsgp_lab.evaluate.latency import threads
    from dsgp_lab.lab import Lab
    from dsgp_lab.views.terminal import unit_map

    lab = Lab.from_pretrained(model) if model else Lab(task)
    given = text if pair is None else (text, pair)
    with threads(1):  # many threads gain nothing at this size and lose much where other programs run
        lab.prune(given, keep, scorer, at_most=at_most)  # warms the machine up; the second run is printed
        run = lab.prune(given, keep, scorer, at_most=at_most)
    console = Console(highlight=False)
    console.print(Text(str(run)), soft_wrap=True)
    console.print(unit_map(run.sensitivity, run.mask))


@app.command()
def calibrate(
    threads: Threads = 1,
    seconds: Annotated[float, typer.Option(min=1, help="Time to take, in all.")] = 60.0,
    task: Task = "sst2",
    model: Model = None,
    out: Annotated[Path | None, typer.Option(help="File to write instead of the user's cache.")] = None,
) -> None:
    """Measure this machine's costs, for budgets in time."""
    from functools import partial

    from dsgp_lab.calibration import calibrate as measure
    from dsgp_lab.evaluate.latency import threads as using
    from dsgp_lab.lab import Lab

    if out is not None:
        check_place(out)
    lab = Lab.from_pretrained(model) if model else Lab(task)
    with using(threads):
        table = measure(lab.subnetwork, seconds=seconds, say=partial(typer.echo, err=True))
    typer.echo(str(table))
    typer.echo(f"Written to {table.save(out)}.", err=True)


@app.command()
def bench(
    rounds: Annotated[int, typer.Option(help="Interleaved rounds a table (--rivals: at most 40).")] = 120,
    threads: Threads = 1,
    task: Task = "sst2",
    regime: Annotated[
        str | None, typer.Option(help=f"Whose weights: {REGIME_NAMES}. Default: adaptive, if there.")
    ] = None,
    batches: Annotated[str, typer.Option(help="Inputs a run, with commas.")] = "1,32",
    keeps: Annotated[str, typer.Option(help="Budgets, likewise.")] = "0.6,0.35",
    long: Annotated[int, typer.Option(min=8, help="Also join texts to this many tokens, at batch 1.")] = 128,
    memory: Annotated[bool, typer.Option(help="Measure memory, in processes of its own.")] = True,
    rivals: Annotated[
        str,
        typer.Option(
            help="Instead, routers against static masks as accurate: of all tasks, or of those named."
        ),
    ] = "none",
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option(help="Also write .parquet, .json, .md, .html or .txt.")] = None,
) -> None:
    """Time the cut model against its rivals.

    Dense, static and quantised ones; with --rivals, routers against static masks that are as accurate. About
    five minutes each.
    """
    import json
    from functools import partial

    from dsgp_lab.evaluate.bench_rivals import ROUNDS
    from dsgp_lab.evaluate.benchmark import bench_lab, check_ending, run_bench, run_rivals
    from dsgp_lab.evaluate.sweep_plan import listed, numbers
    from dsgp_lab.lab import Lab

    sizes, budgets = numbers(batches, int, "batches"), numbers(keeps, float, "keeps")
    if out is not None:
        check_place(check_ending(out))
    say = partial(typer.echo, err=True)
    if rivals == "none":
        done = run_bench(bench_lab(task, regime), sizes, budgets, long, rounds, threads, memory, say)
    else:
        if regime is not None:
            raise LabError(
                got=f"--rivals {rivals} with --regime {regime}",
                allowed="rivals of every regime that the results table has",
                hint="leave one of the two out",
            )
        tasks = None if rivals == "all" else listed(rivals)
        done = run_rivals(Lab(task), tasks, min(ROUNDS, rounds), threads, say)
    if out is not None:
        typer.echo(f"Written to {done.save(out)}.", err=True)
    typer.echo(json.dumps(done.records(), indent=2) if as_json else str(done))


@app.command()
def evaluate(
    task: Annotated[str, typer.Argument(help="The task whose columns and labels the file has.")],
    file: Annotated[Path, typer.Option(help="Labelled texts: .jsonl, .csv or .tsv with GLUE's columns.")],
    keep: Annotated[float, typer.Option(help="Share of the encoder's MACs that may run.")] = 0.6,
    method: Annotated[str, typer.Option(help="What is kept; a wrong name lists them all.")] = "router",
    regime: Annotated[
        str | None,
        typer.Option(help=f"Whose weights: {REGIME_NAMES}. For a router adaptive or joint, if there."),
    ] = None,
    quoting: Annotated[
        str, typer.Option(help="none: quotes in a table belong to its texts, as in GLUE's TSV files.")
    ] = "minimal",
    predictions: Annotated[Path | None, typer.Option(help="Also write a row an example to this CSV.")] = None,
    as_json: AsJson = False,
    root: Annotated[
        Path | None, typer.Option(help="Folder of other checkpoints than data/checkpoints.")
    ] = None,
) -> None:
    """Evaluate a method on your own labelled file. The dense model runs beside it."""
    import json

    from dsgp_lab.evaluate.latency import threads
    from dsgp_lab.evaluate.own import evaluate_file

    names: dict[str, Any] = {"regime": regime, "quoting": quoting}  # unknown ones are refused there
    with threads(1):
        evaluation = evaluate_file(file, task, method, keep, predictions=predictions, root=root, **names)
    typer.echo(json.dumps(evaluation.record(), indent=2) if as_json else str(evaluation))


@app.command(context_settings=PASS_ON, add_help_option=False)
def train(context: typer.Context) -> None:
    """Fine-tune on a GLUE task: train TASK [options]. Resumes."""
    from dsgp_lab.training.finetune import main as finetune

    raise typer.Exit(finetune(context.args))


@app.command(context_settings=PASS_ON, add_help_option=False)
def train_router(context: typer.Context) -> None:
    """Train a router: train-router TASK [options]. Resumes."""
    from dsgp_lab.training.train_router import main as train

    raise typer.Exit(train(context.args))


@app.command(context_settings=PASS_ON, add_help_option=False)
def order(context: typer.Context) -> None:
    """Compare neuron orders: order TASK [--write]."""
    from dsgp_lab.training.order_neurons import main as order_neurons

    raise typer.Exit(order_neurons(context.args))


@app.command()
def sweep(
    tasks: Annotated[str | None, typer.Option(help="Names with commas; default: all there are.")] = None,
    regimes: Annotated[str | None, typer.Option(help=f"Likewise: {REGIME_NAMES}.")] = None,
    methods: Annotated[str | None, typer.Option(help="Likewise; a wrong name lists them.")] = None,
    keeps: Annotated[str, typer.Option(help="Shares of the encoder's MACs.")] = "0.25,0.35,0.5",
    seeds: Annotated[str, typer.Option(help="Methods without chance take the first one.")] = "0",
    limit: Annotated[int | None, typer.Option(help="Draw this many examples of each split.")] = None,
    split: Annotated[str | None, typer.Option(help="Default: dev; without GLUE, teaching.")] = None,
    root: Annotated[Path | None, typer.Option(help="Checkpoints of another training.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the cells; finished ones stay.")] = Path("runs/sweep"),
    workers: Annotated[int, typer.Option(min=1, help="Processes, of one thread each.")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler, whose workers do it instead.")
    ] = None,
) -> None:
    """Evaluate methods on tasks within budgets. Resumes where it stopped."""
    from dsgp_lab.evaluate.cluster import cluster
    from dsgp_lab.evaluate.sweep import processes
    from dsgp_lab.evaluate.sweep import sweep as run_sweep
    from dsgp_lab.evaluate.sweep_plan import listed, numbers, plan_cells

    budgets, chances = numbers(keeps, float, "keeps"), numbers(seeds, int, "seeds")
    names = (listed(tasks), listed(regimes), listed(methods))
    if scheduler:  # whose workers may be in other folders
        out, root = out.resolve(), root and root.resolve()
    cells = plan_cells(*names, budgets, chances, limit=limit, split=split, root=root)
    with cluster(scheduler) if scheduler else processes(workers) as executor:
        typer.echo(str(run_sweep(cells, out, executor)))


@app.command()
def results(
    as_json: AsJson = False,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="A sweep's folder, or published predictions, not the project's table."),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Make it the project's table.")] = False,
    update: Annotated[
        bool,
        typer.Option("--update", help="Keep the project's table but for the tasks and regimes of --from."),
    ] = False,
) -> None:
    """Print the results table, or make it from a sweep."""
    import json
    from functools import partial

    from dsgp_lab.evaluate.results_table import Results, results_folder

    if source is None and (write or update):
        given = "--write" if write else "--update"
        raise LabError(
            got=f"{given} without --from", allowed="both", hint="add --from and the folder of a sweep"
        )
    if source is None:
        table = Results.load()
    else:
        table = Results.of(source, partial(typer.echo, err=True), results_folder() if update else None)
    if write:
        typer.echo(f"Written to {table.write()}.", err=True)
    typer.echo(json.dumps(table.records(), indent=2) if as_json else str(table))


@app.command()
def doctor() -> None:
    """Say what is found, what is missing, and how to get it."""
    from dsgp_lab.doctor import diagnose

    diagnosis = diagnose()
    typer.echo(str(diagnosis))
    raise typer.Exit(0 if diagnosis.healthy else 1)


def main() -> None:
    """Run the command line; a LabError, or a package that does not load, is a sentence and exit code 2."""
    try:
        app()
    except ImportError as error:
        reason = " ".join(str(error).split())
        print(_unfit(reason), file=sys.stderr)
        sys.exit(2)
    except LabError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def _unfit(reason: str) -> LabError:
    """What to say of a package that is missing or of a version that others do not take."""
    return LabError(
        got=f"a package that does not load ({reason[:200]})",
        allowed="the versions that pyproject.toml names",
        hint="run dsgp-lab doctor, which says what does not fit and how to mend it",
    )


if __name__ == "__main__":
    main()
