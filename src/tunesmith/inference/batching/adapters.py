"""Several adapters over one base: the rows of a step grouped by the adapter that answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from tunesmith.inference.batching.weights import Product

Place = tuple[int, str]
"""The number of a layer and the name of a product in it; (-1, "head") for the head."""
Pair = tuple[torch.Tensor, torch.Tensor]
"""The two matrices of an adapter."""


@dataclass(frozen=True)
class Deltas:
    """What one adapter adds to products.

    Attributes:
        pairs: down [in, ranks] and up [ranks, out] of each product it changes.
    """

    name: str
    pairs: dict[Place, Pair]


@dataclass
class Adapters:
    """The adapters that answer now."""

    by_name: dict[str, Deltas] = field(default_factory=dict)

    def group(self, models: Sequence[str], device: torch.device) -> Groups:
        """Group the tokens of a step.

        Args:
            models: the adapter of each, empty for the base; none at all if all are the base's.
        """
        if not models:
            return ALONE
        order = sorted(range(len(models)), key=models.__getitem__)
        spans: list[tuple[Deltas, int, int]] = []
        start = 0
        for name in dict.fromkeys(models[place] for place in order):
            stop = start + models.count(name)
            if name:
                spans.append((self.by_name[name], start, stop))
            start = stop
        if order == list(range(len(models))):
            return Groups(tuple(spans))
        places = torch.tensor(order, device=device)
        return Groups(tuple(spans), places, places.argsort())


@dataclass(frozen=True)
class Groups:
    """The tokens of a step, those of each adapter side by side.

    Attributes:
        spans: adapters, and from and up to which token they change products.
        order: which token of the step stands at each place; None if they stand in its order.
        back: the place of each token of the step.
    """

    spans: tuple[tuple[Deltas, int, int], ...] = ()
    order: torch.Tensor | None = None
    back: torch.Tensor | None = None

    def arrange(self, rows: torch.Tensor) -> torch.Tensor:
        """Put rows in the order of the step into that of the groups."""
        return rows if self.order is None else rows[self.order]

    def restore(self, rows: torch.Tensor) -> torch.Tensor:
        """Put rows back into the order of the step."""
        return rows if self.back is None else rows[self.back]

    def product(self, product: Product, rows: torch.Tensor, place: Place) -> torch.Tensor:
        """Multiply rows with a weight and what adapters add to it."""
        found = product(rows)
        for deltas, start, stop in self.spans:
            pair = deltas.pairs.get(place)
            if pair is not None:
                found[start:stop].addmm_(rows[start:stop] @ pair[0], pair[1])
        return found

    def select(
        self, rows: torch.Tensor, outputs: torch.Tensor | None
    ) -> tuple[torch.Tensor, Groups]:
        """Keep the rows of some tokens of the step, as groups."""
        if outputs is None:
            return rows, self
        if not self.spans:
            return rows[outputs], self
        where = outputs if self.back is None else self.back[outputs]
        sorted_places = where.argsort()
        places = where[sorted_places]
        bounds = torch.tensor(
            [bound for _, *span in self.spans for bound in span], device=places.device
        )
        cuts = torch.searchsorted(places, bounds).tolist()
        spans = tuple(
            (deltas, cuts[2 * number], cuts[2 * number + 1])
            for number, (deltas, _, _) in enumerate(self.spans)
        )
        return rows[places], Groups(spans, sorted_places, sorted_places.argsort())


ALONE = Groups()
