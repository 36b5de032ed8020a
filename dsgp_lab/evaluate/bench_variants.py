"""The variants of the benchmark: each runs one batch of inputs once, everything it needs included.

A variant that cannot run here is left out, and a note says why.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from dsgp_lab.anatomy import Inputs
from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.bench_inputs import BenchInputs
from dsgp_lab.evaluate.methods import DENSE
from dsgp_lab.evaluate.rivals import Rival, find_rival
from dsgp_lab.gates import gated
from dsgp_lab.int8 import Int8Network
from dsgp_lab.lab import Lab
from dsgp_lab.mask import Mask
from dsgp_lab.plan import plan_mask
from dsgp_lab.regimes import load_router
from dsgp_lab.router import Router
from dsgp_lab.router_planner import BatchPlanner, Planner
from dsgp_lab.sensitivity import lengths
from dsgp_lab.settled import Settled
from dsgp_lab.subnetwork import SubNetwork
from dsgp_lab.together import run_together

Run = Callable[[Inputs], object]

TRANSFORMERS, LEAN = "transformers dense", "lean dense"
INT8, ONNX, GATED = "int8 dense (torch)", "ONNX Runtime dense", "gated only"
INT8_LEAN = "int8 lean dense"
COMPARED = 50
"""Inputs on which int8 predictions are compared with those of float32."""


@dataclass
class Variants:
    """What can run: functions by name, their budgets, predicted ratios of MACs, and notes on the others."""

    runs: dict[str, Run] = field(default_factory=dict)
    keeps: dict[str, float] = field(default_factory=dict)
    macs: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, run: Run, keep: float = 1.0, macs: float = 1.0) -> None:
        """Add a variant."""
        self.runs[name], self.keeps[name], self.macs[name] = run, keep, macs


def dynamic_name(keep: float) -> str:
    """The dynamic variant of a budget, decisions included."""
    return f"dynamic {keep:g}"


def make_variants(
    lab: Lab, inputs: BenchInputs, keeps: tuple[float, ...], settled: Sequence[Settled] = ()
) -> Variants:
    """All variants that can run here, for the lab's task and these inputs; settled routers, too."""
    made = Variants()
    made.add(TRANSFORMERS, torch.inference_mode()(lambda each: lab.model(**each)))
    made.add(LEAN, lab.subnetwork.dense)
    router = _router(lab, twin=False)
    if router is None:
        made.notes.append(f"Dynamic variants are left out: {lab.name} has no router in regime {lab.regime}.")
    for keep in keeps:
        static = static_mask(lab, keep)
        if router is not None:
            _add_dynamic(made, lab, inputs, router, keep)
            for found in settled:
                if found.keep == keep:
                    _add_settled(made, lab, inputs, found)
        made.add(f"static {keep:g}", _fixed(lab, static), keep, mean_share(lab, inputs, static))
        _add_equal_accuracy(made, lab, inputs, keep)
    half = static_mask(lab, keeps[0])
    made.add(f"{GATED} {keeps[0]:g}", _gated(lab, half), keeps[0], 1.0)
    _add_int8(made, lab)
    _add_lean_int8(made, lab, inputs, router, keeps)
    _add_onnx(made, lab, inputs)
    lab.subnetwork.copies.clear()  # what was run to count operations shall not help what is timed
    return made


def static_mask(lab: Lab, keep: float) -> Mask:
    """One mask for all inputs: the router's static twin, or else mean first-order scores, at 25 tokens."""
    twin = _router(lab, twin=True)
    if twin is not None:
        return Planner(twin, keep).mask
    sensitivity = lab.calibrate("first_order")(lab.anatomy, lab.encode([_any_text(lab)]))
    return plan_mask(sensitivity, lab.cost, torch.tensor([25]), keep)


def _router(lab: Lab, twin: bool) -> Router | None:
    try:
        return load_router(lab.task.name, lab.regime, twin) if lab.task is not None else None
    except LabError:
        return None


def _any_text(lab: Lab) -> Any:
    return ("a", "b") if lab.task is not None and lab.task.is_pair else "a"


def _fixed(lab: Lab, mask: Mask) -> Run:
    """One mask for all: it is cut out once, beforehand, weights copied together."""
    selection = lab.subnetwork.select(mask, stays=True)
    return lambda each: lab.subnetwork.run(each, selection)


def _add_dynamic(made: Variants, lab: Lab, inputs: BenchInputs, router: Router, keep: float) -> None:
    """With its decisions; and its masks given, which leaves their cost out."""
    single, several = Planner(router, keep), BatchPlanner(router, keep)
    masks: dict[int, Mask] = {}
    share = routed_share(lab, router, single if inputs.batch == 1 else several, inputs, masks)
    made.add(dynamic_name(keep), _deciding(lab, inputs, single, several), keep, share)
    made.add(f"{dynamic_name(keep)}, masks given", lambda e: lab.subnetwork(e, masks[id(e)]), keep, share)


def _add_settled(made: Variants, lab: Lab, inputs: BenchInputs, settled: Settled) -> None:
    single, several = settled.planner(lab.subnetwork.packed), settled.batch_planner()
    share = routed_share(lab, settled, single if inputs.batch == 1 else several, inputs)
    priced = ", heads priced" if settled.head_price else ""
    name = f"{dynamic_name(settled.keep)}, settled{priced}"
    made.add(name, _deciding(lab, inputs, single, several), settled.keep, share)
    layers = ", ".join(str(1 + i) for i, layer in enumerate(settled.layers) if layer is None)
    made.notes.append(f"{name}: the router is asked in layers {layers or 'none'}.")


def _deciding(lab: Lab, inputs: BenchInputs, single: Planner, several: BatchPlanner) -> Run:
    """A run with its decisions, of one input or of a batch."""
    if inputs.batch == 1:
        return lambda each: lab.subnetwork.run(each, single)
    return lambda each: run_together(lab.subnetwork, each, several)


def routed_share(
    lab: Lab,
    router: Router | Settled,
    planner: Planner | BatchPlanner,
    inputs: BenchInputs,
    masks: dict[int, Mask] | None = None,
) -> float:
    """Mean share of the MACs that a router's runs take, its own included; `masks` gets them by batch id."""
    shares = []
    for each in inputs.batches:
        if isinstance(planner, Planner):
            lab.subnetwork.run(each, planner)
        else:
            run_together(lab.subnetwork, each, planner)
        if masks is not None:
            masks[id(each)] = planner.mask
        real = lengths(each)
        own = sum(router.macs(lab.cost, int(n)) for n in real)
        shares.append(
            (int(lab.cost.masked(planner.mask, real).sum()) + own) / int(lab.cost.dense(real).sum())
        )
    return sum(shares) / len(shares)


def mean_share(lab: Lab, inputs: BenchInputs, mask: Mask) -> float:
    """Mean share of the MACs that run under one mask, each input at its real length."""
    real = torch.cat([lengths(each) for each in inputs.batches])
    return float((lab.cost.masked(mask, real) / lab.cost.dense(real)).mean())


def _add_equal_accuracy(made: Variants, lab: Lab, inputs: BenchInputs, keep: float) -> None:
    """The cheapest static mask of the committed results that is as accurate as the router at `keep`."""
    name, found = f"static as accurate as {dynamic_name(keep)}", _rival(lab, keep)
    if isinstance(found, str):
        made.notes.append(f"{name} is left out: {found}")
        return
    mask = Mask.full(lab.anatomy) if found.method == DENSE else static_mask(lab, found.keep)
    made.add(name, _fixed(lab, mask), found.keep, mean_share(lab, inputs, mask))


def _rival(lab: Lab, keep: float) -> Rival | str:
    from dsgp_lab.evaluate.results_table import Results

    try:
        rows = Results.load().rows
    except LabError:
        return "there is no results table (data/results); dsgp-lab sweep makes one."
    return find_rival(rows, lab.task.name if lab.task is not None else "", lab.regime, keep)


def _gated(lab: Lab, mask: Mask) -> Run:
    @torch.inference_mode()
    def run(each: Inputs) -> object:
        with gated(lab.anatomy, mask[[0] * len(each["input_ids"])]):
            return lab.model(**each)

    return run


def _add_int8(made: Variants, lab: Lab) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = torch.ao.quantization.quantize_dynamic(lab.model, {nn.Linear}, dtype=torch.qint8)
            with torch.inference_mode():
                model(**lab.encode([_any_text(lab)]))
    except Exception as error:  # engines differ between builds of torch
        made.notes.append(f"{INT8} is left out: {type(error).__name__}: {error}")
        return
    made.add(INT8, torch.inference_mode()(lambda each: model(**each)))


def _add_lean_int8(
    made: Variants, lab: Lab, inputs: BenchInputs, router: Router | None, keeps: tuple[float, ...]
) -> None:
    """Our own int8 products: dense, and, for single inputs, under the router's decisions."""
    try:
        network = Int8Network(lab.anatomy)
        some = inputs.batches[:COMPARED]
        pairs = [(network.dense(each), lab.subnetwork.dense(each)) for each in some]
    except (RuntimeError, AttributeError) as error:  # torch._int_mm differs between builds of torch
        made.notes.append(f"{INT8_LEAN} is left out: {type(error).__name__}: {error}")
        return
    made.add(INT8_LEAN, network.dense)
    if router is not None and inputs.batch == 1:
        for keep in keeps:
            run = partial(_run, network, Planner(router, keep))
            made.add(f"int8 {dynamic_name(keep)}", run, keep, made.macs[dynamic_name(keep)])
    whole, real = (torch.cat(logits) for logits in zip(*pairs, strict=True))
    if real.shape[1] > 1:
        same = int((whole.argmax(1) == real.argmax(1)).sum())
        made.notes.append(f"{INT8_LEAN} predicts what float32 does on {same} of {len(real)} inputs.")


def _run(network: SubNetwork, planner: Planner, each: Inputs) -> torch.Tensor:
    return network.run(each, planner)


def _add_onnx(made: Variants, lab: Lab, inputs: BenchInputs) -> None:
    missing = [name for name in ("onnxruntime", "onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        made.notes.append(
            f"{ONNX} is left out: {', '.join(missing)} not installed (pip install dsgp_lab[onnx])."
        )
        return
    session = onnx_session(lab, inputs.batches[0])
    names = {each.name for each in session.get_inputs()}
    made.add(ONNX, lambda each: session.run(None, {k: v.numpy() for k, v in each.items() if k in names}))


def onnx_session(lab: Lab, example: Inputs) -> Any:
    """The dense model in ONNX Runtime, with as many threads as torch uses now."""
    import onnxruntime

    names = list(example)
    axes = {name: {0: "batch", 1: "tokens"} for name in names}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = str(Path(folder) / "model.onnx")
        torch.onnx.export(
            _LogitsOnly(lab.model, names).eval(),  # else the exporter puts the model into training mode
            tuple(example[name] for name in names),
            path,
            input_names=names,
            output_names=["logits"],
            dynamic_axes=axes,
            dynamo=False,
        )
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class _LogitsOnly(nn.Module):
    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(**dict(zip(self.names, values, strict=True))).logits
        return logits
