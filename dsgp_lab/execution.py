"""How a batch of different masks is run: the way that the machine's cost table predicts to be fastest.

"together" runs layer by layer as one, blocks that few inputs keep on their gathered rows; "union" likewise,
but every unit that any input keeps runs for all of them; "groups" runs each group of equal masks; "each" runs
every input alone. Without a table a batch runs together. `dsgp-lab bench` times them all.
The logits are the same in all of them.
"""

from __future__ import annotations

import random
import time
from statistics import median
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from dsgp_lab.cost_table import CostTable, counts
from dsgp_lab.errors import LabError
from dsgp_lab.mask import Mask
from dsgp_lab.together import GATHER_COSTS, gathers, planned, run_together

if TYPE_CHECKING:
    from dsgp_lab.anatomy import Inputs
    from dsgp_lab.subnetwork import SubNetwork

Execution = Literal["auto", "together", "union", "groups", "each"]
"""How a batch of different masks is run; "auto" chooses one of the others."""

Groups = list[tuple[Mask, list[int]]]
"""Each different mask and the inputs that have it (`Mask.groups`)."""


def find_table(subnetwork: SubNetwork) -> CostTable | None:
    """The machine's cost table from the user's cache; one that is damaged or foreign counts as none."""
    try:
        return CostTable.load(subnetwork)
    except LabError:
        return None


def choose(table: CostTable | None, mask: Mask, groups: Groups, lengths: Tensor) -> Execution:
    """The execution that is predicted to be fastest; "together" without a table."""
    if table is None:
        return "together"
    predicted = predict_executions(table, mask, groups, lengths)
    return min(predicted, key=predicted.__getitem__)


def predict_executions(
    table: CostTable, mask: Mask, groups: Groups, lengths: Tensor
) -> dict[Execution, float]:
    """Predicted milliseconds of a batch in each execution; lengths [batch] are the inputs' real tokens.

    Limits: inputs count at the mean length of those they run with, and copies of masks that have come before
    are not foreseen.
    """
    batch, mean = len(mask), _mean(lengths)
    alone, whole = table.at(1, mean), table.at(batch, mean)
    by_mask = [(*counts(shared), rows) for shared, rows in groups]
    united = Mask(mask.heads.any(0, keepdim=True), mask.blocks.any(0, keepdim=True))
    heads, blocks, extra = counts(united)
    union = whole.time(heads, blocks, extra) + whole.mixed
    return {
        "together": union - _saved(mask, lengths, whole.block, whole.run),
        "union": union,
        "groups": sum(
            table.at(len(rows), _mean(lengths[rows])).time(heads, blocks, extra)
            for heads, blocks, extra, rows in by_mask
        ),
        "each": sum(len(rows) * alone.time(heads, blocks, extra) for heads, blocks, extra, rows in by_mask),
    }


def measure_mixed(subnetwork: SubNetwork, inputs: Inputs, union_ms: float, rounds: int = 5) -> float:
    """Milliseconds that a run of different masks takes beyond the same units under one mask.

    It decides who runs where and sets to zero what an input does not keep. union_ms: what the whole model's
    units take under one mask, by the table; the masks measured here keep all units in their union.
    """
    batch, a = len(inputs["input_ids"]), subnetwork.anatomy
    chance = random.Random(batch)
    mask = Mask.full(a, batch)
    for part in (
        mask.heads,
        mask.blocks,
    ):  # each input lacks one unit a layer: all different, nothing gathered
        for row in range(batch):
            for layer in range(a.num_layers):
                part[row, layer, chance.randrange(part.shape[-1])] = False
    decide, times = planned(mask), []
    for turn in range(rounds + 1):
        start = time.perf_counter()
        run_together(subnetwork, inputs, decide, gather=False)
        if turn:  # the first one warms up
            times.append(1e3 * (time.perf_counter() - start))
    return max(0.0, median(times) - union_ms)


def _mean(lengths: Tensor) -> int:
    return max(1, round(float(lengths.float().mean())))


def _saved(mask: Mask, lengths: Tensor, block: float, run: float) -> float:
    """Milliseconds that gathering the rows of rarely kept blocks saves: a share of a block less a product."""
    total = int(lengths.sum())
    rows = torch.einsum("b,blu->lu", lengths.double(), mask.blocks.double()).flatten().tolist()
    shares: list[float] = [(1 + GATHER_COSTS) * count / total for count in rows if gathers(count, total)]
    return sum((1 - share) * block - run for share in shares)
