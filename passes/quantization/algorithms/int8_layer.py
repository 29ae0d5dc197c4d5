"""The int8 weight of a layer, for methods that choose its integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.data import Floats

from ...graph.edit import initializer_array
from ...graph.queries import input_at, producer_in_any_domain
from ...graph.stored.weight_scales import channel_axis
from ..qdq.fill_channels import filled_weight
from .layer_regression import as_columns


@dataclass(frozen=True)
class Int8Weight:
    """A layer's int8 weight.

    Attributes:
        integers: its initializer.
        scale: (channels,) or (1,).
        zero: zero points, (channels,) or (1,).
        shape: of the weight.
    """

    integers: ir.Value
    scale: Floats
    zero: Floats
    shape: tuple[int, ...]

    def columns(self, layer: ir.Node) -> tuple[Floats, Floats, Floats]:
        """Return integers, scales and zero points as (groups, depth, outputs)."""
        scale, zero = self.broadcast(layer)
        values = self.values().astype(np.float64)
        return as_columns(layer, values), as_columns(layer, scale), as_columns(layer, zero)

    def broadcast(self, layer: ir.Node) -> tuple[Floats, Floats]:
        """Return scales and zero points in the weight's shape."""
        axis = channel_axis(layer)
        assert axis is not None
        layout = [1] * len(self.shape)
        layout[axis] = -1
        scale, zero = (
            np.broadcast_to(a.reshape(layout), self.shape).copy() for a in (self.scale, self.zero)
        )
        return scale, zero

    def values(self) -> NDArray[Any]:
        """Return the array of integers."""
        return initializer_array(self.integers)

    def assign(self, integers: NDArray[Any]) -> None:
        """Replace the integers."""
        array = integers.astype(self.values().dtype)
        self.integers.const_value = ir.tensor(array, name=self.integers.name)

    def integer_range(self) -> tuple[int, int]:
        """Return the least and the greatest integer in use; the type may hold more bits."""
        values = self.values()
        return int(values.min()), int(values.max())


def int8_weight(layer: ir.Node) -> Int8Weight | str:
    """Return the layer's int8 weight, or the reason why it cannot be rounded."""
    node = producer_in_any_domain(layer.inputs[1], "DequantizeLinear")
    if node is None:
        return "its weight is not int8"
    integers, scale, zero = (input_at(node, index) for index in range(3))
    if integers is None or integers.const_value is None or scale is None or not scale.const_value:
        return "its weight is computed while the model runs"
    if len(integers.uses()) > 1 or len(node.outputs[0].uses()) > 1:
        return "its weight is shared"
    shape = tuple(integers.const_value.shape.numpy())
    odd = len(shape) != 2 and layer.op_type != "Conv"
    if odd or layer.attributes.get_float("alpha", 1.0) != 1:
        return "it is neither a plain product nor a convolution"
    zeros = zero.const_value.numpy() if zero is not None and zero.const_value else np.zeros(1)
    flat = [a.astype(np.float64).reshape(-1) for a in (scale.const_value.numpy(), zeros)]
    return Int8Weight(integers, flat[0], flat[1], shape)


def float_weight(layer: ir.Node, shape: Sequence[int] | None = None) -> Floats | None:
    """Return the constant weight of a float layer, filled with zero input channels to `shape`.

    None where the weight is computed.
    """
    value = layer.inputs[1]
    if value is None or value.const_value is None:
        return None
    array = value.const_value.numpy().astype(np.float64)
    return array if shape is None else filled_weight(array, shape)
