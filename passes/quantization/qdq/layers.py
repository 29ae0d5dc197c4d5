"""Integer weights and biases of products, with scales that fit each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.data import Floats
from trimtab.core.ort.overflow import largest_pairs

from ...graph.queries import attr, input_at
from ...graph.stored.weight_scales import channel_axis
from .int8_operators import is_fixed
from .integers import Grid, bias_integers, magnitudes, rounded, weight_grid
from .roles import FLOATS, element_type
from .scheme import Scheme
from .tensors import Tensors

#: Weight and the axis of its channels: layers that read it in two layouts get a copy each.
WeightKey = tuple[ir.Value, int | None]
#: Largest part of 32 bits that a bias may take.
_BIAS_LIMIT = np.iinfo(np.int32).max / 1.0001


@dataclass
class _Layer:
    """Layer with a weight of the file.

    Attributes:
        node: the layer.
        key: its weight.
        unit: scale of its input times alpha, that is, the scale of its sums over that of its
            weight.
        bias: bias times beta, (channels,) or for Gemm (rows, channels); None where it stays float.
    """

    node: ir.Node
    key: WeightKey
    unit: float
    bias: Floats | None


def write_layers(
    nodes: Sequence[ir.Node],
    scheme: Scheme,
    tensors: Tensors,
    grid_of: Callable[[ir.Value], Grid],
) -> None:
    """Give products integer weights and biases, in place.

    Args:
        nodes: products in the order of the graph.
        scheme: types of the integers.
        tensors: adds tensors to the graph.
        grid_of: returns the scale of an activation.
    """
    layers = [_layer(node, scheme, grid_of) for node in nodes if is_fixed(node.inputs[1])]
    least: dict[WeightKey, Floats | float] = {}
    for layer in layers:
        if layer.bias is not None:
            least[layer.key] = np.maximum(least.get(layer.key, 0.0), _least_scale(layer))
    weights: dict[WeightKey, tuple[ir.Value, Grid]] = {}
    for layer in layers:
        if layer.key not in weights:
            weights[layer.key] = _write_weight(layer, scheme, tensors, least.get(layer.key, 0.0))
        value, grid = weights[layer.key]
        layer.node.replace_input_with(1, value)
        if layer.bias is not None:
            _write_bias(layer, layer.bias, grid, tensors)


def _layer(node: ir.Node, scheme: Scheme, grid_of: Callable[[ir.Value], Grid]) -> _Layer:
    value, weight = node.inputs[:2]
    assert value is not None
    assert weight is not None
    axis = _axis(node, weight) if scheme.per_channel else None
    unit = float(grid_of(value).scale) * attr(node, "alpha", 1.0)
    return _Layer(node, (weight, axis), unit, None if scheme.inputs_only else _bias(node, weight))


def _axis(node: ir.Node, weight: ir.Value) -> int | None:
    """Return the axis of output channels, None where the kernels take one scale only."""
    assert weight.const_value is not None
    rank = len(weight.const_value.shape)
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "MatMul" and rank != 2:
        return None
    axis = channel_axis(node)
    return None if axis is None else axis % rank


def _channels(node: ir.Node, weight: ir.Value) -> int:
    assert weight.const_value is not None
    shape = weight.const_value.shape.numpy()
    if node.op_type == "ConvTranspose":
        return shape[1] * attr(node, "group", 1)
    return shape[channel_axis(node) or 0]


def _bias(node: ir.Node, weight: ir.Value) -> Floats | None:
    """Return the bias times beta, one value a channel; None where there is none to round."""
    value = input_at(node, 2)
    if value is None or value.const_value is None or element_type(value) not in FLOATS:
        return None
    array = value.const_value.numpy().astype(np.float64) * attr(node, "beta", 1.0)
    channels = _channels(node, weight)
    if node.op_type != "Gemm":
        return array if array.shape == (channels,) else None
    one_row = array.ndim < 2 or array.shape[0] == 1
    shape = (channels,) if one_row else (array.shape[0], channels)
    return np.broadcast_to(array.reshape(-1) if one_row else array, shape)


def _least_scale(layer: _Layer) -> Floats | float:
    """Return the least scale of the weight for which the bias fits into 32 bits."""
    assert layer.bias is not None
    largest = np.abs(layer.bias) / (_BIAS_LIMIT * layer.unit)
    if layer.key[1] is None:
        return float(largest.max(initial=0.0))
    rows = largest.reshape(-1, largest.shape[-1]).max(axis=0)
    weight = layer.key[0].const_value
    assert weight is not None
    least: Floats = rows.reshape(-1, weight.shape.numpy()[layer.key[1]]).max(axis=0)
    return least


def _write_weight(
    layer: _Layer, scheme: Scheme, tensors: Tensors, least_scale: Floats | float
) -> tuple[ir.Value, Grid]:
    weight, axis = layer.key
    assert weight.const_value is not None
    array = weight.const_value.numpy()
    grid = weight_grid(
        magnitudes(array, axis),
        scheme.weight,
        weight.const_value.dtype,
        reduce_range=scheme.reduce_range,
        axis=axis,
        least_scale=least_scale,
        pairs=_pairs(layer, array) if scheme.reduce_range else None,
        power_of_two=scheme.power_of_two,
    )
    name = weight.name or ""
    integers = tensors.constant(f"{name}_quantized", rounded(array, grid))
    dequantize = tensors.dequantize(name, integers, tensors.grid(name, grid), axis)
    tensors.graph.insert_before(layer.node, dequantize)
    return dequantize.outputs[0], grid


def _pairs(layer: _Layer, array: NDArray[Any]) -> Floats | None:
    """Return the largest sums of two weights by channel, where this layer alone reads them."""
    weight, axis = layer.key
    pairs = largest_pairs(layer.node, array) if len(weight.uses()) == 1 else None
    return pairs if pairs is None or axis is not None else np.asarray(pairs.max(initial=0.0))


def _write_bias(layer: _Layer, bias: Floats, weight: Grid, tensors: Tensors) -> None:
    """Write a bias in units of the layer's sums, which its kernel adds it to as it is."""
    old = layer.node.inputs[2]
    assert old is not None
    dtype = element_type(old)
    assert dtype is not None
    exact = layer.unit * weight.wide_scale
    if exact.ndim:
        exact = np.tile(exact, bias.shape[-1] // len(exact))
    scale = np.maximum(exact, np.finfo(np.float32).tiny).astype(dtype.numpy())
    # Rounded to 16 bits the scale may vanish, or be too small for the bias.
    limit = np.iinfo(np.int32).max * scale.astype(np.float64)
    narrow = bool((scale == 0).any() or (np.abs(bias) > limit).any())
    scale = exact.astype(np.float32) if narrow else scale
    axis = bias.ndim - 1 if scale.ndim else None
    name = old.name or ""
    integers = bias_integers(bias, scale.astype(np.float64))
    value = tensors.constant(f"{name}_quantized", integers)
    grid = tensors.grid(f"{name}_quantized", Grid(scale, np.zeros(scale.shape, np.int32)))
    dequantize = tensors.dequantize(name, value, grid, axis)
    nodes = [dequantize]
    if scale.dtype != dtype.numpy():
        nodes.append(ir.node("Cast", dequantize.outputs, {"to": dtype}))
        nodes[-1].name = tensors.names.node(f"{name}_Cast")
        nodes[-1].outputs[0].name = tensors.names.tensor(f"{name}_Cast_Output")
    tensors.graph.insert_before(layer.node, nodes)
    layer.node.replace_input_with(2, nodes[-1].outputs[0])
    layer.node.attributes.pop("beta", None)
