"""One order of the neurons of each layer, so that a block of neighbours is worth keeping or dropping whole.

Two ways: by importance (a block holds neurons of like importance) and by co-activation (a block
holds neurons that are active together). Both are permutations; the model computes the same.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from dsgp_lab.anatomy import Anatomy, Inputs
from dsgp_lab.gates import captured


def by_importance(neurons: Tensor) -> Tensor:
    """Neuron scores [layers, neurons] -> order [layers, neurons], the most important first.

    >>> by_importance(torch.tensor([[1.0, 3.0, 2.0]])).tolist()
    [[1, 2, 0]]
    """
    return neurons.argsort(dim=-1, descending=True, stable=True)


def by_coactivation(activations: Tensor) -> Tensor:
    """Activations [tokens, neurons] of one layer -> order [neurons], neurons that fire together side by side.

    Average-linkage clustering of the neurons by the correlation of their activations over tokens;
    the order is that of the leaves of the tree.

    >>> pattern = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    >>> order = by_coactivation(pattern[:, [0, 1, 0, 1]]).tolist()
    >>> sorted([sorted(order[:2]), sorted(order[2:])])
    [[0, 2], [1, 3]]
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    correlation = torch.corrcoef(activations.T.double()).nan_to_num(0.0).clamp(-1, 1)
    distance = 1 - (correlation + correlation.T) / 2
    distance.fill_diagonal_(0)
    tree = linkage(squareform(distance.numpy(), checks=False), method="average")
    return torch.from_numpy(leaves_list(tree)).long()


@torch.no_grad()
def coactivation_order(anatomy: Anatomy, batches: Iterable[Inputs]) -> Tensor:
    """The co-activation order of every layer [layers, neurons], from calibration batches."""
    collected: list[list[Tensor]] = [[] for _ in anatomy.layers]
    for inputs in batches:
        with captured(anatomy) as captures:
            anatomy.model(**inputs)
        real = inputs["attention_mask"].bool()
        for store, layer in zip(collected, captures.activations, strict=True):
            store.append(layer[real].cpu())
    return torch.stack([by_coactivation(torch.cat(store)) for store in collected])
