"""Regret: how far a method's masks are from masks that were found by trying, at equal MACs.

The greedy mask is made with the answer in view: it is the instrument that shows what a mask could do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dsgp_lab.anatomy import Anatomy, Inputs
from dsgp_lab.cost import CostModel
from dsgp_lab.errors import LabError
from dsgp_lab.evaluate.distance import output_distance
from dsgp_lab.evaluate.statistics import bootstrap_mean
from dsgp_lab.gates import Gates, gated
from dsgp_lab.mask import Mask
from dsgp_lab.plan import check_keep
from dsgp_lab.report import Report, Reported
from dsgp_lab.sensitivity import lengths

ROUNDS = 24
CANDIDATES = 48
"""Units that a round after the first one tries."""


@dataclass(frozen=True, eq=False, repr=False)
class Regret(Reported):
    """Divergence from the dense output of each method [inputs], and its excess over the reference's."""

    reference: str
    divergence: dict[str, np.ndarray]

    @property
    def excess(self) -> dict[str, np.ndarray]:
        """Regret of each other method [inputs]; below 0 where it beats the reference."""
        base = self.divergence[self.reference]
        return {name: each - base for name, each in self.divergence.items() if name != self.reference}

    def report(self) -> Report:
        """A row a method, the least regret first."""
        base = self.divergence[self.reference]
        rows = [(self.reference, f"{base.mean():.4f}", "", "")]
        for name, each in sorted(self.excess.items(), key=lambda entry: float(entry[1].mean())):
            low, high = bootstrap_mean(each)
            mean = f"{self.divergence[name].mean():.4f}"
            rows.append((name, mean, f"{each.mean():.4f}", f"{low:.4f} to {high:.4f}"))
        note = f"{len(base)} inputs; intervals over inputs, paired."
        return Report("Regret", tuple(rows), ("mask", "divergence", "regret", "95 %"), (note,))


def regret(divergence: Mapping[str, np.ndarray], reference: str) -> Regret:
    """Compare methods' divergences [inputs] with those of the reference, input by input.

    >>> made = regret({"greedy": np.array([0.1, 0.2]), "router": np.array([0.2, 0.2])}, "greedy")
    >>> made.excess["router"].tolist()
    [0.1, 0.0]

    Raises:
        LabError: no such reference, or other numbers of inputs.
    """
    if reference not in divergence or len({each.shape for each in divergence.values()}) > 1:
        shapes = ", ".join(f"{name} {list(each.shape)}" for name, each in divergence.items())
        raise LabError(
            got=f"reference {reference!r} for {shapes}",
            allowed="a reference among the methods, all measured on the same inputs",
            hint="measure every method on the same inputs",
        )
    return Regret(reference, dict(divergence))


@torch.inference_mode()
def greedy_mask(anatomy: Anatomy, inputs: Inputs, keep: float, rounds: int = ROUNDS) -> Mask:
    """A mask for one input within `keep` of the MACs, found by leaving out what is missed least.

    Each round tries units: the model runs without the unit and without all that went before. Then those go
    whose loss is smallest for each MAC that they save, until the round's share of the budget is reached. What
    is lost is the divergence of the output from the dense one. The first round tries every unit, later ones
    the `CANDIDATES` that were missed least when they were last tried.
    Cost: a gated run for each unit that is tried. Limits: greedy, not optimal; units that go in one round are
    judged one by one, so that few rounds judge badly. It sees the dense output: an oracle.

    Raises:
        LabError: more than one input, or a budget that is no share.
    """
    check_keep(keep)
    if len(inputs["input_ids"]) != 1:
        raise LabError(
            got=f"{len(inputs['input_ids'])} inputs", allowed="one", hint="call it for each input alone"
        )
    cost, length = CostModel.of(anatomy), int(lengths(inputs)[0])
    macs = torch.full((anatomy.num_units,), float(cost.block(length)))
    macs[: anatomy.num_layers * anatomy.num_heads] = float(cost.head(length))
    dense = anatomy.model(**inputs).logits
    kept = torch.ones(anatomy.num_units, dtype=torch.bool)
    loss = torch.zeros(anatomy.num_units)
    for number in range(1, rounds + 1):
        limit = macs.sum() * (1 - (1 - keep) * number / rounds) * (1 + 1e-6)
        left = kept.nonzero().flatten()
        tried = left[(loss / macs)[left].argsort(stable=True)[: CANDIDATES if number > 1 else None]]
        rows = kept.repeat(len(tried), 1)
        rows[torch.arange(len(tried)), tried] = False
        without = _gated_logits(anatomy, inputs, rows)
        loss[tried] = output_distance(without, dense.expand_as(without))
        for unit in tried[(loss / macs)[tried].argsort(stable=True)].tolist():
            if macs[kept].sum() <= limit:
                break
            kept[unit] = False
    return _mask(anatomy, kept[None])


def _gated_logits(anatomy: Anatomy, inputs: Inputs, rows: Tensor, size: int = 48) -> Tensor:
    """Logits [rows, labels] of one input under many masks [rows, units], `size` of them at a time."""
    found = []
    for part in rows.split(size):
        mask = _mask(anatomy, part)
        gates = Gates.of(anatomy, mask.heads.float(), mask.blocks.float())
        repeated = {name: values.expand(len(part), -1) for name, values in inputs.items()}
        with gated(anatomy, gates):
            found.append(anatomy.model(**repeated).logits)
    return torch.cat(found)


def _mask(anatomy: Anatomy, rows: Tensor) -> Mask:
    """A mask from rows [batch, units]: heads of every layer, then blocks."""
    split = anatomy.num_layers * anatomy.num_heads
    layers = anatomy.num_layers
    return Mask(rows[:, :split].unflatten(1, (layers, -1)), rows[:, split:].unflatten(1, (layers, -1)))
