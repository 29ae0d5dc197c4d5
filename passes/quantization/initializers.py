"""Initializers of a graph: added, replaced, and removed where nothing reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def add_initializer(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """Register an array as an initializer of this name."""
    value = ir.val(name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def initializer_array(value: ir.Value | None) -> NDArray[Any]:
    """Return the array of a value that is known to be constant."""
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy()


def assign_float32(value: ir.Value | None, array: NDArray[Any]) -> None:
    """Give an initializer a new tensor of float32; the old one may be shared with a clone."""
    assert value is not None
    value.const_value = ir.tensor(array.astype(np.float32), name=value.name)


def remove_unused_initializers(graph: ir.Graph) -> None:
    """Remove initializers that nothing reads, such as the scales of removed Q/DQ pairs."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del graph.initializers[name]
