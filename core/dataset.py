"""Datasets: named, re-iterable streams of feeds, never loaded whole."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .data import Array, Batch, Rows, Source
from .errors import DataError, OptionError
from .feeds import check_feeds, check_finite, check_rows, reads_missing, whole_inputs
from .model import Model, TensorSpec
from .sources.arrays import LABELS, ArraySource
from .sources.opening import StreamSource, open_source, split_states
from .sources.runs import RunSource
from .streams import Pair, StateLoop, StreamRow, following, state_pairs
from .timings import staged


@dataclass(frozen=True, repr=False)
class Dataset:
    """A named selection of the items of a source.

    Attributes:
        source: source of the items.
        spec: the source as a user names it: a path or `module:callable`.
        rows: positions of the selected items, None for all.
        batch: rows per batch where items are single rows.
        part: description of the selection, for lineage and messages.
        rename: an array's name in the source, and the input name it is fed by.
        axis: place at which an axis of size 1 is put into that array, None for nowhere.
        scalars: arrays of numbers that the source knows, by the name of an input.
        states: inputs that are states, each with the output that is fed back to it.
        stream: states that are fed back, once the dataset is bound to a model that has any.
        finite: whether a batch with NaN or infinity is refused when it is read.
        missing: whether NaN stands for a missing value, once bound to a model that reads it so.
    """

    source: Source
    spec: str
    rows: tuple[int, ...] | None = None
    batch: int = 64
    part: str = "all"
    rename: tuple[str, str] | None = None
    axis: int | None = None
    scalars: Mapping[str, Array] = field(default_factory=dict, compare=False, repr=False)
    states: tuple[Pair, ...] = ()
    stream: StateLoop | None = field(default=None, compare=False, repr=False)
    finite: bool = field(default=False, compare=False)
    missing: bool = field(default=False, compare=False)

    def __repr__(self) -> str:
        return f"<Dataset {self.spec}, {self.part}, {len(self)} items>"

    @classmethod
    def open(cls, spec: str | Path, *, batch: int = 64) -> Dataset:
        """Open a dataset by the name that the command line takes.

        Args:
            spec: an `.npz` file (arrays by input name, `labels` if there are any), a folder of
                `.npz` shards, of pictures or of recordings (see `Cutting`), a `.csv` of numbers
                (`rows.csv?labels=COLUMN`), or `module:callable`. Pictures are prepared as
                options behind a `?` say (see `Preprocess`), and have objects as labels where
                `labels` names a COCO file or a YOLO folder:
                `pictures/?resize=letterbox:640&labels=coco.json`. The option `state=INPUT=OUTPUT`
                of any of them names a state that is fed back, where names do not tell.
            batch: rows per batch.

        Raises:
            DataError: it does not exist, is empty, or its arrays differ in length.
        """
        name, states = split_states(str(spec))
        return cls(open_source(name), str(spec), batch=batch, states=states)

    @classmethod
    def of(cls, source: Any) -> Dataset:
        """Return the dataset that a user passes: itself, one to open, or arrays by input name.

        Raises:
            DataError: it cannot be used.
            OptionError: its type is not supported.
        """
        if isinstance(source, Dataset):
            return source
        if isinstance(source, str | Path):
            return cls.open(source)
        if isinstance(source, Mapping):
            arrays = {name: np.asarray(array) for name, array in source.items()}
            labels = arrays.pop(LABELS, None)
            return cls.of_arrays(arrays, labels)
        raise OptionError(
            f"data of type {type(source).__name__} cannot be used",
            hint="Give a Dataset, a path, or arrays by input name",
        )

    @classmethod
    def of_arrays(
        cls, feeds: Mapping[str, Array], labels: Array | None = None, *, batch: int = 64
    ) -> Dataset:
        """Make a dataset of arrays in memory: (N, ...) by input name, labels (N, ...)."""
        return cls(ArraySource(dict(feeds), labels, "arrays in memory"), "memory:", batch=batch)

    @classmethod
    def of_batches(cls, make: Callable[[], Iterable[Any]], name: str = "memory:") -> Dataset:
        """Make a dataset of whole batches: each call of `make` starts the same stream again.

        A batch is a mapping of arrays by input name, or a pair of such a mapping and labels.
        """
        return cls(StreamSource(make, name), name)

    def __len__(self) -> int:
        return self.source.count if self.rows is None else len(self.rows)

    def __iter__(self) -> Iterator[Batch]:
        if self.stream is not None:
            return self.stream.recorded(self.steps(), self.rows)
        batches = staged("reading data", self._read(self.positions, self.batch))
        return self._checked(batches) if self.finite else batches

    def _checked(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        row = 0
        for batch in batches:
            check_finite(batch, self.spec, row, self.row, missing=self.missing)
            row += batch.size
            yield batch

    def _read(self, rows: Rows, batch: int) -> Iterator[Batch]:
        for found in self.source.read(rows, batch):
            if self.rename is None:
                yield found
            else:
                old, new = self.rename
                feeds = {new if name == old else name: a for name, a in found.feeds.items()}
                if self.axis is not None:
                    feeds[new] = np.expand_dims(feeds[new], self.axis)
                yield replace(found, feeds={**feeds, **self.scalars})

    def steps(self) -> Iterator[StreamRow]:
        """Yield the rows of the sequences up to the last selected one of each, in order.

        A sequence is what the source says, all rows of arrays, or a batch of the user's of several
        rows; batches of one row each are one sequence.

        Raises:
            DataError: a row has NaN or infinity.
        """
        assert self.stream is not None
        positions = self.positions
        if self.source.batched and self._sequences:
            for number, batch in zip(positions, self._read(positions, 1), strict=True):
                for row in range(batch.size):
                    one = self.stream.cut(batch, row)
                    check_finite(one, self.spec, row)
                    yield StreamRow(int(number), row == 0, wanted=True, batch=one)
            return
        starts = [*self.source.starts, self.source.count]
        for start, end in itertools.pairwise(starts):
            inside = positions[(positions >= start) & (positions < end)]
            if not len(inside):
                continue
            rows, wanted = np.arange(start, inside[-1] + 1), set(inside.tolist())
            for row, batch in zip(rows.tolist(), self._read(rows, 1), strict=True):
                one = self.stream.cut(batch, 0)
                check_finite(one, self.spec, row)
                yield StreamRow(row, row == start, wanted=row in wanted, batch=one)

    @functools.cached_property
    def _sequences(self) -> bool:
        """True where batches of the user's are sequences."""
        return any(batch.size > 1 for batch in self._read(self.positions[:1], 1))

    def bind(self, model: Model) -> Dataset:
        """Check the items against the model's inputs; images get the name of its input.

        States that the data have no arrays of are fed back: the items are sequences then.

        Raises:
            DataError: names, types or shapes do not fit.
        """
        if not len(self):
            raise DataError("has no rows", where=self.spec, hint="Give at least one")
        bound = self._named(model)
        if bound.stream is None:
            bound = bound._streaming(model)  # noqa: SLF001 - of the same class
        if bound.stream is None:
            bound = bound._in_runs(model.inputs)  # noqa: SLF001 - of the same class
            bound = replace(bound, missing=reads_missing(model))
            if not bound.source.batched:
                check_rows(model.inputs, self.spec)
            for batch in bound.take(1).sized(1):
                check_feeds(model.inputs, batch, self.spec, self.source.advice)
            return bound
        first = next(bound.steps())
        states = [*(name for name, _ in bound.stream.pairs), *bound.stream.following]
        check_feeds([s for s in model.inputs if s.name not in states], first.batch, self.spec)
        return bound

    def _named(self, model: Model) -> Dataset:
        """Return the dataset with its nameless array under the name of the one input left."""
        source = self.source.of_inputs(model.inputs)
        if source is not self.source:
            return replace(self, source=source)._named(model)  # noqa: SLF001 - of the same class
        if not self.source.anonymous:
            return self
        specs = {spec.name: spec for spec in model.inputs}
        known = [name for name in specs if name in self.source.scalars] if len(specs) > 1 else []
        scalars = {name: _scalar(specs[name], self.source.scalars[name]) for name in known}
        left = [name for name in specs if name not in scalars]
        if len(left) > 1:
            states = dict(state_pairs(model, list(scalars), self.states, self.spec))
            left = [name for name in left if name not in states]
        if len(left) != 1:
            return self
        named = replace(self, rename=(self.source.anonymous, left[0]), scalars=scalars, axis=None)
        return replace(named, axis=_missing_axis(specs[left[0]], named))

    def _in_runs(self, inputs: Sequence[TensorSpec]) -> Dataset:
        """Return the rows as runs where arrays hold a whole input for each of them."""
        if self.source.batched:
            return self
        first = next(self._read(self.positions[:1], 1)).feeds
        whole = whole_inputs(inputs, first)
        return replace(self, source=RunSource(self.source, whole)) if whole else self

    def _streaming(self, model: Model) -> Dataset:
        """Return the dataset with the states of the model that are fed back, if there are any."""
        first = next(self._read(self.positions[:1], 1))
        asked = {name for name, _ in self.states}
        given = [name for name in first.feeds if name not in asked]
        pairs = state_pairs(model, given, self.states, self.spec)
        if not pairs:
            return self
        loop = StateLoop(model, pairs, self.spec, following(model, given, pairs))
        return replace(self, stream=loop)

    @property
    def positions(self) -> Rows:
        """Positions of the selected items in the source, ascending."""
        if self.rows is None:
            return np.arange(self.source.count)
        return np.asarray(self.rows, dtype=np.int64)

    def row(self, number: int) -> int:
        """Return the position in the source of the item with this number, counted from 0."""
        if self.source.batched:
            return number
        # A padded last batch repeats its last item.
        return int(self.positions[min(number, len(self) - 1)])

    @property
    def batches(self) -> int:
        """Number of batches of one iteration."""
        if self.stream is not None:
            return len(self)
        return len(self) if self.source.batched else -(-len(self) // self.batch)

    def sized(self, batch: int) -> Dataset:
        """Return the same items in batches of `batch` rows."""
        return replace(self, batch=batch)

    def take(self, count: int) -> Dataset:
        """Take at most `count` items, evenly spaced: files are often sorted by class or length."""
        if count >= len(self):
            return self
        chosen = self.positions[(np.arange(count) * len(self)) // count]
        return self.select(chosen, f"{self.part}, {count} evenly spaced")

    def split(self, parts: Mapping[str, float], *, seed: int = 0) -> dict[str, Dataset]:
        """Split into disjoint parts by name, with the given weights, at random from `seed`.

        Raises:
            DataError: there are fewer items than parts.
        """
        if len(self) < len(parts):
            raise DataError(
                f"{len(self)} items cannot make {len(parts)} parts",
                where=self.spec,
                hint="Give more data, or a dataset for each purpose",
            )
        order = np.random.default_rng(seed).permutation(self.positions)
        total = sum(parts.values())
        ends = np.round(np.cumsum([w / total for w in parts.values()]) * len(order)).astype(int)
        for i in range(len(ends)):  # no part stays empty
            ends[i] = min(max(ends[i], i + 1), len(order) - (len(ends) - 1 - i))
        starts = [0, *ends[:-1]]
        return {
            name: self.select(np.sort(order[a:b]), f"{name} (seed {seed})")
            for name, a, b in zip(parts, starts, ends, strict=True)
        }

    def select(self, rows: Rows, part: str) -> Dataset:
        """Select the items at these positions of the source, ascending."""
        return replace(self, rows=tuple(int(r) for r in rows), part=part)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the source's content and of the selection."""
        digest = hashlib.sha256(self.source.identity.encode())
        digest.update(self.positions.tobytes())
        digest.update(repr(self.states).encode() if self.states else b"")
        return digest.hexdigest()

    @property
    def has_labels(self) -> bool:
        """True where the first batch has labels."""
        return any(batch.labels is not None for batch in self.take(1))

    def overlaps(self, other: Dataset) -> bool:
        """Return whether both have an item in common, by content of source and position."""
        if self.source.identity != other.source.identity:
            return False
        return bool(np.intersect1d(self.positions, other.positions).size)

    def to_json(self) -> dict[str, Any]:
        """Describe the items so that `from_json` finds them again."""
        plain: dict[str, Any] = {"data": self.spec, "items": len(self), "part": self.part}
        if self.rows is not None:
            plain["rows"] = _ranges(self.rows)
        return plain | {"batch": self.batch, "digest": self.digest}

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | str) -> Dataset:
        """Open the dataset that `to_json` described.

        Raises:
            DataError: it cannot be found, or its content has changed.
        """
        if isinstance(value, str):
            return cls.open(value)
        if value["data"] == "memory:":
            raise DataError(
                "the recipe's data were arrays in memory",
                where="data",
                hint="Name data that can be opened again: a file or module:callable",
            )
        data = cls.open(value["data"], batch=value.get("batch", 64))
        if "rows" in value:
            data = data.select(np.array(_positions(value["rows"])), value.get("part", ""))
        if value.get("digest") not in {None, data.digest}:
            raise DataError(
                "holds other data than when the recipe was made",
                where=value["data"],
                hint="Restore the file, or remove `digest` from the recipe to accept it",
            )
        return data


def _scalar(spec: TensorSpec, value: int) -> Array:
    """Return a number in the type of an input, with its axes of size 1."""
    return np.full((1,) * len(spec.shape or ()), value, spec.dtype.numpy())


def _missing_axis(spec: TensorSpec, data: Dataset) -> int | None:
    """Return the place of the axis for channels that recordings do not have, None for nowhere."""
    shape = spec.shape
    if shape is None or not data.source.scalars:
        return None
    first = next(iter(data.take(1).sized(1)))
    if len(shape) != first.feeds[spec.name].ndim + 1:
        return None
    return len(shape) - 1 if shape[-1] == 1 and shape[1] != 1 else 1


def _ranges(rows: Sequence[int]) -> list[list[int]]:
    """Write positions as runs [first, last, step], so that regular selections stay readable."""
    runs: list[list[int]] = []
    for row in rows:
        if runs and (runs[-1][2] == 0 or row == runs[-1][1] + runs[-1][2]):
            runs[-1][2] = runs[-1][2] or row - runs[-1][1]
            runs[-1][1] = row
        else:
            runs.append([row, row, 0])
    return runs


def _positions(runs: Iterable[Sequence[int]]) -> list[int]:
    return [row for a, b, step in runs for row in range(a, b + 1, step or 1)]
