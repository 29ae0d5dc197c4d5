"""Arrays as data: in memory, mapped from files, and concatenated."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from ..data import Array, Batch, Rows, Source
from ..errors import DataError

LABELS = "labels"


class ArraySource(Source):
    """Arrays by input name, in memory or memory-mapped, with labels if there are any."""

    def __init__(
        self, feeds: Mapping[str, Array], labels: Array | None, where: str, identity: str = ""
    ) -> None:
        self.feeds, self.labels, self.where, self._identity = feeds, labels, where, identity
        counts = {name: len(a) for name, a in feeds.items() if a.ndim}
        self.constants = [name for name in feeds if name not in counts]
        if not counts:
            raise DataError(
                "has no array other than the labels", where=where, hint="Name arrays by input"
            )
        if labels is not None:
            counts[LABELS] = len(labels) if labels.ndim else 0
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise DataError(f"its arrays differ in their number of rows: {told}", where=where)
        self._count = next(iter(counts.values()))
        if not self._count:
            raise DataError("has no rows", where=where, hint="Give at least one")

    @property
    def count(self) -> int:
        """Number of rows."""
        return self._count

    def read(self, rows: Rows, batch: int) -> Iterator[Batch]:
        """Yield the rows batch by batch; what follows one another in a file is not copied."""
        for start in range(0, len(rows), batch):
            take = rows[start : start + batch]
            feeds = {n: _taken(a, take) if a.ndim else np.asarray(a) for n, a in self.feeds.items()}
            yield Batch(feeds, None if self.labels is None else np.asarray(self.labels[take]))

    @functools.cached_property
    def identity(self) -> str:
        """SHA-256 of names, types, shapes and bytes; that of the rows that were read from files."""
        return self._identity or digest_of([Batch(self.feeds, self.labels)])


def _taken(array: Array, rows: Rows) -> Array:
    """Return rows of an array; rows of a mapped file that follow one another are not copied.

    Those may not be written. What may be written is copied, and so is what begins in a file where
    no number may begin.
    """
    first, count = int(rows[0]), len(rows)
    fixed = array.flags.aligned and not array.flags.writeable
    if fixed and np.array_equal(rows, np.arange(first, first + count)):
        return np.asarray(array[first : first + count])
    return np.asarray(array[rows])


class ShardedSource(Source):
    """Concatenation of several sources of rows."""

    def __init__(self, shards: list[ArraySource]) -> None:
        self.shards = shards
        self.ends = np.cumsum([s.count for s in shards])
        names = set(shards[0].feeds)
        for shard in shards[1:]:
            if set(shard.feeds) != names:
                raise DataError(
                    f"has arrays {sorted(shard.feeds)}, the first shard {sorted(names)}",
                    where=shard.where,
                )

    @property
    def count(self) -> int:
        """Rows of all shards."""
        return int(self.ends[-1])

    def read(self, rows: Rows, batch: int) -> Iterator[Batch]:
        """Yield batches; none crosses the end of a shard."""
        for shard, end in zip(self.shards, self.ends, strict=True):
            start = end - shard.count
            yield from shard.read(rows[(rows >= start) & (rows < end)] - start, batch)

    @functools.cached_property
    def identity(self) -> str:
        """SHA-256 of the shards' identities."""
        return hashlib.sha256("".join(s.identity for s in self.shards).encode()).hexdigest()


def digest_of(batches: Iterable[Batch]) -> str:
    """Return the SHA-256 of names, types, shapes and bytes; mapped arrays are read in parts."""
    digest = hashlib.sha256()
    for batch in batches:
        arrays = dict(batch.feeds)
        if batch.labels is not None:
            arrays[LABELS] = batch.labels
        for name, array in sorted(arrays.items()):
            digest.update(f"{name}:{array.dtype}:{array.shape}".encode())
            rows = np.atleast_1d(array)
            for start in range(0, len(rows), 4096):
                digest.update(np.ascontiguousarray(rows[start : start + 4096]).tobytes())
    return digest.hexdigest()
