"""Removal of whole residual branches: groups that keep no channel at all.

Where the only reader of a group adds to a residual stream, the group can go as a whole: the branch
then adds nothing, and everything that computes it is dead code. On kernels that work in blocks a
whole branch saves far more time for its multiplications than many layers made a little narrower.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...graph.concrete_shapes import infer_again
from ...graph.edit import add_constant, set_input
from ...graph.queries import producer
from ..dependency.graph import DependencyGraph, Group, WeightAxis
from ..dependency.records import constant_input, weight_array
from .budget import PrunableLayer
from .moments import Reader
from .reader_output import reader_output


def branch_readers(graph: DependencyGraph, groups: Sequence[Group]) -> dict[int, ir.Node]:
    """Return the reader of each group that could go as a whole, by the group's number."""
    readers: dict[int, list[WeightAxis]] = {}
    owner = graph.owners(groups)
    for row in graph.weight_axes:
        for number in () if row.produces else set(map(int, owner[row.units])):
            readers.setdefault(number, []).append(row)
    result = {}
    streams: set[ir.Value | None] = set()
    for number, group in enumerate(groups):
        rows = readers.get(number, [])
        if len(rows) == 1 and _whole(rows[0], group, graph.trace.shapes.sizes):
            node = rows[0].operand.node
            output = reader_output(node)
            if output.result in streams:
                continue  # one of two branches that are added to each other has to stay
            streams.add(output.stream)
            result[number] = node
    return result


def _whole(row: WeightAxis, group: Group, sizes: Mapping[str, tuple[int, ...]]) -> bool:
    """Return whether a reader reads nothing else, and adds to a stream of its own shape."""
    node = row.operand.node
    if not np.isin(row.units, group.units).all() or Reader.of(node) is None:
        return False
    output = reader_output(node)
    if output.stream is None or output.bias is None:
        return False
    return sizes.get(str(output.stream.name), ()) == sizes.get(str(output.result.name), None)


def residual_additions(
    graph: DependencyGraph, found: Sequence[PrunableLayer], readers: Mapping[int, ir.Node]
) -> list[PrunableLayer]:
    """Return the sums at the ends of branches as layers of the stream's and branch's channels.

    Their numbers follow those of the operators that multiply.
    """
    costs, nodes = graph.trace.costs, set(readers.values())
    return [
        PrunableLayer(len(costs) + layer.index, layer.base[-2:], layer.parts[-2:])
        for layer in found
        if costs[layer.index].node in nodes and len(layer.base) > 1
    ]


def zero_branches(model: ir.Model, readers: Sequence[ir.Node]) -> None:
    """Set weights and biases of these readers to zero, in place.

    The mean of a branch is not kept as a constant: adding one may take an int8 kernel more time
    than a whole convolution, and the readers of the stream can compensate it.
    """
    for node in readers:
        set_input(model, node, 1, np.zeros_like(weight_array(node)))
        output = reader_output(node)
        assert output.bias is not None
        bias_node, index = output.bias
        bias = constant_input(bias_node, index)
        if bias is not None:
            set_input(model, bias_node, index, np.zeros_like(bias))


def remove_branches(model: ir.Model, readers: Sequence[ir.Node]) -> None:
    """Remove readers from the streams that they add zero to, in place."""
    for node in readers:
        output = reader_output(node)
        added = next(iter(output.result.uses())).node
        stream, total = output.stream, added.outputs[0]
        assert stream is not None
        if total.is_graph_output():
            zero = np.zeros([1] * weight_array(node).ndim, np.float32)
            output.result.replace_all_uses_with(add_constant(model, zero, f"{total.name}_zero"))
            continue
        total.replace_all_uses_with(stream)
        _drop_second_relus(stream)
    RemoveUnusedNodesPass()(model)
    infer_again(model)


def _drop_second_relus(stream: ir.Value) -> None:
    """Remove each Relu of a Relu, which changes nothing."""
    if producer(stream, "Relu") is None:
        return
    for user, _ in list(stream.uses()):
        if user.op_type == "Relu" and not user.outputs[0].is_graph_output():
            user.outputs[0].replace_all_uses_with(stream)
