"""A quantized model without its rounding, which verification can compare.

Two equal sums that are added up in different orders differ in the last bit, and now and then one
is rounded up and the other down: a whole quantization step apart, which no float tolerance allows.
Without rounding, equal functions give equal numbers again.
"""

from __future__ import annotations

import onnx_ir as ir

from trimtab.core.model import Model

from ...graph.constants import is_constant
from ...graph.edit import add_constant, replace_output
from ...graph.queries import is_onnx_op, rank
from ...graph.shapes import infer_shapes
from ..dependency.records import constant_input


def without_rounding(model: Model) -> Model:
    """Return a copy in which activations that are quantized and dequantized are only scaled.

    Scales stay in place, along their axis, since they lose the same channels. A model without such
    pairs is returned as it is.
    """
    if not any(_is_pair(node) for node in model.graph):
        return model
    copy = model.clone()
    infer_shapes(copy.ir)  # scales along an axis need the rank, which a mask leaves open
    for node in list(copy.graph):
        if not _is_pair(node):
            continue
        users = [user for user, _ in node.outputs[0].uses()]
        source = node.inputs[0]
        scales = [_scale(copy.ir, n, rank(source)) for n in (node, *users)]
        if any(scale is None for scale in scales):
            continue
        for user, scale in zip(users, scales[1:], strict=True):
            scaled = _insert(copy.ir, user, "Div", source, scales[0])
            result = _insert(copy.ir, user, "Mul", scaled, scale)
            replace_output(user.outputs[0], result)
            user.outputs[0].name = f"{result.name}_rounded"
    return copy


def _is_pair(node: ir.Node) -> bool:
    """Return whether a node quantizes an activation that all its readers dequantize."""
    if node.op_type != "QuantizeLinear" or not is_onnx_op(node):
        return False
    source, result = node.inputs[0], node.outputs[0]
    if source is None or is_constant(source) or result.is_graph_output():
        return False
    users = [user for user, _ in result.uses()]
    return bool(users) and all(u.op_type == "DequantizeLinear" for u in users)


def _scale(model: ir.Model, node: ir.Node, axes: int | None) -> ir.Value | None:
    """Return the scale of a node, shaped along its axis; None where it is not known."""
    value, array = node.inputs[1], constant_input(node, 1)
    if array is None or value is None or "block_size" in node.attributes:
        return None
    if array.size == 1:
        return add_constant(model, array.reshape(()), f"{value.name}_unrounded")
    if axes is None:
        return None
    shape = [1] * axes
    shape[node.attributes.get_int("axis", 1)] = -1
    return add_constant(model, array.reshape(shape), f"{value.name}_unrounded")


def _insert(
    model: ir.Model, before: ir.Node, op: str, first: ir.Value | None, second: ir.Value | None
) -> ir.Value:
    name = f"trimtab_unrounded_{model.graph.num_nodes()}"
    new_node = ir.node(op, [first, second], name=name)
    new_node.outputs[0].name = name
    model.graph.insert_before(before, new_node)
    return new_node.outputs[0]
