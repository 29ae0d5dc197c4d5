"""Tokens that data lack: rows of a table which no sample looks up.

A network of tokens sees of its table only the rows that data name. What is fitted to few of them
may lose all others, and data of the same few tokens do not show it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..data import Array
from ..model import Model
from .feed_values import values_of

#: Fewest rows of a table of tokens; smaller ones are of kinds, positions, yes and no.
TABLE = 64
#: Part of a table's rows from which on the data know it.
KNOWN = 0.5
#: Part of the samples from which on a token that they have stays, as those of beginning and end.
MARK = 0.5


@dataclass(frozen=True)
class OtherTokens:
    """Inputs whose tokens are rows of tables that the data know a small part of.

    Attributes:
        ranges: least token and number of tokens, by input.
        seen: number of tokens that the data have, by input.
        marks: tokens that most samples have and that stay, by input.
    """

    ranges: Mapping[str, tuple[int, int]]
    seen: Mapping[str, int]
    marks: Mapping[str, Array]

    @classmethod
    def of(cls, model: Model, batches: Sequence[Mapping[str, Array]]) -> OtherTokens:
        """Find these inputs; there are none where the data know most rows."""
        ranges, seen, marks = {}, {}, {}
        for name, values in values_of(model).items():
            fed = [batch[name] for batch in batches if name in batch]
            size = values.high - values.low
            table = values.kind == "integers" and values.like is None and size >= TABLE
            if not table or not fed or any(a.dtype.kind not in "iu" or not a.ndim for a in fed):
                continue
            tokens = np.concatenate([a.reshape(-1) for a in fed])
            distinct = np.unique(tokens)
            if len(distinct) < KNOWN * size:
                ranges[name], seen[name] = (values.low, size), len(distinct)
                marks[name] = _marks(fed, distinct)
        return cls(ranges, seen, marks)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def put_into(self, feeds: Mapping[str, Array], seed: int) -> dict[str, Array]:
        """Return feeds in which each token has become another, drawn from the whole table."""
        rng, changed = np.random.default_rng(seed), dict(feeds)
        for name, (low, size) in self.ranges.items():
            if name in feeds:
                tokens = feeds[name]
                drawn = rng.integers(low, low + size, tokens.shape).astype(tokens.dtype)
                changed[name] = np.where(np.isin(tokens, self.marks[name]), tokens, drawn)
        return changed


def _marks(fed: Sequence[Array], distinct: Array) -> Array:
    """Return the tokens that most rows have."""
    rows = [row.reshape(-1) for array in fed for row in array]
    counts = np.zeros(len(distinct))
    for row in rows:
        counts[np.searchsorted(distinct, np.unique(row))] += 1
    return np.asarray(distinct[counts > MARK * len(rows)])
