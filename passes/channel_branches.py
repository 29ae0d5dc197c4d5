"""Removing whole residual branches: a group of no channels at all.

Where the only reader of a group adds to a residual stream, the group can go altogether: the branch
then is the constant that its reader's bias is, and all that made it is dead code. On kernels that
work in blocks a whole branch gives far more time back for its multiplications than many layers made
a little narrower.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from .channel_moments import Reader
from .channel_repair import place_of
from .channel_shapes import Shapes, infer_again
from .labels_classes import Group, Labels
from .labels_edit import add_constant, set_input
from .labels_parts import Array, Sink, constant_array


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
    for number, group in enumerate(groups):
        sinks = readers.get(number, [])
        if len(sinks) == 1 and _whole(sinks[0], labels, group, labels.trace.shapes):
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


def silence(model: ir.Model, readers: Sequence[ir.Node]) -> None:
    """Set the weights of these readers to zero; in place."""
    for node in readers:
        set_input(model, node, 1, np.zeros_like(_weight(node)))


def short_circuit(model: ir.Model, readers: Sequence[ir.Node]) -> None:
    """Replace readers whose weights are zero by what they compute, their bias; in place."""
    for node in readers:
        place = place_of(node)
        assert place.bias is not None
        holder, index = place.bias
        given = holder.inputs[index] if index < len(holder.inputs) else None
        bias = _zeros(node) if given is None else constant_array(given)
        assert bias is not None
        if node.op_type == "Conv":
            spatial = len(_weight(node).shape) - 2
            bias = bias.reshape(1, -1, *[1] * spatial)
        constant = add_constant(model, bias, f"{place.result.name}_branch")
        place.result.replace_all_uses_with(constant)
    RemoveUnusedNodesPass()(model)
    infer_again(model)


def _weight(node: ir.Node) -> Array:
    value = node.inputs[1]
    array = None if value is None else constant_array(value)
    assert array is not None
    return array


def _zeros(node: ir.Node) -> Array:
    reader = Reader.of(node)
    assert reader is not None
    return np.zeros(len(reader.weight()), np.float32)
