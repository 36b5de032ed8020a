"""What one head attends to: a heat map of tokens by tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dsgp_lab.errors import LabError
from dsgp_lab.views.chart import Axis, Cells, Chart, Plot, Scale
from dsgp_lab.views.style import Array, finite, percent, sentence, shorten
from dsgp_lab.views.view import View, make_view

LONGEST_LABEL = 12


def attention_map(
    weights: Any,
    tokens: Sequence[str],
    *,
    layer: int,
    head: int,
    title: str | None = None,
    max_tokens: int = 32,
) -> View:
    """Draw the attention of one head, weights [query, key]: each row is one token looking at all the others.

    Queries run top to bottom and keys left to right, as one reads. A text of more than `max_tokens` tokens is
    drawn in spans of neighbouring tokens, and the figure says so: a row then is the mean of its queries, a
    cell the sum over its keys, so that every row still sums to what it summed to.
    """
    values = finite(weights, 2, "attention weights")
    if values.shape != (len(tokens), len(tokens)):
        raise LabError(
            got=f"attention weights of shape {list(values.shape)} and {len(tokens)} tokens",
            allowed="one row and one column for each token",
            hint="pass the tokens of the same input, special tokens included, padding cut off",
        )
    received = values.mean(0)
    grouped, labels = in_spans(values, tokens, max_tokens)
    span = -(-len(tokens) // max_tokens)
    notice = (
        f"{len(tokens)} tokens drawn in spans of {span}: mean of queries, sum over keys." if span > 1 else ""
    )
    title = f"What head {head} of layer {layer} attends to" if title is None else title
    count = len(labels)
    names = labels if span > 1 else tuple(f"{number} {label}" for number, label in enumerate(labels))
    ticks = tuple(float(number) for number in range(count))
    cells = Cells(
        grouped,
        names,
        names,
        Scale(0.0, max(float(grouped.max()), 1e-6), False, "share of attention"),
        hover=("from %{y}", "to %{x}", "%{z:.1%}"),
    )
    plot = Plot(
        "",
        Axis("looks at (key)", (-0.5, count - 0.5), ticks, labels, upright=True),
        Axis("token (query)", (count - 0.5, -0.5), ticks, labels),
        (cells,),
    )
    top = np.argsort(-received, kind="stable")[:3]
    facts = [
        "Most attended: " + ", ".join(f"{tokens[i]} ({percent(float(received[i]))} on average)" for i in top),
        f"On itself: {percent(float(np.diag(values).mean()))} on average",
        *([notice] if notice else []),
    ]
    height = int(np.clip(22 * count, 150, 560))
    alt = f"{sentence(title)} Heat map of {len(tokens)} by {len(tokens)} tokens."
    return make_view(Chart(shorten(title, 70), ((plot,),), (height,), notice), alt, facts)


def in_spans(values: Array, tokens: Sequence[str], most: int) -> tuple[Array, tuple[str, ...]]:
    """Join neighbouring tokens so that at most `most` spans remain: mean over queries, sum over keys.

    values: [query, key]. Returns ([spans, spans], labels).

    >>> joined, labels = in_spans(np.full((4, 4), 0.25), ["a", "b", "c", "d"], 2)
    >>> joined.tolist(), labels
    ([[0.5, 0.5], [0.5, 0.5]], ('0-1 a', '2-3 c'))
    """
    size = -(-len(tokens) // most)
    if size == 1:
        return values, tuple(shorten(token, LONGEST_LABEL) for token in tokens)
    starts = list(range(0, len(tokens), size))
    sums = np.add.reduceat(np.add.reduceat(values, starts, axis=0), starts, axis=1)
    counts = np.diff([*starts, len(tokens)])
    spans = [tokens[start : start + size] for start in starts]
    last = [start + len(span) - 1 for start, span in zip(starts, spans, strict=True)]
    labels = tuple(f"{a}-{b} {span[0]}" for a, b, span in zip(starts, last, spans, strict=True))
    return sums / counts[:, None], tuple(shorten(label, LONGEST_LABEL + 3) for label in labels)
