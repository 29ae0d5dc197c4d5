"""Repair without training: weights that read the remaining channels are solved for again.

For a reader with weights W, input x in the pruned model and a wanted output y, the least squares
W, b = argmin E|W x + b - y|^2 = Cov(y, x) Cov(x, x)^-1 come from second moments in one pass (He et
al. 2017, arXiv 1707.06168; OBSPA, arXiv 2403.18955). The wanted output is the original model's on
its own input, so that errors of earlier layers are compensated and not passed on. Where the output
is added to a residual stream, the target is the original's sum minus the pruned model's stream:
each block then corrects the error of the stream, which the plain target would leave in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from trimtab.core.context import Context
from trimtab.core.data import Array
from trimtab.core.model import Model

from ...graph.constants import constant_array, is_constant
from ...graph.edit import set_input
from ...graph.queries import only_user, pair
from ...graph.streaming_run import Stream
from ..dependency.graph import DependencyGraph
from ..dependency.records import constant_input
from .loss_curves import with_ridge
from .moments import LARGEST, Feeds, Moments, Reader, channel_statistics, moments


@dataclass(frozen=True, eq=False)
class ReaderOutput:
    """Output of a reader, its bias, and the residual stream that it is added to.

    Attributes:
        bias: node and input of the bias, None where there is none to write to.
        result: the output with the bias.
        stream: the other operand where the output is added to a stream, else None.
    """

    bias: tuple[ir.Node, int] | None
    result: ir.Value
    stream: ir.Value | None


def reader_output(node: ir.Node) -> ReaderOutput:
    """Follow a reader to its bias and to the stream that its output is added to."""
    result = node.outputs[0]
    bias: tuple[ir.Node, int] | None = (node, 2)
    if node.op_type == "MatMul":
        bias = None
        added = _added(result)
        if added and is_constant(added[1]) and _is_vector(added[1]):
            bias = (added[0], added[0].inputs.index(added[1]))
            result = added[0].outputs[0]
    added = _added(result)
    stream = added[1] if added and not is_constant(added[1]) else None
    return ReaderOutput(bias, result, stream)


def _added(value: ir.Value) -> tuple[ir.Node, ir.Value] | None:
    """Return the Add that alone reads a tensor, and its other operand."""
    node = only_user(value)
    if node is None or node.op_type != "Add":
        return None
    a, b = pair(node)
    return node, b if a is value else a


def _is_vector(value: ir.Value) -> bool:
    array = constant_array(value)
    return array is not None and array.ndim > 0 and array.size == array.shape[-1]


@dataclass(frozen=True, eq=False)
class WeightRepair:
    """Repair of a pruned model while both models run through the data.

    Attributes:
        pruned: run of the model that is repaired, in place.
        original: run of the original model.
        originals: the original's node for each node that the pruned model kept.
        kept: for a node of the pruned model, mask of the original outputs that stayed.
        method: least_squares solves for weights, bias corrects biases alone, batch_norm neither.
        seed: random seed of the choice of positions.
        removed_branches: readers of branches that go as a whole, whose outputs are zero.
    """

    pruned: Stream
    original: Stream
    originals: Mapping[ir.Node, ir.Node]
    kept: Mapping[ir.Node, NDArray[np.bool_]]
    method: str
    seed: int
    removed_branches: Sequence[ir.Node] = ()

    def run(self, changed: set[ir.Node], narrowed: set[ir.Node], ctx: Context) -> int:
        """Repair readers of fewer channels and those that add to a stream, behind `changed`.

        Return the number of operators that were repaired.
        """
        nodes = list(self.pruned.model.graph)
        dirty: set[ir.Value] = set()
        todo: list[tuple[int, Reader | None]] = []
        for index, node in enumerate(nodes):
            behind = any(v in dirty for v in node.inputs)
            if behind and (reader := self._reader(node, narrowed)) is not None:
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
        return len(todo)

    def _reader(self, node: ir.Node, narrowed: set[ir.Node]) -> Reader | None:
        """Return the reader of a node where it is to be repaired."""
        known = node in self.originals and node not in self.removed_branches
        if self.method == "batch_norm" or not known:
            return None
        # Others would only adapt to errors that those behind them compensate better.
        wanted = node in narrowed or reader_output(node).stream is not None
        return Reader.of(node) if wanted else None

    def _estimate(self, index: int, norm: ir.Node) -> None:
        """Estimate the statistics of a BatchNormalization from its present input."""
        self.pruned.advance(index)
        inputs = self.pruned.peek(pair(norm)[0])
        for place, array in enumerate(channel_statistics(inputs, 1), start=3):
            set_input(self.pruned.model.ir, norm, place, array.astype(np.float32))

    def _repair(self, index: int, reader: Reader) -> None:
        here = reader_output(reader.node)
        there = reader_output(self.originals[reader.node])
        self.pruned.advance(index)
        producer = there.result.producer()
        self.original.advance(list(self.original.model.graph).index(producer) + 1)  # type: ignore[arg-type]
        targets = self._targets(reader, here, there)
        found = moments(reader, self.pruned.peek(reader.source), targets, self.seed)
        if self.method == "least_squares" and len(found.xx) <= LARGEST:
            weight = np.linalg.solve(with_ridge(found.xx), found.xy).T
            self._write(reader, here, weight, found)
        elif here.bias is not None:
            self._write(reader, here, reader.weight().astype(np.float64), found)

    def _targets(self, reader: Reader, here: ReaderOutput, there: ReaderOutput) -> Sequence[Array]:
        """Return the wanted outputs of the channels that stay, batch by batch."""
        axis = 1 if reader.node.op_type == "Conv" else -1
        keep = self.kept.get(reader.node)

        def left(array: Array) -> Array:
            return array if keep is None else np.compress(keep, array, axis=axis)

        wanted = [left(y) for y in self.original.peek(there.result)]
        if here.stream is None or there.stream is None:
            return wanted
        before, now = self.original.peek(there.stream), self.pruned.peek(here.stream)
        rows = [(w, left(b), n) for w, b, n in zip(wanted, before, now, strict=True)]
        if any(b.shape != n.shape or n.shape != w.shape for w, b, n in rows):
            return wanted
        return [w + (b - n) for w, b, n in rows]

    def _write(self, reader: Reader, here: ReaderOutput, weight: Array, found: Moments) -> None:
        """Write new weights, and the bias that makes the means agree."""
        model = self.pruned.model.ir
        if here.bias is None:  # without one the means are part of what the weights explain
            xx = found.xx + np.outer(found.mean_x, found.mean_x)
            xy = found.xy + np.outer(found.mean_x, found.mean_y)
            weight = np.linalg.solve(with_ridge(xx), xy).T
        else:
            node, index = here.bias
            bias = found.mean_y - weight @ found.mean_x
            old = constant_input(node, index)
            assert old is not None or index >= len(node.inputs) or node.inputs[index] is None
            shape = (-1,) if old is None else old.shape
            set_input(model, node, index, bias.reshape(shape).astype(np.float32))
        if self.method == "least_squares":
            set_input(model, reader.node, 1, reader.shaped(weight).astype(np.float32))


def kept_outputs(graph: DependencyGraph, removed: list[int]) -> dict[ir.Node, NDArray[np.bool_]]:
    """Return a mask of the outputs that stay, for each operator with a weight."""
    keep = graph.keep(removed)
    return {
        row.operand.node: keep.mask(row.ids)
        for row in graph.weight_axes
        if row.produces and row.operand.input_axis is not None
    }


def changed_nodes(graph: DependencyGraph, removed: list[int]) -> tuple[set[ir.Node], set[ir.Node]]:
    """Return operators that lose a part of a constant, and those that read fewer channels."""
    keep = graph.keep(removed)
    changed = {use.node for use in graph.trace.uses if keep.any(use.axes)}
    read = [row for row in graph.weight_axes if not row.produces]
    return changed, {row.operand.node for row in read if keep.changes(row.ids)}


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

    `graph` is that of the pruned model, from before `removed` were cut; the other arguments are
    fields of `WeightRepair`.
    """
    first, second = (Stream.start(model, batches) for model in (pruned, original))
    kept = kept_outputs(graph, removed)
    work = WeightRepair(first, second, originals, kept, method, ctx.seed, removed_branches)
    count = work.run(*changed_nodes(graph, removed), ctx)
    RemoveUnusedNodesPass()(pruned.ir)  # the constants that were replaced
    return count
