"""Batches of different masks: every execution gives the same logits, under masks and under a router."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest
import torch
from toys import one, random_mask, toy_anatomy, toy_inputs, toy_model

from dsgp_lab import DynamicPruner, LabError, Mask, Router, SubNetwork, together
from dsgp_lab.execution import Execution
from dsgp_lab.router import RouterShape
from dsgp_lab.router_planner import BatchPlanner, Planner
from dsgp_lab.together import Split, Tokens, run_together

MODEL = toy_model("bert")
ANATOMY = toy_anatomy(MODEL)
INPUTS = toy_inputs(MODEL, [9, 3, 12, 5, 7])
SUB = SubNetwork(ANATOMY)


def some_router(kind: str = "layerwise") -> Router:
    """A router whose masks differ between inputs."""
    torch.manual_seed(0)
    router = Router(RouterShape.of(ANATOMY, kind))  # type: ignore[arg-type]
    with torch.no_grad():
        router.w2.normal_()
        router.bias.fill_(-4.0)
    return router.eval()


@pytest.mark.parametrize("gathered", [True, False])
def test_all_executions_give_the_same_logits(gathered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "GATHER_SAVES", 1 if gathered else 10**6)
    monkeypatch.setattr(together, "GATHER_COSTS", 0.0)
    for keep, seed in product((0.1, 0.5, 0.9), range(3)):
        mask = random_mask(ANATOMY, 5, keep, seed)
        found = {how: SUB(INPUTS, mask, how) for how in get_args(Execution)}
        for output in found.values():
            torch.testing.assert_close(output.logits, found["each"].logits, atol=1e-5, rtol=0)
        assert all(output.execution == how for how, output in found.items() if how != "auto")


def test_one_mask_for_all_may_run_each_alone() -> None:
    mask = random_mask(ANATOMY, seed=1)
    alone, shared = SUB(INPUTS, mask, "each"), SUB(INPUTS, mask)
    torch.testing.assert_close(alone.logits, shared.logits, atol=1e-5, rtol=0)


def test_units_are_split_by_what_gathering_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "GATHER_SAVES", 3)
    monkeypatch.setattr(together, "GATHER_COSTS", 0.0)
    tokens = Tokens.of(torch.ones(3, 2, dtype=torch.bool))
    kept = torch.tensor([[True, True, True, False], [True, True, False, False], [True, False, False, False]])
    part = SUB.packed[0].attention
    split = Split.of(part, kept, tokens, gather=True)
    assert split.shared == ((0, 2),)
    assert [(unit, rows.tolist()) for unit, rows in split.some] == [(2, [0, 1])]
    assert split.union == (True, True, True, False)
    assert split.gates is not None
    assert split.gates[:, 1].tolist() == [1, 1, 1, 1, 0, 0]
    everything = Split.of(part, torch.ones(3, 4, dtype=torch.bool), tokens, gather=True)
    assert (everything.shared, everything.some, everything.gates) == (((0, 4),), (), None)


@pytest.mark.parametrize("kind", ["layerwise", "oneshot", "constant"])
def test_a_router_decides_for_a_batch_as_for_each_input(kind: str) -> None:
    router = some_router(kind)
    batch, single = BatchPlanner(router, 0.5), Planner(router, 0.5)
    logits = run_together(SUB, INPUTS, batch)
    for row in range(5):
        alone = SUB.run(one(INPUTS, row), single)[0]
        torch.testing.assert_close(logits[row], alone, atol=1e-5, rtol=0)
        assert torch.equal(batch.mask[row].heads, single.mask.heads)
        assert torch.equal(batch.mask[row].blocks, single.mask.blocks)
        torch.testing.assert_close(batch.logits[row], single.logits, atol=1e-4, rtol=1e-4)
    assert (len(batch.mask.groups()) > 1) == (kind != "constant")


def test_a_routed_batch_of_the_pruner() -> None:
    pruner = DynamicPruner(SUB, some_router(), keep=0.5)
    batch = pruner(INPUTS)
    torch.testing.assert_close(SUB(INPUTS, batch.mask, "each").logits, batch.logits, atol=1e-5, rtol=0)
    assert batch.groups == len(batch.mask.groups()) > 1
    assert batch.timings.score > 0


def test_left_padding() -> None:
    anatomy = toy_anatomy(MODEL)
    inputs = toy_inputs(MODEL, [4, 9, 1], extra=2, left=True)
    mask = random_mask(anatomy, 3, seed=2)
    found = [SubNetwork(anatomy)(inputs, mask, how).logits for how in ("together", "each")]
    torch.testing.assert_close(*found, atol=1e-5, rtol=0)


def test_an_unknown_execution() -> None:
    with pytest.raises(LabError, match=r"execution='fast'.*auto, together, union, groups, each"):
        SUB(INPUTS, Mask.full(ANATOMY, 5), "fast")  # type: ignore[arg-type]
