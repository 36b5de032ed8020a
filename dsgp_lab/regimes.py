"""The regimes in which pruning is studied, and the trained checkpoints of each.

frozen: the dense task model as it is, a router trained alone. joint: router and weights trained together on
one task. shared: one encoder for all tasks, router and weights trained together; shared_frozen: one encoder
for all tasks as it is, a router trained alone. adaptive: joint, with budgets that may differ between inputs
at the same average. Each has a static twin: the same training with the router's input switched off.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from dsgp_lab.anatomy import Anatomy
from dsgp_lab.checkpoints import ADAPTER, NEURON_ORDER, load_checkpoint, verified_card
from dsgp_lab.errors import LabError
from dsgp_lab.models import CARD, TaskModel, load_task_model
from dsgp_lab.router import Router
from dsgp_lab.subnetwork import SubNetwork
from dsgp_lab.tasks import SHARED, data_folder, get_task, task_folder

Regime = Literal["frozen", "joint", "shared_frozen", "shared", "adaptive"]
REGIMES: tuple[Regime, ...] = get_args(Regime)

SHARING: tuple[Regime, ...] = ("shared_frozen", "shared")
"""Regimes with one encoder for all tasks."""

FROZEN: tuple[Regime, ...] = ("frozen", "shared_frozen")
"""Regimes whose weights were not trained to be cut: routers are stored without them."""

ROUTER = "router.safetensors"
DENSE_FILES = "dense_files"
"""In a frozen router's card: `digests_of` the checkpoint that it was trained on."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A task's model in one regime with its router (None for the dense checkpoint)."""

    own: TaskModel
    router: Router | None

    def subnetwork(self) -> SubNetwork:
        """The model packed for compacted runs, blocks in the checkpoint's neuron order."""
        return SubNetwork(Anatomy.of(self.own.model, order=self.own.neuron_order))


def trained_folder(task: str, regime: Regime, twin: bool = False, root: Path | None = None) -> Path:
    """Where a regime's checkpoint lies: <root>/<task>/<regime>, or <regime>_twin; those of the shared encoder
    lie in <root>/glue.
    """
    get_task(task)
    if regime not in REGIMES:
        raise LabError(got=f"regime={regime!r}", allowed=", ".join(REGIMES), hint="choose one of these")
    home = root or data_folder() / "checkpoints"
    owner = SHARED if regime in SHARING else task
    return home / owner / (f"{regime}_twin" if twin else regime)


def load_model(
    task: str, regime: Regime = "frozen", twin: bool = False, root: Path | None = None
) -> TaskModel:
    """The model of a regime; in `FROZEN` ones a dense checkpoint, the task's or the shared encoder's.

    Raises:
        LabError: an unknown task or regime, or nothing trained for them.
    """
    if regime == "frozen":
        return load_task_model(task)
    folder = weights_folder(task, regime, twin, root)
    if not (folder / CARD).is_file():
        _found(task, regime, twin, root)
    return load_checkpoint(folder, task if regime in SHARING else None)


def weights_folder(task: str, regime: Regime, twin: bool = False, root: Path | None = None) -> Path:
    """Where the weights of a regime lie: in `FROZEN` ones the dense checkpoint, else beside the router."""
    folder = trained_folder(task, regime, twin, root)
    return task_folder(folder.parent.name) if regime in FROZEN else folder


def load_router(task: str, regime: Regime = "frozen", twin: bool = False, root: Path | None = None) -> Router:
    """The router of a regime, or its static twin's.

    Raises:
        LabError: as `load_model` does; in `FROZEN` regimes, a router that was trained on other weights than
            the dense checkpoint now has.
    """
    folder = _found(task, regime, twin, root)
    card = verified_card(folder, (ROUTER,))
    weights = weights_folder(task, regime)
    if regime in FROZEN and card.get(DENSE_FILES, (now := digests_of(weights))) != now:
        raise LabError(
            got=f"{folder / ROUTER}, trained on other weights than {weights} now has",
            allowed="a router trained on this checkpoint",
            hint=f"train it anew with dsgp-lab train-router {weights.name}, or fetch the checkpoint again",
        )
    return Router.load(folder / ROUTER)


def router_beside(folder: Path, task: str, twin: bool = False) -> Router:
    """The router for the weights in a checkpoint folder: beside them, or that of the task's own checkpoint.

    Raises:
        LabError: there is a router of the other kind, or none was trained on these weights.
    """
    if (folder / ROUTER).is_file():
        verified_card(folder, (ROUTER,))
        router = Router.load(folder / ROUTER)
        if router.sees_input != twin:
            return router
        got = f"a {'router' if router.sees_input else 'static twin'} in {folder}"
    elif (own := task_folder(task)).is_dir() and digests_of(folder) == digests_of(own):
        return load_router(task, "frozen", twin)
    elif (own := task_folder(SHARED)).is_dir() and digests_of(folder) == digests_of(own):
        return load_router(task, "shared_frozen", twin)
    else:
        got = f"no router in {folder}, and weights that none of the project's was trained on"
    raise LabError(
        got=got,
        allowed="a static twin" if twin else "a router",
        hint=f"train one with dsgp-lab train-router {task} --dense {folder}, or pass the Router itself",
    )


def digests_of(folder: Path, every: bool = False) -> dict[str, str]:
    """SHA-256 of a checkpoint's weights and neuron order by name, or of every file, as its card says."""
    files = verified_card(folder, () if every else (ADAPTER,))["files"]
    return {name: files[name]["sha256"] for name in files if every or name in (ADAPTER, NEURON_ORDER)}


def load_trained(task: str, regime: Regime, twin: bool = False, root: Path | None = None) -> Trained:
    """Load a regime's model and router (or its static twin's); errors as `load_model`.

    `root` holds other checkpoints in the same layout, such as those of another seed; dense models are
    always the project's own.
    """
    return Trained(load_model(task, regime, twin, root), load_router(task, regime, twin, root))


def _found(task: str, regime: Regime, twin: bool, root: Path | None) -> Path:
    folder = trained_folder(task, regime, twin, root)
    if not (folder / CARD).is_file():
        there = sorted(path.parent.name for path in folder.parent.glob(f"*/{CARD}"))
        raise LabError(
            got=f"no {folder.name} checkpoint for {task} in {folder.parent}",
            allowed=", ".join(there) or "none found",
            hint=f"{'choose one of these, or ' if there else ''}make one with dsgp-lab train-router"
            f" {folder.parent.name}",
        )
    return folder
