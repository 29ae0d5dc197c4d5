"""Inputs of models where nobody gives them: rows of the data, else what the model accepts.

Sizes of free axes are found by running the model: what onnxruntime refuses is not what it is meant
for. This one place decides, so that a check, a count and a measurement see the same inputs.
"""

from __future__ import annotations

import itertools
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import InputError, OptionError
from ..memo import Memo, MemoKind
from ..model import Model
from ..text import shape_text
from .feed_sizes import Axis, FreeAxes, Shapes, plans
from .feed_trial import FeedTrial, check_shapes
from .feed_values import Values, values_of
from .session import Feeds, Outputs

#: Seconds after which no further sizes are tried.
PATIENCE = 20.0
#: Sizes tried after one at which all outputs were empty or NaN, before that one is taken.
SECOND_THOUGHTS = 12
#: Inputs that are told; a graph network has twenty, a language model more.
TOLD = 6
#: Shapes in which an input of unknown rank is tried.
RANKS = ((16,), (1, 16), (1, 3, 64, 64), (1, 3, 224, 224), (1, 16, 16), ())

#: The item of a dataset with this number.
Items = Callable[[int], Feeds]


@dataclass(frozen=True)
class Feeding:
    """Inputs of one run, and why they are these.

    Attributes:
        feeds: arrays by input name.
        why: where sizes and values come from.
        values: values that were drawn, where there are no data.
    """

    feeds: Outputs
    why: str
    values: Mapping[str, Values] = field(default_factory=dict)

    def __str__(self) -> str:
        each = [
            f"{name} {shape_text(np.shape(a))} {'texts' if a.dtype.kind in 'OU' else a.dtype}"
            + (f" {self.values[name]}" if name in self.values else "")
            for name, a in itertools.islice(self.feeds.items(), TOLD)
        ]
        left = len(self.feeds) - len(each)
        more = f" and {left} more" if left else ""
        return f"{', '.join(each) or 'nothing'}{more} ({self.why})"


@dataclass(frozen=True)
class FeedSource:
    """Facts about the inputs of a model: shapes from the user, items of data.

    Attributes:
        shapes: shapes by input name; they hold where there are no items.
        items: items of data by number; None where there are no data.
        name: name of the data.
        memo: memory of sizes that were found; None keeps none.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    items: Items | None = None
    name: str = ""
    memo: Memo | None = None


@dataclass(frozen=True)
class _Accepted:
    """Sizes and values that a model accepts; `most` is the largest number of rows it takes."""

    shapes: Shapes
    values: Mapping[str, Values]
    why: str
    batch: tuple[Axis, ...] = ()
    checked: frozenset[int] = frozenset()
    only_one: bool = False

    def sized(self, rows: int) -> Shapes:
        return {
            name: tuple(rows if (name, i) in self.batch else n for i, n in enumerate(shape))
            for name, shape in self.shapes.items()
        }


_KIND: MemoKind[_Accepted] = MemoKind("accepted inputs", 16)
#: What models accept that have no source of their own, by model, and by the one they came from.
_known: weakref.WeakKeyDictionary[Model, _Accepted] = weakref.WeakKeyDictionary()
_derived = Memo()
_scope: ContextVar[tuple[Model, FeedSource] | None] = ContextVar("feeding", default=None)


@contextmanager
def feeding_from(model: Model, source: FeedSource) -> Iterator[None]:
    """Feed the model, and all with the same inputs, from this source inside of the block."""
    token = _scope.set((model, source))
    try:
        yield
    finally:
        _scope.reset(token)


def feeding(
    model: Model,
    source: FeedSource | None = None,
    *,
    seed: int = 0,
    batch: int = 1,
    session: Any = None,
) -> Feeding:
    """Return inputs that the model accepts: of the data, of the given shapes, or found by trying.

    Args:
        model: model to feed.
        source: data and shapes; those of the enclosing `feeding_from` where None.
        seed: seed of random values, and number of the item of the data.
        batch: rows to feed, fewer where the model takes one alone.
        session: session of the model to try sizes in; one is built, only if needed, where None.

    Raises:
        InputError: onnxruntime runs the model at none of the sizes that were tried.
        OptionError: a given shape does not fit, or onnxruntime refuses it.
    """
    origin = model
    if source is None:
        scope = _scope.get()
        if scope is not None and _same_inputs(scope[0], model):
            origin, source = scope
            session = session if origin is model else None
    trial = FeedTrial(origin, session)
    accepted = _accepted(origin, source, trial)
    rows = batch if batch == 1 or (accepted.batch and not accepted.only_one) else 1
    if rows > 1 and rows not in accepted.checked and _uncertain(origin, accepted):
        accepted = _with_rows(origin, source, accepted, rows, trial)
        rows = 1 if accepted.only_one else rows
    return Feeding(_drawn(origin, source, accepted, seed, rows), accepted.why, accepted.values)


def one_row_alone(model: Model) -> bool:
    """Return whether the model refuses two rows at once, though its interface leaves them free."""
    try:
        feeds = feeding(model, batch=2).feeds
    except InputError:
        return False  # nothing is known about a model that nothing was found for
    return not any(
        np.shape(feeds[name])[axis] == 2 for name, axis in _leading(model) if name in feeds
    )


def random_feeds(
    model: Model, *, seed: int = 0, sizes: Mapping[str, int] | None = None, batch: int = 1
) -> Outputs:
    """Return inputs that the model accepts, as `feeding` does.

    `sizes` has symbolic dimensions by name; `batch` is the size of another free leading dimension.
    """
    if sizes:
        fixed = {
            s.name: tuple(
                d if isinstance(d, int) else sizes.get(str(d), batch if i == 0 else 16)
                for i, d in enumerate(s.shape or ())
            )
            for s in model.inputs
            if any(isinstance(d, str) and d in sizes for d in s.shape or ())
        }
        return feeding(model, FeedSource(shapes=fixed), seed=seed, batch=batch).feeds
    return feeding(model, seed=seed, batch=batch).feeds


def _same_inputs(a: Model, b: Model) -> bool:
    return a is b or a.inputs == b.inputs


def _key(model: Model, source: FeedSource) -> Any:
    origin = model.lineage[0].input_digest if model.lineage else model.digest
    return origin, model.inputs, tuple(sorted(source.shapes.items())), source.name


def _accepted(model: Model, source: FeedSource | None, trial: FeedTrial) -> _Accepted:
    found = _kept(model, source)
    if found is None and source is not None and source.items is not None:
        shapes = {name: np.shape(array) for name, array in source.items(0).items()}
        return _Accepted(shapes, {}, f"rows of {source.name}", _leading(model))
    if found is None:
        given = source.shapes if source is not None else {}
        check_shapes(model, given)
        found = _search(model, given, trial)
        _keep(model, source, found)
    return found


def _kept(model: Model, source: FeedSource | None) -> _Accepted | None:
    if source is not None:
        if source.memo is None or not _has_choice(model):
            return None
        return source.memo.get(_KIND, _key(model, source))
    found = _known.get(model)
    if found is None and model.lineage:
        found = _derived.get(_KIND, _key(model, FeedSource()))
    return found


def _keep(model: Model, source: FeedSource | None, accepted: _Accepted) -> None:
    if source is not None:
        if source.memo is not None and _has_choice(model):
            source.memo.put(_KIND, _key(model, source), accepted)
        return
    _known[model] = accepted
    if model.lineage:
        _derived.put(_KIND, _key(model, FeedSource()), accepted)


def _leading(model: Model) -> tuple[Axis, ...]:
    return tuple(axis for group in FreeAxes.of(model).rows for axis in group)


def _has_choice(model: Model) -> bool:
    """Return whether the interface leaves anything open that the model may refuse."""
    return any(
        spec.shape is None
        or not all(isinstance(d, int) for d in spec.shape)
        or not spec.dtype.is_floating_point()
        for spec in model.inputs
    )


def _uncertain(model: Model, accepted: _Accepted) -> bool:
    return bool(accepted.batch) and _has_choice(model)


def _search(model: Model, fixed: Mapping[str, tuple[int, ...]], trial: FeedTrial) -> _Accepted:
    """Find sizes and values with which onnxruntime runs the model."""
    values, fed = values_of(model), model.inputs
    all_given = all(spec.name in fixed for spec in fed)
    if not _has_choice(model):
        shapes = {
            s.name: tuple(d for d in s.shape or () if isinstance(d, int)) for s in model.inputs
        }
        return _Accepted(shapes, values, "sizes of the graph")
    fallback: _Accepted | None = None
    started, poor, tried = time.monotonic(), 0, 0
    for shapes, batch in _plans(model, fixed):
        for chosen in _variants(values):
            now = time.monotonic() - started
            if tried and (now > PATIENCE or (fallback and poor > SECOND_THOUGHTS)):
                break
            why = "sizes given" if all_given else "default sizes"
            why = f"sizes found by trying, {tried} refused" if tried and not all_given else why
            found = _Accepted(shapes, chosen, why, batch, frozenset({_rows(shapes, batch)}))
            if not trial.loads():  # its caller says so; nothing can be found out here
                return _one_row(replace(found, why=f"not tried: {trial.refusal}"))
            verdict = trial.runs(_draw(model, shapes, chosen, 0))
            if verdict == "fine":
                return _one_row(found)
            tried += 1
            poor += fallback is not None
            if verdict == "poor" and fallback is None:
                fallback = found
    if fallback is not None:
        return _one_row(fallback)
    raise _refusal(model, fixed, trial)


def _one_row(accepted: _Accepted) -> _Accepted:
    """Return the sizes for one row, of those that were tried with more."""
    return replace(accepted, shapes=accepted.sized(1)) if accepted.batch else accepted


def _rows(shapes: Shapes, batch: Sequence[Axis]) -> int:
    return next((shapes[name][axis] for name, axis in batch), 1)


def _plans(
    model: Model, fixed: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[Shapes, tuple[Axis, ...]]]:
    """Yield shapes to try with the axes of their rows; those of unknown rank are guessed."""
    unknown = [s.name for s in model.inputs if s.shape is None and s.name not in fixed]
    for guess in itertools.islice(itertools.product(RANKS, repeat=len(unknown)), 40):
        known = {**fixed, **dict(zip(unknown, guess, strict=True))}
        for shapes, batch in plans(model, known):
            yield shapes, tuple(axis for axis in batch if axis[0] not in known)
            if unknown:
                break


def _variants(values: Mapping[str, Values]) -> Iterator[dict[str, Values]]:
    """Yield values to try: those that the graph tells, other constants of it, zeros, ones."""
    names = [name for name, v in values.items() if v.kind == "constant"]
    orders = [values[name].constants[:3] for name in names]
    for chosen in itertools.islice(itertools.product(*orders), 6):
        yield dict(values) | {
            n: replace(values[n], constants=(c,)) for n, c in zip(names, chosen, strict=True)
        }
    if any(v.kind == "integers" for v in values.values()):
        for kind in ("zeros", "ones"):
            yield {n: Values(kind) if v.kind == "integers" else v for n, v in values.items()}


def _with_rows(
    model: Model, source: FeedSource | None, accepted: _Accepted, rows: int, trial: FeedTrial
) -> _Accepted:
    """Find whether the model takes several rows, and along which axes, and keep the answer."""
    ways = [accepted.batch]
    if source is not None and source.items is not None:
        more = (FreeAxes.of(model, second=True), FreeAxes.of(model, linked=False))
        ways += [tuple(axis for group in each.rows for axis in group) for each in more]
    found = replace(accepted, only_one=True)
    for way in dict.fromkeys(ways):
        tried = replace(accepted, batch=way, checked=accepted.checked | {rows})
        if trial.runs(_drawn(model, source, tried, 0, rows)) != "refused":
            found = tried
            break
    _keep(model, source, found)
    return found


def _drawn(
    model: Model, source: FeedSource | None, accepted: _Accepted, seed: int, rows: int
) -> Outputs:
    if source is not None and source.items is not None:
        return _from_items(source.items, accepted.batch, seed, rows)
    return _draw(model, accepted.sized(rows), accepted.values, seed)


def _from_items(items: Items, batch: Sequence[Axis], seed: int, rows: int) -> Outputs:
    """Return `rows` rows of consecutive items, or the item as it is where it has as many.

    So it stays where its arrays differ in their rows, as nodes and edges of a graph do.
    """
    first = dict(items(seed * rows))
    sizes = {np.shape(first[name])[axis] for name, axis in batch if name in first}
    have = sizes.pop() if len(sizes) == 1 else rows
    if have == rows:
        return first
    parts = [first]
    while have < rows and len(parts) < rows:
        following = dict(items(seed * rows + len(parts)))
        parts.append(following if _alike(first, following, batch) else first)
        have += next(np.shape(parts[-1][name])[axis] for name, axis in batch)
    axes = dict(reversed(batch))
    return {
        name: array
        if name not in axes
        else np.concatenate([p[name] for p in parts], axes[name]).take(range(rows), axes[name])
        for name, array in first.items()
    }


def _alike(a: Feeds, b: Feeds, batch: Sequence[Axis]) -> bool:
    """Return whether arrays differ in shape along the axes of the rows at most."""
    return all(
        np.ndim(a[name]) == np.ndim(b[name])
        and all(
            m == n or (name, i) in batch
            for i, (m, n) in enumerate(zip(np.shape(a[name]), np.shape(b[name]), strict=True))
        )
        for name in a
    )


def _draw(model: Model, shapes: Shapes, values: Mapping[str, Values], seed: int) -> Outputs:
    rng = np.random.default_rng(seed)
    return {s.name: values[s.name].draw(rng, s, shapes[s.name], shapes) for s in model.inputs}


def _refusal(model: Model, fixed: Mapping[str, tuple[int, ...]], trial: FeedTrial) -> InputError:
    if all(spec.name in fixed for spec in model.inputs):
        return OptionError(
            f"the model does not run at {trial.shapes[-1]}: {trial.refusal}", where="--shape"
        )
    tried = list(dict.fromkeys(trial.shapes))
    example = tried[0].split(" ")[0]
    return InputError(
        f"the model runs at none of {len(tried)} sizes that were tried "
        f"({'; '.join(tried[:3])}{', ...' if len(tried) > 3 else ''}): {trial.refusal[:300]}",
        where=model.name,
        hint=f"Give --data, or the sizes that it takes, for example --shape {example}",
    )
