"""How far a pruned model's output is from the dense one's, input by input."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import kl_div, mse_loss


def output_distance(pruned: Tensor, dense: Tensor) -> Tensor:
    """Divergence of the pruned from the dense class probabilities, per input [batch]; KL(dense || pruned).

    One logit (regression): the squared difference.

    >>> import torch
    >>> output_distance(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 1.0]])).tolist()
    [0.0]
    """
    if pruned.shape[1] == 1:
        return mse_loss(pruned, dense, reduction="none")[:, 0]
    logs = pruned.log_softmax(1), dense.log_softmax(1)
    return kl_div(*logs, log_target=True, reduction="none").sum(1)
