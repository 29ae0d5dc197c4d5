"""Streams: models whose states go from one step to the next, run over sequences of rows.

Data that hold no array for a state are sequences: the state is zero at the beginning of each and
fed back after every step. A calibration sees the states that the float model has; a candidate that
is judged is fed its own.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .data import Array, Batch
from .errors import DataError, RunError, unknown
from .model import Model, TensorSpec
from .ort.session import Feeds, Outputs, SessionConfig, build_session, run
from .text import shape_text

#: An input that is a state, and the output that is its value at the next step.
Pair = tuple[str, str]
#: Inputs that follow from the length of a cache: ones, and positions.
FOLLOWING = ("attention_mask", "position_ids")
#: Recorded states are kept up to this size, else computed anew.
KEPT_BYTES = 256 << 20
_BEFORE = frozenset({"in", "input", "past", "prev", "previous", "old", "init", "initial"})
_AFTER = frozenset(
    {"out", "output", "present", "next", "new", "n", "final", "last", "updated", "cur", "current"}
)


@dataclass(frozen=True)
class StreamRow:
    """One row of a sequence.

    Attributes:
        row: position of the row in the data.
        first: true at the beginning of a sequence, where states are zero.
        wanted: false of a row that is run only for the states after it.
        batch: arrays of the row, without the states.
    """

    row: int
    first: bool
    wanted: bool
    batch: Batch


@dataclass(frozen=True, eq=False)
class StateLoop:
    """States of a model that are fed back, and the model whose states are the true ones.

    Attributes:
        model: model that the data were bound to.
        pairs: inputs that are states, each with its output.
        where: name of the data.
        following: inputs of `FOLLOWING` that the data lack.
    """

    model: Model
    pairs: tuple[Pair, ...]
    where: str
    following: tuple[str, ...] = ()
    _started: dict[str, Array] = field(default_factory=dict)
    _recorded: dict[Any, list[Batch]] = field(default_factory=dict)

    def __str__(self) -> str:
        return "states fed back: " + ", ".join(f"{a}={b}" for a, b in self.pairs)

    def run(self, session: Any, steps: Iterable[StreamRow]) -> Iterator[tuple[StreamRow, Outputs]]:
        """Run a session over steps in order, and yield each that is wanted with its outputs.

        The batch of a yielded step has the states that the session was fed; the outputs are all.

        Raises:
            DataError: a state and its output differ in shape.
            RunError: onnxruntime refuses a step.
        """
        state: Mapping[str, Array] = {}
        for step in steps:
            if step.first or not state:
                state = self._start(session, step.batch)
            feeds = self._fed(step.batch.feeds, state)
            outputs = run(session, feeds)
            if step.wanted:
                yield replace(step, batch=Batch(feeds, step.batch.labels)), outputs
            state = {name: np.asarray(outputs[after]) for name, after in self.pairs}

    def cut(self, batch: Batch, row: int) -> Batch:
        """Return one row of a batch without its states, scalars as they are.

        A row that was saved as it is fed, its own batch axis included, loses the one in front.
        """
        states = {name for name, _ in self.pairs}
        ranks = {s.name: None if s.shape is None else len(s.shape) for s in self.model.inputs}
        feeds = {}
        for name, array in batch.feeds.items():
            if name not in states:
                doubled = array.ndim > 1 and array.ndim - 1 == ranks.get(name)
                feeds[name] = (
                    array[row] if doubled else array[row : row + 1] if array.ndim else array
                )
        return Batch(feeds, None if batch.labels is None else batch.labels[row : row + 1])

    def recorded(self, steps: Iterable[StreamRow], key: Any) -> Iterator[Batch]:
        """Yield the wanted steps with the states that the bound model has there."""
        if key in self._recorded:
            yield from self._recorded[key]
            return
        session = build_session(self.model, SessionConfig())
        kept: list[Batch] = []
        size = 0
        for step, _ in self.run(session, steps):
            size += sum(step.batch.feeds[name].nbytes for name, _ in self.pairs)
            if size < KEPT_BYTES:
                kept.append(step.batch)
            yield step.batch
        if size < KEPT_BYTES:
            self._recorded.clear()  # the last selection is the one that is read again
            self._recorded[key] = kept

    def judged(self, session: Any, steps: Iterable[StreamRow]) -> Iterator[tuple[Batch, Outputs]]:
        """Yield the wanted rows with a model's outputs, without the states.

        Rows of a user's batch, which is a whole sequence, come as one batch where their outputs are
        of one shape.
        """
        found = ((step, self._without_states(o)) for step, o in self.run(session, steps))
        for _, group in itertools.groupby(found, key=lambda pair: pair[0].row):
            yield from _joined([(step.batch, outputs) for step, outputs in group])

    def _fed(self, row: Feeds, state: Feeds) -> dict[str, Array]:
        """Return a row with states, and what follows from the length of the cache (1, N)."""
        feeds = {**row, **state}
        if not self.following:
            return feeds
        inputs = {spec.name: spec for spec in self.model.inputs}
        outputs = {spec.name: spec for spec in self.model.outputs}
        past = max(
            np.shape(state[name])[axis]
            for name, after in self.pairs
            for axis in _growing(inputs[name], outputs[after])
        )
        now = max((np.shape(a)[1] for a in row.values() if np.ndim(a) > 1), default=1)
        for name in self.following:
            kind = inputs[name].dtype.numpy()
            mask = name == FOLLOWING[0]
            feeds[name] = np.ones((1, past + now), kind) if mask else _positions(past, now, kind)
        return feeds

    def _without_states(self, outputs: Outputs) -> Outputs:
        """Return the outputs that are not states, all where there are no others."""
        states = {after for _, after in self.pairs}
        return {n: a for n, a in outputs.items() if n not in states} or outputs

    def _start(self, session: Any, row: Batch) -> Mapping[str, Array]:
        if not self._started:
            self._started.update(self._zeros(session, row.feeds))
        return self._started

    def _zeros(self, session: Any, feeds: Feeds) -> Outputs:
        """Return states of zeros in sizes that come back; an axis that grows starts empty.

        Raises:
            DataError: no such sizes are found, or a state comes back in another shape.
        """
        inputs = {spec.name: spec for spec in self.model.inputs}
        outputs = {spec.name: spec for spec in self.model.outputs}
        known = _symbols(inputs, feeds)
        shapes = {a: _first_shape(inputs[a], outputs[b], known) for a, b in self.pairs}
        free = [
            (name, axis)
            for name, _ in self.pairs
            for axis, size in enumerate(inputs[name].shape or ())
            if not isinstance(size, int)
        ]
        refusal = "its outputs are empty"
        for _ in range(len(free) + 2):
            found: Outputs = {}
            zeros = {n: np.zeros(s, inputs[n].dtype.numpy()) for n, s in shapes.items()}
            try:
                found = run(session, self._fed(feeds, zeros), quiet=True)
            except RunError as error:
                refusal = error.what
            if not any(np.size(array) for array in self._without_states(found).values()):
                shapes = {n: tuple(max(d, 1) for d in s) for n, s in shapes.items()}
                continue
            grown = [axis for axis in free if _grew(axis, zeros, found, dict(self.pairs))]
            if not grown:
                break
            for name, axis in grown:
                shapes[name] = (*shapes[name][:axis], 0, *shapes[name][axis + 1 :])
        else:
            raise DataError(
                f"found no size of its states ({', '.join(a for a, _ in self.pairs)}) at which "
                f"the model runs: {refusal}",
                where=self.where,
                hint="Check the shapes of the other inputs, or give an array of each state",
            )
        for name, after in self.pairs:
            _check_same(name, after, np.shape(zeros[name]), np.shape(found[after]), self.where)
        return zeros


def _joined(rows: list[tuple[Batch, Outputs]]) -> Iterable[tuple[Batch, Outputs]]:
    """Return rows as one batch, or as they are where their outputs differ in shape."""
    alike = len({tuple(np.shape(a) for a in outputs.values()) for _, outputs in rows}) == 1
    scalar = any(not np.ndim(a) for a in rows[0][1].values())
    if len(rows) == 1 or scalar or not alike:
        return rows
    first = rows[0][0]
    feeds = {
        name: np.concatenate([batch.feeds[name] for batch, _ in rows]) if array.ndim else array
        for name, array in first.feeds.items()
    }
    found = [batch.labels for batch, _ in rows if batch.labels is not None]
    outputs = {n: np.concatenate([o[n] for _, o in rows]) for n in rows[0][1]}
    return [(Batch(feeds, np.concatenate(found) if found else None), outputs)]


def _grew(axis: tuple[str, int], zeros: Outputs, found: Outputs, pairs: Mapping[str, str]) -> bool:
    name, number = axis
    before, after = np.shape(zeros[name]), np.shape(found[pairs[name]])
    return len(before) == len(after) and before[number] > 0 and before[number] != after[number]


def _positions(past: int, now: int, kind: Any) -> Array:
    return np.arange(past, past + now, dtype=kind)[None]


def _growing(state: TensorSpec, after: TensorSpec) -> list[int]:
    """Return the axes of a state whose output has another name there."""
    pairs = zip(state.shape or (), after.shape or (), strict=False)
    return [axis for axis, (a, b) in enumerate(pairs) if isinstance(a, str) and a != b]


def following(model: Model, given: Collection[str], pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Return the inputs that the data lack and that follow from the length of a cache."""
    inputs = {spec.name: spec for spec in model.inputs}
    outputs = {spec.name: spec for spec in model.outputs}
    if not any(_growing(inputs[a], outputs[b]) for a, b in pairs):
        return ()
    return tuple(name for name in FOLLOWING if name in inputs and name not in given)


def _symbols(inputs: Mapping[str, TensorSpec], feeds: Feeds) -> dict[str, int]:
    """Return the sizes of the axes with names that the arrays of a row tell."""
    return {
        axis: size
        for name, array in feeds.items()
        for axis, size in zip(inputs[name].shape or (), np.shape(array), strict=False)
        if isinstance(axis, str)
    }


def _first_shape(state: TensorSpec, after: TensorSpec, known: Mapping[str, int]) -> tuple[int, ...]:
    """Return a state's sizes: 0 for an axis that has another name behind, 1 for a free one."""
    shape = state.shape or ()
    behind = after.shape if after.shape is not None and len(after.shape) == len(shape) else shape
    sizes = []
    for size, other in zip(shape, behind, strict=True):
        if isinstance(size, int):
            sizes.append(size)
        elif isinstance(size, str) and size in known:
            sizes.append(known[size])
        else:
            sizes.append(int(size is None or size == other))
    return tuple(sizes)


def _check_same(
    name: str, after: str, before: Sequence[int], behind: Sequence[int], where: str
) -> None:
    """Refuse a state that comes back in another shape, other than one that grows from nothing."""
    fits = len(before) == len(behind) and all(
        a in {0, b} for a, b in zip(before, behind, strict=True)
    )
    if not fits:
        raise DataError(
            f"state {name!r} has shape {shape_text(before)}, and output {after!r} that was to be "
            f"fed back to it has {shape_text(behind)}",
            where=where,
            hint="Name the output of that state: --state INPUT=OUTPUT",
        )


def state_pairs(
    model: Model, given: Collection[str], asked: Sequence[Pair], where: str
) -> tuple[Pair, ...]:
    """Return pairs of a state among the inputs and the output that is its next value.

    Args:
        model: model with states.
        given: inputs that the data have arrays for; none of them is a state unless asked for.
        asked: pairs that the user named.
        where: name of the data.

    Raises:
        DataError: a pair was named whose shapes or types differ.
        OptionError: a pair was named of an input or output that does not exist.
    """
    inputs = {spec.name: spec for spec in model.inputs}
    outputs = {spec.name: spec for spec in model.outputs}
    pairs: dict[str, str] = {}
    for name, after in asked:
        if name not in inputs:
            raise unknown("input", name, inputs, where="--state")
        if after not in outputs:
            raise unknown("output", after, outputs, where="--state")
        _check_declared(inputs[name], outputs[after], where)
        pairs[name] = after
    for name, spec in inputs.items():
        if name in given or name in pairs:
            continue
        alike = [n for n in outputs if n not in pairs.values() and _keys(name) & _keys_after(n)]
        fitting = [n for n in alike if _fit(spec, outputs[n])]
        if len(fitting) == 1:
            pairs[name] = fitting[0]
        elif alike and not fitting and not asked:
            _check_declared(spec, outputs[alike[0]], where)
    if not asked and set(given) & set(inputs):
        pairs |= _by_shape(inputs, outputs, given, pairs)
    return tuple(pairs.items())


def _by_shape(
    inputs: Mapping[str, TensorSpec],
    outputs: Mapping[str, TensorSpec],
    given: Collection[str],
    pairs: Mapping[str, str],
) -> dict[str, str]:
    """Return the one input left that has the shape of one output left, beside other outputs."""
    left = [name for name in inputs if name not in given and name not in pairs]
    if len(left) != 1:
        return {}
    spec = inputs[left[0]]
    others = [n for n in outputs if n not in pairs.values()]
    same = [n for n in others if outputs[n].shape == spec.shape and _fit(spec, outputs[n])]
    known = spec.shape is not None and len(spec.shape) > 1 and spec.dtype.is_floating_point()
    twins = any(inputs[name].shape == spec.shape for name in given if name in inputs)
    if len(same) != 1 or len(others) < 2 or not known or twins:
        return {}
    return {left[0]: same[0]}


def _fit(state: TensorSpec, after: TensorSpec) -> bool:
    """Return whether the declared shapes and types do not exclude that one becomes the other."""
    if state.dtype != after.dtype:
        return False
    if state.shape is None or after.shape is None:
        return True
    return len(state.shape) == len(after.shape) and all(
        a == b or not (isinstance(a, int) and isinstance(b, int))
        for a, b in zip(state.shape, after.shape, strict=True)
    )


def _check_declared(state: TensorSpec, after: TensorSpec, where: str) -> None:
    if not _fit(state, after):
        raise DataError(
            f"state {state} and output {after} do not pair: their shapes or types differ",
            where=where,
            hint="Name the output of that state: --state INPUT=OUTPUT, or give an array of it",
        )


def _words(name: str) -> list[str]:
    """Return the words of a name in small letters: stateN is state and n."""
    parts = re.split(r"[^A-Za-z0-9]+|(?<=[a-z])(?=[A-Z])", name)
    words = [part.lower() for part in parts if part]
    if words[:1] in (["past"], ["present"]) and words[1:3] == ["key", "values"]:
        return [words[0], *words[3:]]
    return words


def _keys(name: str) -> set[str]:
    """Return names that a state has without the words for before: h0, h_in and past_h give h."""
    return _shortened(_words(name), _BEFORE, r"[a-z]+0|[a-z]+\d+i|0")


def _keys_after(name: str) -> set[str]:
    """Return names that an output has without the words for after: hn, h_out, new_h give h."""
    return _shortened(_words(name), _AFTER, r"[a-z]+n|[a-z]+\d+o")


def _shortened(words: Sequence[str], times: Collection[str], ending: str) -> set[str]:
    """Return a name without the words of a time, and without an ending that tells it."""
    forms = [
        [word for word in words if word not in times],
        ["cache" if word in {"past", "present"} else word for word in words],
    ]
    if words and re.fullmatch(ending, words[-1]):
        forms.append([*words[:-1], words[-1][:-1]])
    joined = {" ".join(word for word in form if word) for form in forms}
    return {form for form in joined if re.search("[a-z]", form)}
