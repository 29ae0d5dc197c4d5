"""Tensors and nodes that an int8 graph adds: constants, pairs, and their names."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...graph.names import FreeNames
from .integers import Grid

#: Domain of onnxruntime's own Q/DQ, which take 16-bit integers in any operator set.
ORT_DOMAIN = "com.microsoft"
#: First operator set whose own Q/DQ take 16-bit integers.
WIDE_OPSET = 21


class Tensors:
    """Adds constants, QuantizeLinear and DequantizeLinear to a model under free names."""

    def __init__(self, model: ir.Model, *, wide: bool) -> None:
        self.graph = model.graph
        self.names = FreeNames(model.graph)
        own = wide and self.graph.opset_imports.get("", 1) < WIDE_OPSET
        self.domain = ORT_DOMAIN if own else ""
        if own:
            self.graph.opset_imports.setdefault(ORT_DOMAIN, 1)

    def constant(self, name: str, array: NDArray[Any]) -> ir.Value:
        """Add a tensor to the file."""
        free = self.names.tensor(name)
        # Not ascontiguousarray, which makes a vector of a scalar.
        tensor = ir.tensor(np.asarray(array, order="C"), name=free)
        value = ir.val(free, const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def grid(self, name: str, grid: Grid) -> tuple[ir.Value, ir.Value]:
        """Add a scale and a zero point."""
        scale = self.constant(f"{name}_scale", grid.scale)
        return scale, self.constant(f"{name}_zero_point", grid.zero)

    def dequantize(
        self, name: str, integers: ir.Value, grid: tuple[ir.Value, ir.Value], axis: int | None
    ) -> ir.Node:
        """Return a new DequantizeLinear, which stands in no graph yet."""
        return self._node("DequantizeLinear", name, integers, grid, axis)

    def quantize(self, name: str, value: ir.Value, grid: tuple[ir.Value, ir.Value]) -> ir.Node:
        """Return a new QuantizeLinear, which stands in no graph yet."""
        return self._node("QuantizeLinear", name, value, grid, None)

    def _node(
        self,
        op_type: str,
        name: str,
        value: ir.Value,
        grid: tuple[ir.Value, ir.Value],
        axis: int | None,
    ) -> ir.Node:
        node = ir.node(
            op_type,
            [value, *grid],
            {} if axis is None else {"axis": axis},
            domain=self.domain,
            name=self.names.node(f"{name}_{op_type}"),
        )
        node.outputs[0].name = self.names.tensor(f"{name}_{op_type}_Output")
        return node
