"""Importance by what channels do on data: mean output, and the readers' least-squares loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.core.context import Context
from trimtab.core.data import Floats
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError
from trimtab.core.feeds import finite_batches
from trimtab.core.model import Model
from trimtab.core.progress import Progress

from ...calibration.outliers import typical_rows
from ...graph.streaming_run import Stream
from ..dependency.groups import Group, Labels
from ..dependency.parts import Sink
from .budget import Curve
from .importance import by_group, l2, weight_scores
from .loss_curves import Places, Solution, columns_of, eliminate
from .moments import LARGEST, Moments, Reader, channel_statistics, moments
from .weight_repair import Feeds, place_of

Readers = list[tuple[Sink, Reader]]


def calibration(model: Model, data: Dataset, samples: int, progress: Progress) -> list[Feeds]:
    """At most so many samples in batches that the model takes.

    Samples that reach far beyond all others are left out, and said: least squares would fit them
    alone. Of a model of a fixed batch size it is the whole batch.

    Raises:
        DataError: not one batch of a model of a fixed batch size; NaN or infinity.
    """
    fixed = [s.shape[0] for s in model.inputs if s.shape and isinstance(s.shape[0], int)]
    rows = fixed[0] if fixed else 64
    some = data.take(samples)
    whole = [b for b in finite_batches(some, some.sized(rows)) if not fixed or b.size == rows]
    batches = [dict(b.feeds) for b in whole]
    if not batches:
        raise DataError(
            f"has fewer than the {rows} samples of one batch of the model",
            where=data.spec,
            hint="Give more data",
        )
    usual = typical_rows(batches)
    if all(rows.all() for rows in usual):
        return batches
    kept = [rows & rows.all() if fixed else rows for rows in usual]
    pairs = [(b, rows) for b, rows in zip(batches, kept, strict=True) if rows.any()]
    if not pairs:
        return batches
    far = int(np.flatnonzero(~np.concatenate(usual))[0])
    count = sum(int((~rows).sum()) for rows in kept)
    progress.say(
        f"sample {some.row(far)} reaches far beyond the others: look at it. Left out of pruning: "
        f"{count} of {len(np.concatenate(kept))} samples"
    )
    return [
        {name: array[rows] if len(array) == len(rows) else array for name, array in b.items()}
        for b, rows in pairs
    ]


def mean_output(model: Model, labels: Labels, batches: Sequence[Feeds], ctx: Context) -> Floats:
    """(classes,) mean magnitude of the channels where they are read, by group."""
    scores = np.zeros(labels.count)
    for seen in _walk(model, labels, batches, ctx):
        sink, reader, found = seen.sink, seen.reader, seen.found
        size = np.sqrt(np.diag(found.xx) + found.mean_x**2).reshape(-1, reader.taps).mean(axis=1)
        ids = sink.axes[sink.into] if sink.into is not None else None
        if ids is not None:
            np.add.at(scores, labels.class_of[ids], size / max(float(size.mean()), 1e-12))
    return by_group(labels, scores)


def least_squares(
    model: Model, labels: Labels, groups: Sequence[Group], batches: Sequence[Feeds], ctx: Context
) -> list[Curve]:
    """For each group the curve of what its readers cannot make up for.

    Groups without a reader that can be solved for go by their weights' L2 norm, at the price of a
    channel of average loss.
    """
    owner = {int(c): number for number, g in enumerate(groups) for c in g.classes}
    waiting = _counts(labels, owner)
    held: list[list[tuple[Solution, Places]]] = [[] for _ in groups]
    curves: list[Curve | None] = [None] * len(groups)
    for seen in _walk(model, labels, batches, ctx):
        for number in _groups_of(seen.sink, labels, owner):
            places = _places(seen.sink, labels, groups[number], seen.reader)
            if len(seen.found.xx) <= LARGEST:
                held[number].append((Solution.of(seen.found, seen.scale), places))
            waiting[number] -= 1
            if not waiting[number] and held[number]:
                curves[number] = eliminate(groups[number].classes, held[number])
                held[number] = []
    norms = by_group(labels, weight_scores(labels, l2))
    typical = float(
        np.median([c.loss[-1] / len(c.order) for c in curves if c is not None] or [1.0])
    )
    return [
        curve or Curve.of_scores(group, norms * typical)
        for curve, group in zip(curves, groups, strict=True)
    ]


def _places(sink: Sink, labels: Labels, group: Group, reader: Reader) -> Places:
    """Columns of each class of a group in a reader."""
    assert sink.into is not None
    ids = sink.axes[sink.into]
    assert ids is not None
    classes = labels.class_of[ids]
    return columns_of(reader, np.array([np.flatnonzero(classes == c) for c in group.classes]))


def _groups_of(sink: Sink, labels: Labels, owner: dict[int, int]) -> list[int]:
    ids = sink.axes[sink.into] if sink.into is not None else None
    if ids is None:
        return []
    return sorted({owner[int(c)] for c in np.unique(labels.class_of[ids]) if int(c) in owner})


def _counts(labels: Labels, owner: dict[int, int]) -> dict[int, int]:
    """How many readers each group has."""
    counts: dict[int, int] = {}
    for sink, _ in _readers(labels):
        for number in _groups_of(sink, labels, owner):
            counts[number] = counts.get(number, 0) + 1
    return counts


def _readers(labels: Labels) -> Readers:
    pairs = [(s, Reader.of(s.node)) for s in labels.weights if s.index == 1 and s.into is not None]
    return [(sink, reader) for sink, reader in pairs if reader is not None]


@dataclass(frozen=True, eq=False)
class Seen:
    """A reader with what the data tell of it.

    Attributes:
        sink: its weight.
        reader: how it reads.
        found: moments of its input and of its output.
        scale: variance, summed over outputs, of the tensor that its errors disturb: its output, or
            the stream that this is added to.
    """

    sink: Sink
    reader: Reader
    found: Moments
    scale: float


def _walk(model: Model, labels: Labels, batches: Sequence[Feeds], ctx: Context) -> Iterator[Seen]:
    """All readers in order, in one run of the model."""
    stream = Stream.start(model, batches)
    at = {node: index for index, node in enumerate(model.graph)}
    readers = sorted(_readers(labels), key=lambda pair: at[pair[0].node])
    for sink, reader in ctx.progress.track(readers, "measuring channels", len(readers)):
        stream.advance(at[sink.node])
        source = sink.node.inputs[0]
        assert source is not None
        found = moments(reader, stream.peek(source), None, ctx.seed)
        weight = reader.weight().astype(np.float64)
        scale = float(np.einsum("oi,io->", weight, found.xy))
        other = place_of(sink.node).stream
        if other is not None and other.name in stream.values:
            axis = 1 if sink.node.op_type == "Conv" else -1
            scale += float(channel_statistics(stream.values[str(other.name)], axis)[1].sum())
        yield Seen(sink, reader, found, max(scale, 1e-12))
