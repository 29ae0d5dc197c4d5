"""Repair without training: weights that read the remaining channels are solved for again.

For a reader with weights W, input x in the pruned model and a wanted output y, the least squares
W, b = argmin E|W x + b - y|^2 = Cov(y, x) Cov(x, x)^-1 come from second moments in one pass (He et
al. 2017, arXiv 1707.06168; OBSPA, arXiv 2403.18955). The wanted output is the original model's on
its own input, so that errors of earlier layers are compensated and not passed on. Where the output
is added to a residual stream, the target is the original's sum minus the pruned model's stream:
each block then corrects the error of the stream, which the plain target would leave in it.

A convolution of many channels, or of few positions, has another way: a matrix A that gives the
original's pixels from the pruned model's, and the old weights times A. It has as many columns as
channels, not times the taps, and fits less noise. Rows that nothing was fitted to choose between
these, their damping, and no repair (`regression.py`); they judge the whole model in the end too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from trimtab.core.context import Context
from trimtab.core.data import Array
from trimtab.core.model import Model

from ...graph.queries import input_at, pair
from ...graph.streaming_run import Stream
from ..dependency.graph import DependencyGraph
from ..dependency.records import constant_input, weight_array
from .input_writes import InputWrites
from .moments import (
    HELD_ROWS,
    LARGEST,
    ROWS,
    Feeds,
    Moments,
    MomentSums,
    Part,
    Reader,
    channel_statistics,
    fitted_part,
)
from .reader_output import ReaderOutput, reader_output
from .regression import ReaderWeights, Solver, choose, dampened

#: Positions for each column below which a convolution is repaired pixel by pixel as well.
FEW_ROWS = 16
#: Positions whose means a wide convolution's bias is set by.
MEAN_ROWS = 1 << 12

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Kept:
    """Masks of what stays of the original: outputs by node, and inputs of readers by node."""

    outputs: Mapping[ir.Node, Mask]
    inputs: Mapping[ir.Node, Mask]


@dataclass(eq=False)
class WeightRepair:
    """Repair of a pruned model while both models run through the data.

    Attributes:
        pruned: run of the model that is repaired, in place.
        original: run of the original model.
        originals: the original's node for each node that the pruned model kept.
        kept: masks of the original's channels that stayed.
        method: least_squares solves for weights, bias corrects biases alone, batch_norm neither.
        seed: random seed of the choice of positions.
        removed_branches: readers of branches that go as a whole, whose outputs are zero.
        writes: inputs that were replaced.
    """

    pruned: Stream
    original: Stream
    originals: Mapping[ir.Node, ir.Node]
    kept: Kept
    method: str
    seed: int
    removed_branches: Sequence[ir.Node] = ()
    writes: InputWrites = field(init=False)

    def __post_init__(self) -> None:
        self.writes = InputWrites(self.pruned.model.ir)

    def run(self, changed: set[ir.Node], ctx: Context) -> int:
        """Repair readers of fewer channels and those that add to a stream, behind `changed`.

        Return the number of operators that were repaired.
        """
        nodes = list(self.pruned.model.graph)
        dirty: set[ir.Value] = set()
        todo: list[tuple[int, Reader | None]] = []
        for index, node in enumerate(nodes):
            behind = any(v in dirty for v in node.inputs)
            if behind and (reader := self._reader(node)) is not None:
                todo.append((index, reader))
            elif behind and node.op_type == "BatchNormalization":
                todo.append((index, None))
            if behind or node in changed:
                dirty.update(node.outputs)
        for index, reader in ctx.progress.track(todo, "repairing", len(todo)):
            if reader is None:
                self._estimate(index, nodes[index])
            else:
                self._repair(index, reader)
        return self.writes.nodes

    def _reader(self, node: ir.Node) -> Reader | None:
        """Return the reader of a node where it is to be repaired."""
        known = node in self.originals and node not in self.removed_branches
        if self.method == "batch_norm" or not known:
            return None
        # Others would only adapt to errors that those behind them compensate better.
        wanted = node in self.kept.inputs or reader_output(node).stream is not None
        reader = Reader.of(node) if wanted else None
        # A weight of several operators would become several weights.
        return reader if reader is not None and _is_own(input_at(node, 1)) else None

    def _estimate(self, index: int, norm: ir.Node) -> None:
        """Estimate the statistics of a BatchNormalization from its present input."""
        self.pruned.advance(index)
        judged, number = self.method != "batch_norm", self.pruned.batches
        arrays = enumerate(self.pruned.peek(pair(norm)[0]))
        parts = ((a, fitted_part(i, number) if judged else 1.0) for i, a in arrays)
        fitted = (a[: max(1, int(len(a) * part))] for a, part in parts if part)
        new = [a.astype(np.float32) for a in channel_statistics(fitted, 1)]
        if not judged or self._is_closer(norm, new):
            for place, array in enumerate(new, start=3):
                self.writes.replace(norm, place, array)

    def _is_closer(self, norm: ir.Node, new: Sequence[Array]) -> bool:
        """Return whether these statistics bring a norm closer to the original's, held out."""
        there, mask = self.originals.get(norm), self.kept.outputs.get(norm)
        vectors = [constant_input(norm, index) for index in range(1, 5)]
        if there is None or any(v is None for v in vectors):
            return True
        scale, shift, mean, variance = (np.asarray(v, np.float64) for v in vectors)
        epsilon = norm.attributes.get_float("epsilon", 1e-5)
        self._advance_original(there.outputs[0])
        errors = np.zeros(2)
        arrays, wanted_arrays = (
            self.pruned.peek(pair(norm)[0]),
            self._wanted(there.outputs[0], mask, 1),
        )
        pairs = zip(arrays, wanted_arrays, strict=True)
        for number, (x, y) in enumerate(pairs):
            held = slice(int(len(x) * fitted_part(number, self.pruned.batches)), None)
            if x.shape != y.shape:
                return True
            rows, wanted = (np.moveaxis(a[held], 1, -1).reshape(-1, a.shape[1]) for a in (x, y))
            for i, (m, v) in enumerate(((mean, variance), (new[0], new[1]))):
                got = (rows - m) * (scale / np.sqrt(v + epsilon)) + shift
                errors[i] += float(np.square(got - wanted).sum())
        return bool(errors[1] < errors[0])

    def _repair(self, index: int, reader: Reader) -> None:
        here = reader_output(reader.node)
        there = reader_output(self.originals[reader.node])
        whole, pixels = self._sums(reader)
        if here.bias is None and not whole.covariance:
            return
        self.pruned.advance(index)
        self._advance_original(there.result)
        sources = self.original.peek(pair(self.originals[reader.node])[0]) if pixels else None
        targets = self._targets(reader, here, there)
        for x, y in zip(self.pruned.peek(reader.source), targets, strict=True):
            whole.add(x, y)
            if sources is not None and pixels is not None:
                pixels.add(x, next(sources))
        held = whole.held_out()
        if held is None:
            return

        @functools.cache
        def found(part: Part) -> Moments:
            made = whole.moments(part)
            return made if here.bias else made.uncentred

        old = ReaderWeights(reader.weight().astype(np.float64), _bias(here, len(reader.weight())))
        families = self._families(reader, whole, found, pixels)
        chosen = choose(
            old,
            families,
            held,
            lambda w, part: _fitting_bias(here, w, found(part)),
            refit=whole.count >= FEW_ROWS * old.weight.shape[1],
        )
        if chosen is not None:
            self._write(reader, here, chosen, old)

    def _sums(self, reader: Reader) -> tuple[MomentSums, MomentSums | None]:
        """Return empty sums of moments: of all columns, and of pixels where these are tried."""
        number, columns = self.pruned.batches, reader.weight().shape[1]
        solved = self.method == "least_squares" and columns <= LARGEST and not reader.wide
        rows = ROWS if solved else MEAN_ROWS
        whole = MomentSums(reader, number, self.seed, rows, HELD_ROWS, covariance=solved)
        by_pixel = self.method == "least_squares" and reader.kernel_size > 1
        if not by_pixel or reader.node not in self.kept.inputs:
            return whole, None
        return whole, MomentSums(reader.by_pixel(), number, self.seed, held_rows=HELD_ROWS)

    def _families(
        self,
        reader: Reader,
        whole: MomentSums,
        found: Callable[[Part], Moments],
        pixels: MomentSums | None,
    ) -> Iterator[Iterator[Solver]]:
        """Yield what to try, by rising damping: the old weights, all columns, pixels."""
        old = reader.weight().astype(np.float64)
        yield iter([lambda _: old])
        if whole.covariance:
            yield dampened(found, old)
        few = whole.count < FEW_ROWS * old.shape[1]
        if pixels is not None and (few or not whole.covariance):
            mask = self.kept.inputs[reader.node]
            identity = np.eye(len(mask))[:, mask]
            there = weight_array(self.originals[reader.node])
            keep = self.kept.outputs.get(reader.node)
            weight = there if keep is None else np.compress(keep, there, axis=0)
            of = functools.cache(pixels.moments)
            yield (_behind(solve, weight) for solve in dampened(of, identity))

    def _advance_original(self, value: ir.Value) -> None:
        """Run the original as far as needed for a tensor, whose source stays known."""
        producer = value.producer()
        assert producer is not None
        self.original.advance(list(self.original.model.graph).index(producer))

    def _wanted(self, value: ir.Value, mask: Mask | None, axis: int) -> Iterator[Array]:
        """Yield the original's tensor without the channels that go, batch by batch."""
        for array in self.original.peek(value):
            if mask is None or array.ndim < 2 or array.shape[axis] != len(mask):
                yield array
            else:
                yield np.compress(mask, array, axis=axis)

    def _targets(self, reader: Reader, here: ReaderOutput, there: ReaderOutput) -> Iterator[Array]:
        """Yield the wanted outputs of the channels that stay, batch by batch."""
        axis = 1 if reader.node.op_type == "Conv" else -1
        keep = self.kept.outputs.get(reader.node)
        wanted = self._wanted(there.result, keep, axis)
        if here.stream is None or there.stream is None:
            yield from wanted
            return
        before = self._wanted(there.stream, keep, axis)
        for w, b, n in zip(wanted, before, self.pruned.peek(here.stream), strict=True):
            yield w + (b - n) if b.shape == n.shape == w.shape else w

    def _write(
        self, reader: Reader, here: ReaderOutput, chosen: ReaderWeights, old: ReaderWeights
    ) -> None:
        if here.bias is not None:
            before = constant_input(*here.bias)
            same = before is not None and before.size == chosen.bias.size
            shape = before.shape if before is not None and same else (-1,)
            self.writes.replace(*here.bias, chosen.bias.reshape(shape))
        if not np.array_equal(chosen.weight, old.weight):
            self.writes.replace(reader.node, 1, reader.shaped(chosen.weight))


def _bias(here: ReaderOutput, outputs: int) -> Array:
    """Return the bias of a reader as (outputs,), zeros where it has none."""
    old = None if here.bias is None else constant_input(*here.bias)
    return np.broadcast_to(np.zeros(1) if old is None else old.reshape(-1), (outputs,))


def _fitting_bias(here: ReaderOutput, weight: Array, found: Moments) -> Array:
    """Return the bias that makes the means agree, zeros where there is none to write to."""
    return np.zeros(len(weight)) if here.bias is None else found.mean_y - weight @ found.mean_x


def _is_own(value: ir.Value | None) -> bool:
    return value is not None and len(value.uses()) == 1


def _behind(pixels: Solver, weight: Array) -> Solver:
    """Return a solver of columns: a weight (outputs, channels, kernel...) after that of pixels."""

    def solve(part: Part) -> Array:
        made = np.einsum("oc...,cn->on...", weight, pixels(part), optimize=True)
        return np.asarray(made.reshape(len(weight), -1))

    return solve


def kept_channels(graph: DependencyGraph, removed: list[int]) -> Kept:
    """Return masks of the outputs and of the inputs that stay, for operators with weights."""
    keep = graph.keep(removed)
    rows = [row for row in graph.weight_axes if row.operand.input_axis is not None]
    outputs = {row.operand.node: keep.mask(row.ids) for row in rows if row.produces}
    for operand in graph.trace.operands:
        ids = operand.axes[0] if operand.axes else None
        if operand.node.op_type == "BatchNormalization" and operand.index == 1 and ids is not None:
            outputs[operand.node] = keep.mask(ids)
    read = [row for row in graph.weight_axes if not row.produces]
    inputs = {r.operand.node: keep.mask(r.ids) for r in read if keep.changes(r.ids)}
    return Kept(outputs, inputs)


def changed_nodes(graph: DependencyGraph, removed: list[int]) -> set[ir.Node]:
    """Return the operators that lose a part of a constant."""
    keep = graph.keep(removed)
    return {use.node for use in graph.trace.uses if keep.any(use.axes)}


def repair_weights(
    pruned: Model,
    original: Model,
    graph: DependencyGraph,
    removed: list[int],
    batches: Sequence[Feeds],
    ctx: Context,
    *,
    originals: Mapping[ir.Node, ir.Node],
    removed_branches: Sequence[ir.Node] = (),
    method: str,
) -> int:
    """Repair a pruned model in place; return the number of operators that were repaired.

    It is 0 where the outputs are closer to the original's on held-out rows without any repair.
    `graph` is that of the pruned model, from before `removed` were cut; the other arguments are
    fields of `WeightRepair`.
    """
    first, second = (Stream.start(model, batches) for model in (pruned, original))
    kept = kept_channels(graph, removed)
    work = WeightRepair(first, second, originals, kept, method, ctx.seed, removed_branches)
    count = work.run(changed_nodes(graph, removed), ctx)
    if count and method != "batch_norm" and _is_worse(work, batches):
        work.writes.undo()
        count = 0
    RemoveUnusedNodesPass()(pruned.ir)  # the constants that were replaced
    return count


def _is_worse(work: WeightRepair, batches: Sequence[Feeds]) -> bool:
    """Return whether the held-out outputs are further from the original's than without repair."""
    held = [n for n in range(len(batches)) if fitted_part(n, len(batches)) < 1]
    work.writes.undo()
    plain = Stream.start(work.pruned.model, [batches[n] for n in held])
    plain.advance(len(plain.model.graph))
    work.writes.redo()
    for stream in (work.pruned, work.original):
        stream.advance(len(stream.model.graph))
    errors = np.zeros(2)
    for spec in work.original.model.outputs:
        if spec.name not in plain.values:  # a weight that is an output
            continue
        wanted = [work.original.values[spec.name][n] for n in held]
        repaired = [work.pruned.values[spec.name][n] for n in held]
        errors += _error(wanted, plain.values[spec.name]), _error(wanted, repaired)
    return bool(errors[1] > errors[0])


def _error(wanted: Sequence[Array], got: Sequence[Array]) -> float:
    """Return the squared error of an output relative to its size; 0 where shapes do not agree."""
    noise = size = 0.0
    for a, b in zip(wanted, got, strict=True):
        if a.shape != b.shape or a.dtype.kind not in "fiu":
            return 0.0
        start = int(len(a) * 0.75) if a.ndim and len(wanted) == 1 else 0
        one, other = a[start:].astype(np.float64), b[start:].astype(np.float64)
        noise += float(np.square(one - other).sum())
        size += float(np.square(one).sum())
    return noise / size if size else 0.0
