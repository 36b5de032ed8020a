"""Gallery: the masks of many inputs beside each other, sorted so that patterns show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dsgp_lab.errors import LabError
from dsgp_lab.mask import Mask
from dsgp_lab.report import Report, Reported

if TYPE_CHECKING:
    from dsgp_lab.results import Text
    from dsgp_lab.views.view import View

Colour = Literal["label", "length", "tag"]
NEARLY = 0.95
"""A unit that at least this share of the inputs runs counts as always kept; at most the rest, never kept."""

MOST = 400
"""Inputs of one gallery: more could not be told apart in a figure."""


@dataclass(frozen=True, eq=False, repr=False)
class Gallery(Reported):
    """Masks of many inputs under one budget.

    mask: batch of the inputs; lengths [inputs] in tokens; labels: what the dense model predicts, as text;
    tags: what the inputs are about, () where nobody said.
    """

    texts: tuple[Text, ...]
    mask: Mask
    lengths: tuple[int, ...]
    labels: tuple[str, ...]
    keep: float
    scorer: str
    tags: tuple[str, ...] = ()

    @property
    def units(self) -> np.ndarray[Any, Any]:
        """Which units run: bool [inputs, units], heads layer by layer, then blocks."""
        flat = [self.mask.heads.flatten(1), self.mask.blocks.flatten(1)]
        return np.concatenate([part.cpu().numpy() for part in flat], axis=1)

    @property
    def shares(self) -> np.ndarray[Any, Any]:
        """For every unit the share of inputs that run it [units]."""
        return np.asarray(self.units.mean(0))

    @property
    def always(self) -> int:
        """Units that nearly every input runs (`NEARLY`)."""
        return int((self.shares >= NEARLY).sum())

    @property
    def never(self) -> int:
        """Units that hardly an input runs."""
        return int((self.shares <= 1 - NEARLY).sum())

    @property
    def specific(self) -> int:
        """The other units: some inputs run them, others do not."""
        return len(self.shares) - self.always - self.never

    def order(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Inputs by likeness of their masks, units from always to never kept: two lists of positions.

        Inputs are joined by average linkage on the Jaccard distance of their masks, neighbours alike.
        """
        return similar_first(self.units), np.argsort(-self.shares, kind="stable")

    def view(self, colour: Colour = "label") -> View:
        """The figure: a row for each input, a column for each unit; colour names the strip beside it."""
        from dsgp_lab.views.gallery import gallery_map

        rows, columns = self.order()
        names = [text if isinstance(text, str) else " / ".join(text) for text in self.texts]
        return gallery_map(
            self.units[rows][:, columns],
            [names[row] for row in rows],
            [self._unit_name(int(column)) for column in columns],
            [self._strip(colour)[row] for row in rows],
            strip_name=colour,
            borders=(self.always, len(columns) - self.never),
            title=f"{len(self.texts)} masks at {self.keep:.0%}".replace("%", " %"),
        )

    def save(self, path: str) -> Any:
        """Write the figure, as .png, .svg or .html."""
        return self.view().save(path)

    def report(self) -> Report:
        """How many units are kept always, never, or by some."""
        total = len(self.shares)

        def row(name: str, heads: int, blocks: int) -> tuple[str, str, str, str]:
            return name, str(heads), str(blocks), f"{100 * (heads + blocks) / total:.0f} %"

        number = self.mask.heads[0].numel()
        kinds = [
            (part >= NEARLY, (part < NEARLY) & (part > 1 - NEARLY), part <= 1 - NEARLY)
            for part in (self.shares[:number], self.shares[number:])
        ]
        rows = (
            row("nearly every input runs", *(int(kind[0].sum()) for kind in kinds)),
            row("some inputs run", *(int(kind[1].sum()) for kind in kinds)),
            row("hardly an input runs", *(int(kind[2].sum()) for kind in kinds)),
        )
        return Report(
            f"{len(self.texts)} masks, budget {self.keep:g}, {self.scorer}",
            rows,
            ("units that", "heads", "blocks", "of all"),
            (
                f"Nearly: {NEARLY:.0%} or more. Different masks: {len(self.mask.groups())}.".replace(
                    "%", " %"
                ),
            ),
        )

    def _strip(self, colour: Colour) -> Sequence[str | int]:
        strips: dict[str, Sequence[str | int]] = {
            "label": self.labels,
            "length": self.lengths,
            "tag": self.tags,
        }
        if colour not in strips or len(strips[colour]) != len(self.texts):
            allowed = [name for name, strip in strips.items() if len(strip) == len(self.texts)]
            raise LabError(
                got=f"colour={colour!r}",
                allowed=", ".join(allowed),
                hint="tags come with lab.gallery(..., tags)",
            )
        return strips[colour]

    def _unit_name(self, position: int) -> str:
        layers, heads = self.mask.heads.shape[1:]
        if position < layers * heads:
            return f"layer {position // heads}, head {position % heads}"
        position -= layers * heads
        blocks = self.mask.blocks.shape[2]
        return f"layer {position // blocks}, block {position % blocks}"


def similar_first(units: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Positions of the rows of a bool array [inputs, units] so that similar rows are neighbours.

    >>> order = similar_first(np.array([[1, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1]], dtype=bool))
    >>> sorted(order[:2].tolist()), sorted(order[2:].tolist())
    ([0, 2], [1, 3])
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import pdist

    if len(units) < 3:
        return np.arange(len(units))
    distance = pdist(units, "jaccard")
    return np.asarray(leaves_list(linkage(distance, "average", optimal_ordering=True)))
