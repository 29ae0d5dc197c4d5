"""Importance of channels on data: mean output, and the readers' least-squares loss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trimtab.core.batches import finite_batches, fixed_rows
from trimtab.core.context import Context
from trimtab.core.data import Floats
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError
from trimtab.core.model import Model
from trimtab.core.ort.other_tokens import OtherTokens
from trimtab.core.progress import Progress

from ...calibration.outliers import typical_rows
from ...graph.streaming_run import Stream
from ..dependency.graph import DependencyGraph, Group
from ..dependency.records import Operand
from .budget import LossCurve
from .importance import l2, normalize_by_group, weight_scores
from .loss_curves import Places, ReaderSolution, backward_elimination
from .moments import LARGEST, Feeds, Moments, Reader, channel_statistics, moments
from .reader_output import reader_output

#: One batch of so many is fed once more with tokens that the data lack.
OTHERS = 3
#: Batches that a few samples make at least.
LEAST_BATCHES = 8


def calibration_batches(
    model: Model, data: Dataset, samples: int, progress: Progress
) -> list[Feeds]:
    """Return at most so many samples, in batches that the model takes.

    Samples that reach far beyond all others are left out and reported: least squares would fit
    them alone. For a model of a fixed batch size the whole batch is left out. Where the data look
    up few rows of a table of tokens, some batches come once more with others, which would be lost.

    Raises:
        DataError: less than one batch of a model of a fixed batch size; NaN or infinity.
    """
    fixed = None if data.source.batched else fixed_rows(model)
    some = data.take(samples)
    # Small enough that some can be held out.
    rows = fixed or min(64, max(1, len(some) // LEAST_BATCHES))
    whole = [b for b in finite_batches(some, some.sized(rows)) if not fixed or b.size == rows]
    batches = [dict(b.feeds) for b in whole]
    if not batches:
        raise DataError(
            f"has fewer than the {rows} samples of one batch of the model",
            where=data.spec,
            hint="Give more data",
        )
    return _with_other_tokens(model, _usual(some, batches, fixed, progress), progress)


def _with_other_tokens(model: Model, batches: list[Feeds], progress: Progress) -> list[Feeds]:
    """Return the batches, and some of them once more with tokens that the data lack."""
    tokens = OtherTokens.of(model, batches)
    if not tokens:
        return batches
    known = [f"{tokens.seen[n]} of {size:,} of {n}" for n, (_, size) in tokens.ranges.items()]
    progress.say(f"the data have few tokens, {', '.join(known)}; others are drawn beside them")
    more = [tokens.put_into(batch, seed) for seed, batch in enumerate(batches[::OTHERS])]
    return [*batches, *more]


def _usual(
    some: Dataset, batches: list[Feeds], fixed: int | None, progress: Progress
) -> list[Feeds]:
    """Return the batches without samples that reach far beyond all others."""
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
        {n: a[rows] if a.ndim and len(a) == len(rows) else a for n, a in b.items()}
        for b, rows in pairs
    ]


def mean_output(
    model: Model, graph: DependencyGraph, batches: Sequence[Feeds], ctx: Context
) -> Floats:
    """Return the mean magnitude of channels where they are read, by group, (units,)."""
    scores = np.zeros(graph.num_units)
    for read in _reader_statistics(model, graph, batches, ctx):
        operand, reader, found = read.operand, read.reader, read.moments
        sizes = np.sqrt(np.diag(found.xx) + found.mean_x**2)
        size = sizes.reshape(-1, reader.kernel_size).mean(axis=1)
        units = graph.input_units(operand)
        if units is not None:
            np.add.at(scores, units, size / max(float(size.mean()), 1e-12))
    return normalize_by_group(graph, scores)


def least_squares(
    model: Model,
    graph: DependencyGraph,
    groups: Sequence[Group],
    batches: Sequence[Feeds],
    ctx: Context,
) -> list[LossCurve]:
    """Return for each group the curve of the error that its readers cannot compensate.

    Groups without a reader that can be solved for are ranked by the L2 norm of their weights, at
    the price of a channel of average loss.
    """
    owner = graph.owners(groups)
    waiting = Counter(
        n for operand, _ in _readers(graph) for n in _groups_of(operand, graph, owner)
    )
    solutions: list[list[tuple[ReaderSolution, Places]]] = [[] for _ in groups]
    curves: list[LossCurve | None] = [None] * len(groups)
    for read in _reader_statistics(model, graph, batches, ctx):
        for number in _groups_of(read.operand, graph, owner):
            places = _places(read.operand, graph, groups[number], read.reader)
            if len(read.moments.xx) <= LARGEST:
                solutions[number].append((ReaderSolution.of(read.moments, read.scale), places))
            waiting[number] -= 1
            if not waiting[number] and solutions[number]:
                curves[number] = backward_elimination(groups[number].units, solutions[number])
                solutions[number] = []
    norms = normalize_by_group(graph, weight_scores(graph, l2))
    means = [c.loss[-1] / len(c.order) for c in curves if c is not None]
    typical = float(np.median(means or [1.0]))
    return [
        curve or LossCurve.of_scores(group, norms * typical)
        for curve, group in zip(curves, groups, strict=True)
    ]


def _places(operand: Operand, graph: DependencyGraph, group: Group, reader: Reader) -> Places:
    """Return the columns of each unit of a group in a reader, (units, columns of one)."""
    units, size = graph.input_units(operand), reader.kernel_size
    channels = np.array([np.flatnonzero(units == c) for c in group.units])
    return (channels[:, :, None] * size + np.arange(size)).reshape(len(channels), -1)


def _groups_of(operand: Operand, graph: DependencyGraph, owner: NDArray[np.int64]) -> list[int]:
    """Return the numbers of the groups whose channels a weight reads, ascending."""
    units = graph.input_units(operand)
    return [] if units is None else [int(n) for n in np.unique(owner[units]) if n >= 0]


def _readers(graph: DependencyGraph) -> list[tuple[Operand, Reader]]:
    """Return the weights whose operators can be solved for, with these."""
    read = [s for s in graph.weights if s.index == 1 and s.input_axis is not None]
    return [(s, reader) for s in read if (reader := Reader.of(s.node)) is not None]


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """Statistics of the channels that a reader reads.

    Attributes:
        operand: its weight.
        moments: moments of its input and of its output.
        scale: variance, summed over outputs, of the tensor that its errors disturb: its output, or
            the stream that this is added to.
    """

    operand: Operand
    reader: Reader
    moments: Moments
    scale: float


def _reader_statistics(
    model: Model, graph: DependencyGraph, batches: Sequence[Feeds], ctx: Context
) -> Iterator[ChannelStatistics]:
    """Yield the statistics of all readers in order, in one run of the model."""
    stream = Stream.start(model, batches)
    at = {node: index for index, node in enumerate(model.graph)}
    readers = sorted(_readers(graph), key=lambda pair: at[pair[0].node])
    for operand, plain in ctx.progress.track(readers, "measuring channels", len(readers)):
        stream.advance(at[operand.node])
        reader = plain.by_pixel() if plain.wide else plain
        found = moments(reader, stream.peek(reader.source), stream.batches, ctx.seed)
        weight = reader.weight().astype(np.float64)
        scale = float(np.einsum("oi,io->", weight, found.xy))
        other = reader_output(operand.node).stream
        if other is not None and other.name in stream.values:
            axis = 1 if operand.node.op_type == "Conv" else -1
            arrays = stream.values[str(other.name)]
            if arrays[0].ndim >= 2:  # not a number that is added to all
                scale += float(channel_statistics(arrays, axis)[1].sum())
        yield ChannelStatistics(operand, reader, found, max(scale, 1e-12))
