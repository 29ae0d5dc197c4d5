"""Removing whole residual branches: a group of no channels at all.

Where the only reader of a group adds to a residual stream, the group can go altogether: the branch
then adds nothing, and all that made it is dead code. On kernels that work in blocks a whole branch
gives far more time back for its multiplications than many layers made a little narrower.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from trimtab.core.data import Array

from ...graph.concrete_shapes import Shapes, infer_again
from ...graph.constants import constant_array
from ...graph.edit import add_constant, set_input
from ..dependency.groups import Group, Labels
from ..dependency.parts import Sink
from .budget import Layer
from .moments import Reader
from .weight_repair import place_of


def branch_readers(labels: Labels, groups: Sequence[Group]) -> dict[int, ir.Node]:
    """The reader of each group that could go altogether, by the group's number."""
    readers: dict[int, list[Sink]] = {}
    owner = {int(c): number for number, g in enumerate(groups) for c in g.classes}
    for sink in labels.weights:
        ids = None if sink.into is None else sink.axes[sink.into]
        found = set() if ids is None else {owner.get(int(c), -1) for c in labels.class_of[ids]}
        for number in found:
            readers.setdefault(number, []).append(sink)
    result = {}
    streams: set[ir.Value | None] = set()
    for number, group in enumerate(groups):
        sinks = readers.get(number, [])
        if len(sinks) == 1 and _whole(sinks[0], labels, group, labels.trace.shapes):
            place = place_of(sinks[0].node)
            if place.result in streams:
                continue  # of two branches that are added to each other one has to stay
            streams.add(place.stream)
            result[number] = sinks[0].node
    return result


def _whole(sink: Sink, labels: Labels, group: Group, shapes: Shapes) -> bool:
    """Whether a reader reads nothing else, and adds to a stream of its own shape."""
    assert sink.into is not None
    ids = sink.axes[sink.into]
    assert ids is not None
    if not np.isin(labels.class_of[ids], group.classes).all() or Reader.of(sink.node) is None:
        return False
    place = place_of(sink.node)
    if place.stream is None or place.bias is None:
        return False
    sizes = shapes.sizes
    return sizes.get(str(place.stream.name), ()) == sizes.get(str(place.result.name), None)


def additions(
    labels: Labels, found: Sequence[Layer], readers: Mapping[int, ir.Node]
) -> list[Layer]:
    """The sums at the ends of branches as layers: their stream's channels, and the branch's.

    Their numbers follow those of the operators that multiply.
    """
    costs, nodes = labels.trace.costs, set(readers.values())
    return [
        Layer(len(costs) + layer.index, layer.base[-2:], layer.parts[-2:])
        for layer in found
        if costs[layer.index].node in nodes and len(layer.base) > 1
    ]


def silence(model: ir.Model, readers: Sequence[ir.Node]) -> None:
    """Set weights and biases of these readers to zero; in place.

    The mean of a branch is not kept as a constant: adding one costs an int8 kernel more time than a
    whole convolution may, and what reads the stream can make up for it.
    """
    for node in readers:
        set_input(model, node, 1, np.zeros_like(_weight(node)))
        place = place_of(node)
        assert place.bias is not None
        holder, index = place.bias
        given = holder.inputs[index] if index < len(holder.inputs) else None
        array = None if given is None else constant_array(given)
        if array is not None:
            set_input(model, holder, index, np.zeros_like(array))


def short_circuit(model: ir.Model, readers: Sequence[ir.Node]) -> None:
    """Take silent readers out of the streams that they add zero to; in place."""
    for node in readers:
        place = place_of(node)
        added = next(iter(place.result.uses())).node
        stream, total = place.stream, added.outputs[0]
        assert stream is not None
        if total.is_graph_output():
            zero = np.zeros([1] * len(_weight(node).shape), np.float32)
            place.result.replace_all_uses_with(add_constant(model, zero, f"{total.name}_zero"))
            continue
        total.replace_all_uses_with(stream)
        _drop_second_relus(stream)
    RemoveUnusedNodesPass()(model)
    infer_again(model)


def _drop_second_relus(stream: ir.Value) -> None:
    """A Relu of a Relu changes nothing."""
    maker = stream.producer()
    if maker is None or maker.op_type != "Relu":
        return
    for user, _ in list(stream.uses()):
        if user.op_type == "Relu" and not user.outputs[0].is_graph_output():
            user.outputs[0].replace_all_uses_with(stream)


def _weight(node: ir.Node) -> Array:
    value = node.inputs[1]
    array = None if value is None else constant_array(value)
    assert array is not None
    return array
