"""Rows as runs of their own, for inputs without an axis for the batch, and for whole feeds."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from ..data import Batch, Rows, Source


class RunSource(Source):
    """Rows of another source, each a run of its own.

    Args:
        rows: the other source.
        whole: arrays that hold a whole input for each row: (rows, 4, 1, 64) for one of (4, 1, 64).
    """

    batched = True

    def __init__(self, rows: Source, whole: Collection[str]) -> None:
        self.rows, self.whole = rows, whole
        self.constants, self.advice = rows.constants, rows.advice

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.rows.count

    @property
    def identity(self) -> str:
        """Identity of the rows."""
        return self.rows.identity

    def name_of(self, row: int) -> str:
        """Return what people call the row at a position."""
        return self.rows.name_of(row)

    def read(self, rows: Rows, batch: int) -> Iterator[Batch]:  # noqa: ARG002 - a row a run
        """Yield the rows one by one; first the arrays that tell the size of the batch."""
        for found in self.rows.read(rows, 1):
            part = {name: a for name, a in found.feeds.items() if name not in self.whole}
            whole = {name: np.asarray(found.feeds[name][0]) for name in self.whole}
            yield Batch(part | whole, found.labels, alone=not part)
