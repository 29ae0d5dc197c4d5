"""Repair without training: what reads the channels that are left is solved for anew.

For a reader with weights W, input x in the pruned model and a wanted output y, the least squares
W, b = argmin E|W x + b - y|^2 = Cov(y, x) Cov(x, x)^-1 come from second moments in one pass (He et
al. 2017, arXiv 1707.06168; OBSPA, arXiv 2403.18955). Wanted is what the original computes on its
own input, so that errors of earlier layers are made up for, not handed on. Where the output is
added to a residual stream, wanted is the original's sum less the pruned model's stream: each block
then corrects the error that the stream carries, which the plain target leaves in it for good.
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
from ...graph.streaming_run import Stream
from ..dependency.groups import Labels
from .loss_curves import damped
from .moments import LARGEST, Moments, Reader, channel_statistics, moments

Feeds = dict[str, Array]


@dataclass(frozen=True, eq=False)
class Place:
    """Where a reader's output ends, with its bias.

    Attributes:
        bias: node and input that hold the bias, None where there is none to write to.
        result: the output, bias included.
        stream: the other operand where the output is added to a stream, else None.
    """

    bias: tuple[ir.Node, int] | None
    result: ir.Value
    stream: ir.Value | None


def place_of(node: ir.Node) -> Place:
    """Follow a reader to its bias and to the stream that it is added to."""
    result = node.outputs[0]
    bias: tuple[ir.Node, int] | None = (node, 2)
    if node.op_type == "MatMul":
        bias = None
        added = _added(result)
        if added and is_constant(added[1]) and _is_vector(added[1]):
            bias = (added[0], [v is added[1] for v in added[0].inputs].index(True))
            result = added[0].outputs[0]
    added = _added(result)
    stream = added[1] if added and not is_constant(added[1]) else None
    return Place(bias, result, stream)


def _added(value: ir.Value) -> tuple[ir.Node, ir.Value] | None:
    """The Add that alone reads a tensor, and its other operand."""
    users = list(value.uses())
    if len(users) != 1 or value.is_graph_output() or users[0][0].op_type != "Add":
        return None
    node, index = users[0]
    other = node.inputs[1 - index]
    return None if other is None else (node, other)


def _is_vector(value: ir.Value) -> bool:
    array = constant_array(value)
    return array is not None and array.ndim > 0 and array.size == array.shape[-1]


@dataclass(frozen=True, eq=False)
class Repair:
    """Both models on their way through the data, the pruned one changed behind the run.

    Attributes:
        pruned: the model that is repaired, in place.
        original: as it was.
        twins: the original's node for each that the pruned one kept.
        kept: for a node of the pruned model, which of its original outputs stayed.
        how: least_squares solves for weights, bias corrects biases alone, batch_norm neither.
        seed: of the choice of positions.
        emptied: readers of branches that go altogether, which are silent from now on.
    """

    pruned: Stream
    original: Stream
    twins: Mapping[ir.Node, ir.Node]
    kept: Mapping[ir.Node, NDArray[np.bool_]]
    how: str
    seed: int
    emptied: Sequence[ir.Node] = ()

    def run(self, changed: set[ir.Node], narrowed: set[ir.Node], ctx: Context) -> int:
        """Repair what reads fewer channels or adds to a stream, behind what `changed`, in order.

        Returns:
            How many operators were repaired.
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
        """The reader that a node is, where it is to be repaired."""
        if self.how == "batch_norm" or node not in self.twins or node in self.emptied:
            return None
        # Others would only adapt to errors that those behind them make up for better.
        wanted = node in narrowed or place_of(node).stream is not None
        return Reader.of(node) if wanted else None

    def _estimate(self, index: int, norm: ir.Node) -> None:
        """The statistics of a BatchNormalization, of what arrives at it now."""
        self.pruned.advance(index)
        source = norm.inputs[0]
        assert source is not None
        for place, array in enumerate(channel_statistics(self.pruned.peek(source), 1), start=3):
            set_input(self.pruned.model.ir, norm, place, array.astype(np.float32))

    def _repair(self, index: int, reader: Reader) -> None:
        here = place_of(reader.node)
        there = place_of(self.twins[reader.node])
        source = reader.node.inputs[0]
        assert source is not None
        self.pruned.advance(index)
        maker = there.result.producer()
        self.original.advance(list(self.original.model.graph).index(maker) + 1)  # type: ignore[arg-type]
        targets = self._targets(reader, here, there)
        found = moments(reader, self.pruned.peek(source), targets, self.seed)
        if self.how == "least_squares" and len(found.xx) <= LARGEST:
            weight = np.linalg.solve(damped(found.xx), found.xy).T
            self._write(reader, here, weight, found)
        elif here.bias is not None:
            self._write(reader, here, reader.weight().astype(np.float64), found)

    def _targets(self, reader: Reader, here: Place, there: Place) -> Sequence[Array]:
        """What the reader shall make, batch by batch, of the channels that are left."""
        axis = 1 if reader.node.op_type == "Conv" else -1
        keep = self.kept.get(reader.node)

        def left(array: Array) -> Array:
            return array if keep is None else np.compress(keep, array, axis=axis)

        wanted = [left(y) for y in self.original.peek(there.result)]
        if here.stream is None or there.stream is None:
            return wanted
        before, now = self.original.peek(there.stream), self.pruned.peek(here.stream)
        if any(
            left(b).shape != n.shape or n.shape != w.shape
            for b, n, w in zip(before, now, wanted, strict=True)
        ):
            return wanted
        return [w + (left(b) - n) for w, b, n in zip(wanted, before, now, strict=True)]

    def _write(self, reader: Reader, here: Place, weight: Array, found: Moments) -> None:
        """New weights, and the bias that makes the means agree."""
        model = self.pruned.model.ir
        if here.bias is None:  # without one the means are part of what the weights explain
            xx = found.xx + np.outer(found.mean_x, found.mean_x)
            xy = found.xy + np.outer(found.mean_x, found.mean_y)
            weight = np.linalg.solve(damped(xx), xy).T
        else:
            node, index = here.bias
            bias = found.mean_y - weight @ found.mean_x
            old = node.inputs[index] if index < len(node.inputs) else None
            shape = (-1,) if old is None else constant_array(old).shape  # type: ignore[union-attr]
            set_input(model, node, index, bias.reshape(shape).astype(np.float32))
        if self.how == "least_squares":
            set_input(model, reader.node, 1, reader.shaped(weight).astype(np.float32))


def kept_outputs(labels: Labels, dead: list[int]) -> dict[ir.Node, NDArray[np.bool_]]:
    """For each operator with a weight, which of its outputs stay."""
    keep = labels.keep(dead)
    found = {}
    for sink in labels.weights:
        if sink.into is None:
            continue
        for axis, ids in enumerate(sink.axes):
            if axis != sink.into and ids is not None:
                found[sink.node] = keep.mask(ids)
    return found


def changed_nodes(labels: Labels, dead: list[int]) -> tuple[set[ir.Node], set[ir.Node]]:
    """Operators that lose a part of a constant, and among them those that read fewer channels."""
    keep = labels.keep(dead)
    changed = {use.node for use in labels.trace.uses if keep.any(use.axes)}
    weights = [s for s in labels.weights if s.into is not None]
    return changed, {s.node for s in weights if keep.changes(s.axes[s.into or 0])}


def repair(
    pruned: Model,
    original: Model,
    labels: Labels,
    dead: list[int],
    batches: Sequence[Feeds],
    ctx: Context,
    *,
    twins: Mapping[ir.Node, ir.Node],
    emptied: Sequence[ir.Node] = (),
    how: str,
) -> int:
    """Repair a pruned model in place; the number of operators that were.

    Args:
        pruned: after the cut.
        original: before it.
        labels: of the pruned model, traced before the cut.
        dead: classes that went.
        batches: calibration data.
        ctx: for progress and seed.
        twins: the original's node for each of the pruned model.
        emptied: readers of branches that go altogether.
        how: least_squares solves for weights, bias corrects biases alone, batch_norm neither.
    """
    work = Repair(
        Stream.start(pruned, batches),
        Stream.start(original, batches),
        twins,
        kept_outputs(labels, dead),
        how,
        ctx.seed,
        emptied,
    )
    changed, narrowed = changed_nodes(labels, dead)
    count = work.run(changed, narrowed, ctx)
    RemoveUnusedNodesPass()(pruned.ir)  # the constants that were solved for anew
    return count
