"""Layers and weights of a graph: trees and tables of categories have none."""

from __future__ import annotations

import onnx_ir as ir

from trimtab.core.ort.int8_share import FLOAT_OPS, INT8_OPS, QDQ_OPS

from .queries import is_onnx_op
from .stored.compressed import SMALLEST

_LAYERS = FLOAT_OPS | INT8_OPS | QDQ_OPS | {"Einsum"}
#: Domain of operators that keep what they have learned in attributes.
LEARNED_DOMAIN = "ai.onnx.ml"


def has_layers(model: ir.Model) -> bool:
    """Return whether a model may have a layer, or a weight that is worth storing otherwise.

    It has none where trees or the like are all that has learned something, with a little arithmetic
    around them. Operators of other libraries and local functions may be anything.
    """
    learned = any(node.domain == LEARNED_DOMAIN for node in model.graph.all_nodes())
    if model.functions or not learned:
        return True
    for node in model.graph.all_nodes():
        known = is_onnx_op(node) or node.domain == LEARNED_DOMAIN
        if not known or node.op_type in _LAYERS or _holds_weight(node):
            return True
    weights = (v.const_value for g in model.graphs() for v in g.initializers.values())
    return any(_is_weight(tensor) for tensor in weights)


def has_only_learned(model: ir.Model) -> bool:
    """Return whether nodes that hold what they have learned, and casts, are all there is."""
    free = {"Cast", "Identity"}
    return not model.functions and all(
        node.domain == LEARNED_DOMAIN or (is_onnx_op(node) and node.op_type in free)
        for node in model.graph.all_nodes()
    )


def _holds_weight(node: ir.Node) -> bool:
    held = node.attributes.get("value") if node.op_type == "Constant" else None
    return (
        held is not None and held.type == ir.AttributeType.TENSOR and _is_weight(held.as_tensor())
    )


def _is_weight(tensor: ir.TensorProtocol | None) -> bool:
    return tensor is not None and tensor.dtype.is_floating_point() and tensor.size >= SMALLEST
