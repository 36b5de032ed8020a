"""Scalars that stand for "the output", one per input: what a gradient is taken of."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, logsigmoid, mse_loss

from dsgp_lab.anatomy import Inputs
from dsgp_lab.errors import LabError

TargetName = Literal["margin", "log_probability", "loss", "prompt_loss"]


def margin(logits: Tensor, chosen: Tensor | None = None) -> Tensor:
    """Logit of the chosen class (default: the predicted one) minus the best other logit [batch].

    For regression (one logit) it is the output itself.

    >>> import torch
    >>> margin(torch.tensor([[1.0, 3.0, 0.5], [2.0, 0.0, 1.0]])).tolist()
    [2.0, 1.0]
    """
    if logits.shape[1] == 1:
        return logits[:, 0]
    chosen = logits.argmax(1) if chosen is None else chosen
    mine = logits.gather(1, chosen[:, None])[:, 0]
    others = logits.scatter(1, chosen[:, None], float("-inf"))
    return mine - others.max(1).values


def label_margin(logits: Tensor, chosen: Tensor | None = None) -> Tensor:
    """For multi-label models: every label's distance from its own threshold, logit 0, summed up [batch].

    A label that is chosen counts with its logit, the others with their logit negated. chosen [batch, labels],
    bool; by default what is predicted, so that the sum is that of the absolute logits.

    >>> import torch
    >>> label_margin(torch.tensor([[2.0, -1.0]])).tolist()
    [3.0]
    >>> label_margin(torch.tensor([[2.0, -1.0]]), torch.tensor([[True, True]])).tolist()
    [1.0]
    """
    chosen = logits > 0 if chosen is None else chosen
    return logits.where(chosen, -logits).sum(1)


def prompt_loss(logits: Tensor, inputs: Inputs) -> Tensor:
    """Mean negative log-likelihood of each prompt's own tokens, in nats, the first one left out [batch].

    logits [batch, tokens, vocabulary]; padding on either side. A prompt of one token has loss 0.
    """
    real = inputs["attention_mask"].bool()
    both = real[:, 1:] & real[:, :-1]
    losses = cross_entropy(logits[:, :-1].transpose(1, 2), inputs["input_ids"][:, 1:], reduction="none")
    return (losses * both).sum(1) / both.sum(1).clamp(min=1)


def target_value(
    name: TargetName, logits: Tensor, labels: Tensor | None, multi_label: bool = False
) -> Tensor:
    """The scalar of each input [batch].

    With `multi_label`, margin is `label_margin`, log_probability that of the predicted set of labels, and
    loss the binary cross-entropy against `labels` [batch, labels].

    margin: see `margin`. log_probability: of the predicted class; saturates on confident inputs.
    loss: cross-entropy (regression: squared error) against `labels`. prompt_loss: see `prompt_loss`, which
    takes the logits of every token.
    """
    if name not in get_args(TargetName):
        raise LabError(
            got=f"target={name!r}",
            allowed=", ".join(get_args(TargetName)),
            hint="margin is the usual choice",
        )
    if name == "prompt_loss":
        raise LabError(
            got="target='prompt_loss' for a classifier",
            allowed="language models, which predict their own input",
            hint="use target='margin'",
        )
    if multi_label and name != "loss":
        return label_margin(logits) if name == "margin" else logsigmoid(logits.abs()).sum(1)
    if name == "margin" or (name == "log_probability" and logits.shape[1] == 1):
        return margin(logits)
    if name == "log_probability":
        return logits.log_softmax(1).max(1).values
    if labels is None:
        raise LabError(
            got="target='loss' without labels",
            allowed="labels [batch] with this target",
            hint="pass labels, or use target='margin', which needs none",
        )
    if multi_label:
        wanted = labels.to(logits.dtype)
        return binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(1)
    if logits.shape[1] == 1:
        return mse_loss(logits[:, 0], labels.to(logits.dtype), reduction="none")
    return cross_entropy(logits, labels.long(), reduction="none")
