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

from trimtab.core.data import Array

from ...graph.concrete_shapes import Shapes, infer_again
from ...graph.edit import add_constant, set_input
from ...graph.queries import producer
from ..dependency.graph import DependencyGraph, Group
from ..dependency.records import Operand, constant_input
from .budget import PrunableLayer
from .moments import Reader
from .weight_repair import reader_output


def branch_readers(graph: DependencyGraph, groups: Sequence[Group]) -> dict[int, ir.Node]:
    """Return the reader of each group that could go as a whole, by the group's number."""
    readers: dict[int, list[Operand]] = {}
    owner = {int(c): number for number, g in enumerate(groups) for c in g.units}
    for operand in graph.weights:
        ids = None if operand.input_axis is None else operand.axes[operand.input_axis]
        found = set() if ids is None else {owner.get(int(c), -1) for c in graph.unit_of[ids]}
        for number in found:
            readers.setdefault(number, []).append(operand)
    result = {}
    streams: set[ir.Value | None] = set()
    for number, group in enumerate(groups):
        operands = readers.get(number, [])
        if len(operands) == 1 and _whole(operands[0], graph, group, graph.trace.shapes):
            output = reader_output(operands[0].node)
            if output.result in streams:
                continue  # one of two branches that are added to each other has to stay
            streams.add(output.stream)
            result[number] = operands[0].node
    return result


def _whole(operand: Operand, graph: DependencyGraph, group: Group, shapes: Shapes) -> bool:
    """Return whether a reader reads nothing else, and adds to a stream of its own shape."""
    assert operand.input_axis is not None
    ids = operand.axes[operand.input_axis]
    assert ids is not None
    if not np.isin(graph.unit_of[ids], group.units).all() or Reader.of(operand.node) is None:
        return False
    output = reader_output(operand.node)
    if output.stream is None or output.bias is None:
        return False
    sizes = shapes.sizes
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
        set_input(model, node, 1, np.zeros_like(_weight(node)))
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
            zero = np.zeros([1] * len(_weight(node).shape), np.float32)
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


def _weight(node: ir.Node) -> Array:
    weight = constant_input(node, 1)
    assert weight is not None
    return weight
