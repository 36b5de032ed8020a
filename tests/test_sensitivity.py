"""Every scorer against its formula written out in loops, input by input, unit by unit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from toys import (
    count_macs,
    make_model,
    one,
    toy_anatomy,
    toy_config,
    toy_inputs,
    toy_model,
)

from dsgp_lab import Anatomy, CostModel, LabError, Mask, Sensitivity, SubNetwork, gated, make_scorer
from dsgp_lab.gates import Gates
from dsgp_lab.sensitivity import (
    SCORERS,
    ActivationNorm,
    Constant,
    FirstOrder,
    Fisher,
    Flap,
    LeaveOneOut,
    Random,
    Scorer,
    UnitScores,
    WandaSp,
    lengths,
)
from dsgp_lab.sensitivity.targets import margin, target_value

MODEL = toy_model("bert")
ANATOMY = toy_anatomy(MODEL)
INPUTS = toy_inputs(MODEL, [9, 3, 12], extra=1)
LABELS = torch.tensor([2, 0, 1])
LAYERS, HEADS, BLOCKS, NEURONS, SIZE, WIDTH = 3, 4, 6, 48, 8, 8


class Seen:
    """What enters the output projections for one input alone: contexts and activations [tokens, channels]."""

    def __init__(self, row: int, model: Any = MODEL, anatomy: Anatomy = ANATOMY) -> None:
        self.contexts: list[Tensor] = []
        self.activations: list[Tensor] = []
        handles = []
        for layer in anatomy.layers:
            for module, store in (
                (layer.attention_out, self.contexts),
                (layer.ffn_out, self.activations),
            ):

                def hook(_: Any, args: tuple[Tensor], store: list[Tensor] = store) -> None:
                    args[0].retain_grad()
                    store.append(args[0])

                handles.append(module.register_forward_pre_hook(hook))
        self.logits = model(**one(INPUTS, row)).logits[0]
        for handle in handles:
            handle.remove()

    def channels(self, part: str, layer: int) -> Tensor:
        """[tokens, channels] of this one input."""
        return (self.contexts if part == "heads" else self.activations)[layer][0]

    def gate_gradient(self, part: str, layer: int, columns: list[int]) -> float:
        """Sum over tokens and channels of value times gradient: the derivative by a common factor."""
        tensor = (self.contexts if part == "heads" else self.activations)[layer]
        return float(sum(tensor[0, :, j].detach() @ tensor.grad[0, :, j] for j in columns))


def columns_of(part: str, layer: int, unit: int) -> list[int]:
    """The channels that a head or a block owns."""
    if part == "heads":
        return list(range(unit * WIDTH, (unit + 1) * WIDTH))
    return ANATOMY.order[layer, unit * SIZE : (unit + 1) * SIZE].tolist()


def weight_of(part: str, layer: int) -> Tensor:
    parts = ANATOMY.layers[layer]
    return (parts.attention_out if part == "heads" else parts.ffn_out).weight.detach()


def assert_units(scores: Sensitivity, reference: Any, **tolerance: float) -> None:
    """`reference`(row, part, layer, columns) is the expected score of the unit that owns these channels."""
    assert scores.heads.shape == (3, LAYERS, HEADS)
    assert scores.blocks.shape == (3, LAYERS, BLOCKS)
    close = {"rel": 1e-3, "abs": 1e-4} | tolerance
    for row in range(3):
        for layer in range(LAYERS):
            for part, values in (("heads", scores.heads), ("blocks", scores.blocks)):
                for unit in range(values.shape[2]):
                    expected = reference(row, part, layer, columns_of(part, layer, unit))
                    assert float(values[row, layer, unit]) == pytest.approx(float(expected), **close)
            if scores.neurons is not None:
                for neuron in range(0, NEURONS, 5):
                    expected = reference(row, "blocks", layer, [neuron])
                    assert float(scores.neurons[row, layer, neuron]) == pytest.approx(
                        float(expected), **close
                    )
    assert scores.heads.std() > 1e-3
    assert scores.blocks.std() > 1e-3


def backward_of(target: Any) -> list[Seen]:
    """Each input run and differentiated alone; target(logits, row) is the scalar."""
    seen = [Seen(row) for row in range(3)]
    for row, run in enumerate(seen):
        target(run.logits, row).backward()
    MODEL.zero_grad()
    return seen


def top_gap(logits: Tensor, row: int) -> Tensor:
    first, second = logits.sort(descending=True).values[:2]
    return first - second


TARGETS = {
    "margin": top_gap,
    "log_probability": lambda logits, row: torch.log(logits.softmax(0).max()),
    "loss": lambda logits, row: -torch.log(logits.softmax(0)[LABELS[row]]),
}


@pytest.mark.parametrize("target", list(TARGETS))
@pytest.mark.parametrize("signed", [True, False])
def test_first_order(target: Any, signed: bool) -> None:
    seen = backward_of(TARGETS[target])
    scores = FirstOrder(target, signed)(ANATOMY, INPUTS, LABELS)

    def reference(row: int, part: str, layer: int, columns: list[int]) -> float:
        value = seen[row].gate_gradient(part, layer, columns)
        return value if signed else abs(value)

    assert_units(scores, reference)
    assert bool((scores.heads < 0).any()) == signed
    assert scores.neurons is not None
    assert bool((scores.neurons < 0).any()) == signed


def test_a_blocks_first_order_score_is_the_size_of_the_sum() -> None:
    """Not the sum of sizes: the block goes as one."""
    signed, absolute = FirstOrder(signed=True)(ANATOMY, INPUTS), FirstOrder()(ANATOMY, INPUTS)
    assert signed.neurons is not None
    torch.testing.assert_close(ANATOMY.into_blocks(signed.neurons).sum(-1), signed.blocks)
    torch.testing.assert_close(absolute.blocks, signed.blocks.abs())
    assert (ANATOMY.into_blocks(signed.neurons).abs().sum(-1) > absolute.blocks + 1e-4).any()


@pytest.mark.parametrize("labels", [LABELS, None])
def test_fisher(labels: Tensor | None) -> None:
    """Without labels, the predicted class stands in."""
    seen = backward_of(TARGETS["loss" if labels is not None else "log_probability"])

    def reference(row: int, part: str, layer: int, columns: list[int]) -> float:
        return seen[row].gate_gradient(part, layer, columns) ** 2

    assert_units(Fisher()(ANATOMY, INPUTS, labels), reference, abs=1e-5)


def test_activation_norm() -> None:
    seen = [Seen(row) for row in range(3)]

    def reference(row: int, part: str, layer: int, columns: list[int]) -> float:
        tokens = seen[row].channels(part, layer).detach()
        weight = weight_of(part, layer)
        norms = [sum(token[j] * weight[:, j] for j in columns).norm() for token in tokens]
        return float(sum(norms) / len(norms))

    assert_units(ActivationNorm()(ANATOMY, INPUTS), reference)


def test_wanda_sp() -> None:
    seen = [Seen(row) for row in range(3)]

    def reference(row: int, part: str, layer: int, columns: list[int]) -> float:
        tokens = seen[row].channels(part, layer).detach()
        weight = weight_of(part, layer)
        return sum(float(w.abs()) * float(tokens[:, j].norm()) for j in columns for w in weight[:, j])

    assert_units(WandaSp()(ANATOMY, INPUTS), reference)


def fluctuation(
    seen: list[Seen], means: dict[str, Tensor] | None, row: int, part: str, layer: int, columns: list[int]
) -> float:
    tokens = seen[row].channels(part, layer).detach()
    total = 0.0
    for j in columns:
        center = (
            tokens[:, j].mean()
            if means is None
            else means["heads" if part == "heads" else "neurons"][layer, j]
        )
        variance = float(((tokens[:, j] - center) ** 2).mean())
        total += variance * float((weight_of(part, layer)[:, j] ** 2).sum())
    return total


@pytest.mark.parametrize("fitted", [True, False])
def test_flap(fitted: bool) -> None:
    """Heads and blocks are standardised over their layer; neurons are left as they are."""
    seen = [Seen(row) for row in range(3)]
    scorer = Flap.fit(ANATOMY, [toy_inputs(MODEL, [5, 8], seed=9)]) if fitted else Flap()
    scores = scorer(ANATOMY, INPUTS)
    for row in range(3):
        for layer in range(LAYERS):
            for part, values in (("heads", scores.heads), ("blocks", scores.blocks)):
                raw = [
                    fluctuation(seen, scorer.means, row, part, layer, columns_of(part, layer, unit))
                    for unit in range(values.shape[2])
                ]
                mean = sum(raw) / len(raw)
                deviation = (sum((r - mean) ** 2 for r in raw) / len(raw)) ** 0.5
                expected = torch.tensor([(r - mean) / deviation for r in raw])
                torch.testing.assert_close(values[row, layer], expected, atol=1e-3, rtol=1e-3)
            assert scores.neurons is not None
            raw_neuron = fluctuation(seen, scorer.means, row, "blocks", layer, [4])
            assert float(scores.neurons[row, layer, 4]) == pytest.approx(raw_neuron, rel=1e-3)


def test_flap_means_are_those_of_all_real_tokens() -> None:
    """Over two padded batches of unlike sizes, every token counts once, padding not at all."""
    means = Flap.fit(ANATOMY, [_batch(INPUTS, [0, 1]), _batch(INPUTS, [2])]).means
    assert means is not None
    seen = [Seen(row) for row in range(3)]
    for part in ("heads", "neurons"):
        for layer in range(LAYERS):
            tokens = torch.cat([run.channels(part, layer) for run in seen]).detach()
            assert len(tokens) == 24
            torch.testing.assert_close(means[part][layer], tokens.mean(0), atol=1e-5, rtol=1e-4)


def _batch(inputs: dict[str, Tensor], rows: list[int]) -> dict[str, Tensor]:
    return {name: values[rows] for name, values in inputs.items()}


@pytest.mark.parametrize("labels", [1, 2, 3])
def test_leave_one_out_is_real_removal(labels: int) -> None:
    """Through the cut model, one unit away at a time."""
    model = toy_model("bert", labels)
    with torch.no_grad():  # near a tie, so that some removals change the winner
        model.classifier.bias -= model(**INPUTS).logits.mean(0)
    anatomy = toy_anatomy(model)
    sub, full = SubNetwork(anatomy), Mask.full(anatomy)
    scores = LeaveOneOut(rows=7)(anatomy, INPUTS)
    changed_winners = 0
    for row in range(3):
        alone = one(INPUTS, row)
        whole = sub.dense(alone)[0]
        chosen = int(whole.argmax())

        def gap(logits: Tensor, chosen: int = chosen) -> float:
            others = [float(value) for i, value in enumerate(logits) if i != chosen]
            return float(logits[chosen]) - max(others, default=0.0)

        for layer in range(LAYERS):
            for part, values in (("heads", scores.heads), ("blocks", scores.blocks)):
                for unit in range(values.shape[2]):
                    heads, blocks = full.heads.clone(), full.blocks.clone()
                    (heads if part == "heads" else blocks)[0, layer, unit] = False
                    without = sub(alone, Mask(heads, blocks)).logits[0]
                    changed_winners += int(without.argmax()) != chosen
                    drop = gap(whole) - gap(without)
                    assert float(values[row, layer, unit]) == pytest.approx(drop, abs=2e-5)
    assert (changed_winners > 0) == (labels > 1)
    assert (scores.heads < 0).any()
    absolute = LeaveOneOut(signed=False)(anatomy, INPUTS)
    torch.testing.assert_close(absolute.heads, scores.heads.abs(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(absolute.blocks, scores.blocks.abs(), atol=1e-5, rtol=1e-5)


def test_leave_one_out_agrees_with_first_order_on_a_nearly_linear_model() -> None:
    """With tiny output projections a unit's removal is its gradient: the two must meet there."""
    model = toy_model("bert")
    anatomy = toy_anatomy(model)
    with torch.no_grad():
        for layer in anatomy.layers:
            layer.attention_out.weight.mul_(1e-2)
            layer.ffn_out.weight.mul_(1e-2)
    removal = LeaveOneOut()(anatomy, INPUTS).flat()
    gradient = FirstOrder(signed=True)(anatomy, INPUTS).flat()
    assert float(F.cosine_similarity(removal, gradient).min()) > 0.99


def test_constant_is_the_mean_over_calibration_data() -> None:
    batches = [(_batch(INPUTS, [0, 1]), LABELS[:2]), (_batch(INPUTS, [2]), LABELS[2:])]
    constant = Constant.fit(ANATOMY, Fisher(), batches)
    each = Fisher()(ANATOMY, INPUTS, LABELS)
    torch.testing.assert_close(constant.heads, each.heads.mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(constant.blocks, each.blocks.mean(0), atol=1e-5, rtol=1e-4)
    assert constant.origin == "fisher"
    scores = constant(ANATOMY, toy_inputs(MODEL, [4, 6]))
    assert torch.equal(scores.heads, constant.heads.expand(2, -1, -1))
    assert torch.equal(scores.blocks, constant.blocks.expand(2, -1, -1))
    assert (scores.macs.tolist(), scores.oracle) == ([0, 0], False)
    with pytest.raises(LabError, match="no calibration batch"):
        Constant.fit(ANATOMY, Fisher(), [])


def test_random_is_determined_by_its_seed() -> None:
    first, again, other = Random(1), Random(1), Random(2)
    a, b = first(ANATOMY, INPUTS), first(ANATOMY, INPUTS)
    assert torch.equal(a.flat(), again(ANATOMY, INPUTS).flat())
    assert torch.equal(b.flat(), again(ANATOMY, INPUTS).flat())
    assert not torch.equal(a.flat(), b.flat())
    assert not torch.equal(a.flat(), other(ANATOMY, INPUTS).flat())
    assert len(a.flat().unique()) == a.flat().numel()
    assert not a.oracle
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first(ANATOMY, INPUTS)
    assert torch.equal(torch.rand(1), expected)  # torch's own random state is left alone


def test_gradient_of_distillation_against_own_logits_is_zero() -> None:
    """The trap: at the full model the loss is at its minimum, so it scores nothing; the margin does."""
    gates = Gates.ones(ANATOMY, 3)
    with torch.no_grad():
        teacher = MODEL(**INPUTS).logits
    with gated(ANATOMY, gates):
        student = MODEL(**INPUTS).logits
    losses = (
        F.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="sum"),
        F.mse_loss(student, teacher, reduction="sum"),
    )
    for loss in losses:
        gradients = torch.autograd.grad(loss, [gates.heads, gates.neurons], retain_graph=True)
        assert max(float(gradient.abs().max()) for gradient in gradients) < 1e-5
    useful = torch.autograd.grad(margin(student).sum(), gates.heads)[0]
    assert float(useful.abs().max()) > 0.1


def test_targets_by_hand() -> None:
    logits = torch.tensor([[1.0, 3.0, 0.5], [2.0, 0.0, 1.0]])
    assert margin(logits).tolist() == [2.0, 1.0]
    assert margin(logits, torch.tensor([0, 2])).tolist() == [-2.0, -1.0]
    assert margin(torch.tensor([[0.3], [-0.3]])).tolist() == pytest.approx([0.3, -0.3])
    probabilities = logits.softmax(1)
    expected = probabilities.max(1).values.log()
    torch.testing.assert_close(target_value("log_probability", logits, None), expected)
    chosen = torch.tensor([2, 0])
    expected = -probabilities[torch.arange(2), chosen].log()
    torch.testing.assert_close(target_value("loss", logits, chosen), expected)
    regression = torch.tensor([[3.0], [1.0]])
    assert target_value("loss", regression, torch.tensor([1.0, 1.5])).tolist() == [4.0, 0.25]
    assert target_value("log_probability", regression, None).tolist() == [3.0, 1.0]


def test_loss_needs_labels() -> None:
    with pytest.raises(LabError, match=r"target='loss' without labels\. Allowed: labels \[batch\]"):
        FirstOrder("loss")(ANATOMY, INPUTS)


def test_unknown_target_and_scorer() -> None:
    with pytest.raises(LabError, match=r"target='logit'\. Allowed: margin, log_probability, loss"):
        FirstOrder("logit")(ANATOMY, INPUTS)  # type: ignore[arg-type]
    for wrong in ("first order", "", None, 3, FirstOrder, ["random"]):
        with pytest.raises(LabError, match=r"Got scorer=.*Allowed: activation_norm, .*wanda_sp"):
            make_scorer(wrong)  # type: ignore[arg-type]


def wide_model() -> Any:
    config = toy_config("bert", 384, 12, intermediate_size=1536, max_position_embeddings=160)
    return make_model(config, num_labels=2)


@pytest.mark.parametrize("name", sorted(set(SCORERS) - {"random"}))
def test_a_scorers_macs_are_those_computed(name: str) -> None:
    """By torch's counter, forward and backward, at a realistic width."""
    model = wide_model()
    anatomy, scorer = toy_anatomy(model, 128), make_scorer(name)
    inputs = toy_inputs(model, [25])
    counted = count_macs(lambda: scorer(anatomy, inputs))
    stated = float(scorer(anatomy, inputs).macs[0])
    assert counted == pytest.approx(stated, rel=0.05)
    if name == "first_order":
        assert 1.9 < stated / CostModel.of(anatomy).dense(25) < 2.2


def test_every_input_pays_for_its_own_length() -> None:
    cost = CostModel.of(ANATOMY)
    for name in SCORERS:
        scorer = make_scorer(name)
        scores = scorer(ANATOMY, INPUTS)
        assert scores.macs.tolist() == [scorer.macs(cost, n) for n in (9, 3, 12)]
        assert scores.scorer == name == scorer.name
        assert scores.seconds > 0
    assert lengths(INPUTS).tolist() == [9, 3, 12]


def test_only_random_and_constant_are_product_paths() -> None:
    assert {name for name, scorer in SCORERS.items() if not scorer.oracle} == {"random"}
    assert not Constant.oracle


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_scores_do_not_depend_on_what_gradients_are_allowed(name: str) -> None:
    expected = make_scorer(name)(ANATOMY, INPUTS).flat()
    assert not expected.requires_grad
    with torch.no_grad():
        assert torch.equal(make_scorer(name)(ANATOMY, INPUTS).flat(), expected)
    with torch.inference_mode():
        inputs = toy_inputs(MODEL, [9, 3, 12], extra=1)
        assert torch.equal(make_scorer(name)(ANATOMY, inputs).flat(), expected)


@pytest.mark.parametrize("name", sorted(set(SCORERS) - {"random"}))
def test_a_model_with_nan_weights_is_refused(name: str) -> None:
    model = toy_model("bert")
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight[0, 0] = float("nan")
    with pytest.raises(LabError, match=rf"scores of \w+ with NaN or infinity from scorer '{name}'"):
        make_scorer(name)(Anatomy.of(model), INPUTS)


def test_sensitivity_rows_and_stack() -> None:
    scores = FirstOrder()(ANATOMY, INPUTS)
    assert len(scores) == 3
    assert scores.flat().shape == (3, 3 * (4 + 6))
    assert torch.equal(scores[-1].heads, scores.heads[2:])
    again = Sensitivity.stack([scores[0], scores[1:]])
    assert again.neurons is not None
    assert scores.neurons is not None
    assert torch.equal(again.flat(), scores.flat())
    assert torch.equal(again.neurons, scores.neurons)
    assert torch.equal(again.macs, scores.macs)
    assert repr(scores) == "Sensitivity by first_order (an oracle): 3 x 3 layers x (4 heads + 6 blocks)"
    without = LeaveOneOut()(ANATOMY, INPUTS)
    assert without.neurons is None
    assert without[0].neurons is None


def test_scores_of_the_wrong_shape() -> None:
    with pytest.raises(LabError, match=r"scores of heads of shape \[3, 4\].*\[batch, layers, heads\]"):
        Sensitivity(torch.ones(3, 4), torch.ones(1, 3, 6), "toy", torch.zeros(1))
    with pytest.raises(LabError, match="scores of blocks with NaN or infinity from scorer 'toy'"):
        Sensitivity(torch.ones(1, 3, 4), torch.full((1, 3, 6), torch.inf), "toy", torch.zeros(1))


def test_a_scorer_of_ones_own() -> None:
    class Even(Scorer):
        """All units alike."""

        name = "even"

        def unit_scores(self, anatomy: Anatomy, inputs: Any, labels: Tensor | None) -> UnitScores:
            batch = len(inputs["input_ids"])
            return UnitScores(torch.ones(batch, LAYERS, HEADS), torch.ones(batch, LAYERS, BLOCKS))

        def macs(self, cost: CostModel, length: int) -> int:
            return length

    assert make_scorer(own := Even()) is own
    assert own(ANATOMY, INPUTS).macs.tolist() == [9, 3, 12]
