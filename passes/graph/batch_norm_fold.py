"""BatchNormalization folded into the layer before it.

y = g (W x + b - m) / sqrt(v + e) + t  =  (a W) x + (a (b - m) + t),  a = g / sqrt(v + e)
"""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Array
from trimtab.core.model import Model

from .edit import add_initializer
from .queries import attr, input_at

#: Axis of the output channels in a layer's weight; with a group, ConvTranspose has them twice.
_OUTPUTS = {"Conv": 0, "ConvTranspose": 1}


def fold_norms(model: Model) -> tuple[Model, int]:
    """Fold each BatchNormalization that a convolution alone feeds into that convolution.

    Returns:
        The model, and the number of folded nodes.
    """
    after = model.clone()
    count = 0
    for norm in list(after.graph):
        if norm.op_type == "BatchNormalization" and not any(v.uses() for v in norm.outputs[1:]):
            count += _fold(after.graph, norm)
    return dataclasses.replace(model, ir=after.ir), count


def _fold(graph: ir.Graph, norm: ir.Node) -> bool:
    """Fold one; return False where it stays."""
    value = norm.inputs[0]
    layer = value.producer() if value is not None else None
    if layer is None or value is None or not _can_fold(layer, value):
        return False
    weight = _constant(layer.inputs[1])
    old = input_at(layer, 2)
    bias = _constant(old)
    numbers = [_constant(v) for v in norm.inputs[1:5]]
    shared = len(layer.inputs[1].uses()) > 1 if layer.inputs[1] is not None else True
    if weight is None or shared or any(n is None for n in numbers):
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
    if old is not None and len(old.uses()) == 1:
        _assign(old, moved)
    else:
        name = f"{layer.inputs[1].name}.bias"  # type: ignore[union-attr]
        layer.resize_inputs(3)
        layer.replace_input_with(2, add_initializer(graph, name, moved))
    _bypass(graph, norm, layer)
    return True


def _can_fold(layer: ir.Node, value: ir.Value) -> bool:
    """Return whether a norm behind this layer can be folded into it."""
    if layer.op_type not in _OUTPUTS or len(value.uses()) != 1 or value.is_graph_output():
        return False
    return layer.op_type == "Conv" or attr(layer, "group", 1) == 1


def _constant(value: ir.Value | None) -> Array | None:
    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    array: Array = value.const_value.numpy()
    return array if array.dtype.kind == "f" else None


def _assign(value: ir.Value | None, array: Array) -> None:
    assert value is not None
    value.const_value = ir.tensor(np.ascontiguousarray(array), name=value.name)


def _bypass(graph: ir.Graph, norm: ir.Node, layer: ir.Node) -> None:
    """Put the layer's output in the place of the norm's, under its name."""
    made, old = layer.outputs[0], norm.outputs[0]
    made.type, made.shape, name = old.type, old.shape, old.name
    old.replace_all_uses_with(made, replace_graph_outputs=True)
    given = [v for v in norm.inputs[1:5] if v is not None]
    graph.remove(norm, safe=True)
    made.name = name
    for value in given:
        if not value.uses() and not value.is_graph_output() and value.name:
            graph.initializers.pop(value.name, None)
