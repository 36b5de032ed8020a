"""Routers taught live: repeatable, the model left as it was, mistakes named; the figure of their logs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dsgp_lab import LabError, Mask, load_teaching
from dsgp_lab.evaluate.pruned import predict_pruned
from dsgp_lab.training.router_config import RouterConfig
from dsgp_lab.training.router_start import fresh_router
from dsgp_lab.training.teach import prepare, teach, varying_units
from dsgp_lab.views.training import line_chart

CONFIG = RouterConfig("sst2", steps=3, batch_size=4)


@pytest.fixture(scope="module")
def start(sst2):
    return prepare(sst2, load_teaching("sst2").where("short").take(range(8)))


def test_teaching_is_repeatable_and_leaves_the_model_alone(sst2, start):
    weights = {name: value.clone() for name, value in sst2.model.state_dict().items()}
    wanted = [parameter.requires_grad for parameter in sst2.model.parameters()]
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, second = teach(start, CONFIG), teach(start, CONFIG)
    assert torch.equal(torch.rand(1), expected)
    for name, value in first.router.state_dict().items():
        assert torch.equal(value, second.router.state_dict()[name]), name
    assert not torch.equal(first.router.bias, fresh_router(CONFIG, start).bias)
    assert all(torch.equal(weights[name], value) for name, value in sst2.model.state_dict().items())
    assert [parameter.requires_grad for parameter in sst2.model.parameters()] == wanted
    assert all(parameter.grad is None for parameter in sst2.model.parameters())


def test_a_log_reads_and_prints(start):
    taught = teach(start, replace(CONFIG, steps=26))
    steps, distance = taught.curve("distance")
    assert steps.tolist() == [25, 26]
    assert (distance > 0).all()
    assert "layerwise, 26 steps" in str(taught)
    assert "<table>" in taught._repr_html_()


def test_an_untrained_router_gives_one_mask(sst2, start):
    examples = load_teaching("sst2").where("negation").take(range(4))
    masks = predict_pruned(sst2.subnetwork, sst2.tokenizer, examples, fresh_router(CONFIG, start), 0.5).masks
    assert len(masks.groups()) == 1
    assert varying_units(masks) == 0


def test_units_that_nearly_all_or_nearly_none_keep_do_not_vary():
    heads = torch.zeros(100, 1, 4, dtype=torch.bool)
    for unit, count in enumerate((2, 3, 97, 98)):
        heads[:count, 0, unit] = True
    assert varying_units(Mask(heads, torch.ones(100, 1, 1, dtype=torch.bool))) == 2


def test_mistakes_are_named(sst2, start):
    with pytest.raises(LabError, match="of mnli for a model of 2 outputs"):
        prepare(sst2, load_teaching("mnli"))
    with pytest.raises(LabError, match="1 examples of sst2"):
        prepare(sst2, load_teaching("sst2").take([0]))
    with pytest.raises(LabError, match="regime='joint'"):
        teach(start, replace(CONFIG, regime="joint"))


def test_a_line_chart_draws_and_says_what_it_shows():
    x = np.arange(3)
    names = {"title": "Loss", "x_name": "step", "y_name": "divergence"}
    lines = line_chart({"a": (x, [3.0, 2.0, 1.0]), "b": (x, [1.0, 1.0, 1.0])}, from_zero=True, **names)
    assert lines.digest.splitlines() == [
        "Loss. Lines of divergence over step.",
        "a: 3 points between 1 and 3, first 3, last 1",
        "b: 3 points between 1 and 1, first 1, last 1",
    ]
    assert lines.figure.layout.yaxis.range[0] == 0
    assert len(lines.png()) > 1000
    points = line_chart({"<b>": (x, [1.0, 1.0, 1.0])}, joined=False, **names)
    assert {trace.mode for trace in points.figure.data} == {"markers"}
    assert points.figure.data[0].name == "&lt;b&gt;"
    with pytest.raises(LabError, match="3 x and 2 y of a"):
        line_chart({"a": (x, [1.0, 2.0])}, **names)
    with pytest.raises(LabError, match="no series"):
        line_chart({}, **names)
