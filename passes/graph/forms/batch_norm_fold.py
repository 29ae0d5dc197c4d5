"""BatchNormalization folded into the layer before it.

y = g (W x + b - m) / sqrt(v + e) + t  =  (a W) x + (a (b - m) + t),  a = g / sqrt(v + e)
"""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Array
from trimtab.core.model import Model

from ..edit import add_initializer, replace_output
from ..queries import attr, const, input_at, is_inference_norm, is_onnx_op, is_unused

#: Axis of the output channels in a layer's weight; with a group, ConvTranspose has them twice.
_OUTPUTS = {"Conv": 0, "ConvTranspose": 1}


def fold_norms(model: Model) -> tuple[Model, int]:
    """Fold each BatchNormalization that a convolution alone feeds into that convolution.

    Returns:
        The model, and the number of folded nodes.
    """
    after = model.clone()
    count = sum(fold_norms_of(graph) for graph in list(after.ir.graphs()))
    return dataclasses.replace(model, ir=after.ir), count


def fold_norms_of(graph: ir.Graph) -> int:
    """Fold the norms of a graph, or of a subgraph, in place; return the number of them."""
    return sum(_fold(graph, norm) for norm in list(graph) if is_inference_norm(norm))


def _fold(graph: ir.Graph, norm: ir.Node) -> bool:
    """Fold one; return False where it stays."""
    value = norm.inputs[0]
    layer = value.producer() if value is not None else None
    if layer is None or value is None or not _can_fold(layer, value, graph):
        return False
    weight = _constant(layer.inputs[1])
    old = input_at(layer, 2)
    bias = _constant(old)
    numbers = [_constant(v) for v in norm.inputs[1:5]]
    if weight is None or any(n is None for n in numbers) or not _is_own(layer.inputs[1]):
        return False
    if bias is None and old is not None:
        return False
    scale, shift, mean, var = (np.asarray(n, np.float64) for n in numbers)
    epsilon = attr(norm, "epsilon", 1e-5)
    factor = scale / np.sqrt(var + epsilon)
    shape = [-1 if i == _OUTPUTS[layer.op_type] else 1 for i in range(weight.ndim)]
    start = np.zeros_like(factor) if bias is None else bias.astype(np.float64)
    made = (weight * factor.reshape(shape)).astype(weight.dtype)
    moved = ((start - mean) * factor + shift).astype(weight.dtype)
    _assign(layer.inputs[1], made)
    if old is not None and _is_own(old) and old.graph is graph:
        _assign(old, moved)
    else:
        name = f"{layer.inputs[1].name}.bias"  # type: ignore[union-attr]
        layer.resize_inputs(3)
        layer.replace_input_with(2, add_initializer(graph, name, moved))
    _bypass(graph, norm, layer)
    return True


def _can_fold(layer: ir.Node, value: ir.Value, graph: ir.Graph) -> bool:
    """Return whether a norm behind this layer can be folded into it."""
    if layer.graph is not graph:
        return False  # a layer outside of the branch that the norm stands in
    if layer.op_type not in _OUTPUTS or not is_onnx_op(layer) or not _is_own(value):
        return False
    return layer.op_type == "Conv" or attr(layer, "group", 1) == 1


def _is_own(value: ir.Value | None) -> bool:
    """Return whether one operator reads a weight, and no caller does."""
    return value is not None and len(value.uses()) == 1 and not value.is_graph_output()


def _constant(value: ir.Value | None) -> Array | None:
    array = const(value)
    return array if array is not None and array.dtype.kind == "f" else None


def _assign(value: ir.Value | None, array: Array) -> None:
    assert value is not None
    value.const_value = ir.tensor(np.ascontiguousarray(array), name=value.name)


def _bypass(graph: ir.Graph, norm: ir.Node, layer: ir.Node) -> None:
    """Put the layer's output in the place of the norm's, under its name."""
    replace_output(norm.outputs[0], layer.outputs[0])
    given = [v for v in norm.inputs[1:5] if v is not None]
    graph.remove(norm, safe=True)
    for value in given:
        if is_unused(value) and value.graph is not None and not value.is_graph_input():
            value.graph.initializers.pop(str(value.name), None)
