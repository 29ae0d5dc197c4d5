"""What rules ask about a graph: constants, sizes, attributes, who uses a value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Array


def const(value: ir.Value | None) -> Array | None:
    """The array of an initializer that no caller feeds, or of a Constant node."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def scalar(value: ir.Value | None) -> float | None:
    """The one element of a constant."""
    array = const(value)
    return None if array is None or array.size != 1 else float(array.reshape(-1)[0])


def is_scalar(value: ir.Value | None, wanted: float, *, tolerance: float = 1e-6) -> bool:
    """Whether a value is a constant of one element, this one within float rounding."""
    found = scalar(value)
    return found is not None and abs(found - wanted) <= tolerance * max(1.0, abs(wanted))


def ints(value: ir.Value | None) -> list[int] | None:
    """The elements of a constant of integers."""
    array = const(value)
    return None if array is None else [int(i) for i in array.reshape(-1)]


def dims(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """Sizes of a value, None for an unknown one; None as a whole where the rank is unknown.

    A size of 0 counts as unknown: exporters write it where their shape inference fails.
    """
    if value is None or value.shape is None:
        return None
    return tuple(d if isinstance(d, int) and d else None for d in value.shape)


def rank(value: ir.Value | None) -> int | None:
    """Number of axes."""
    return None if value is None or value.shape is None else len(value.shape)


def same_shape(a: ir.Value | None, b: ir.Value | None) -> bool:
    """Whether two values surely have the same shape, by sizes and names of dimensions."""
    if a is None or b is None or a.shape is None or b.shape is None:
        return False
    if len(a.shape) != len(b.shape):
        return False
    return all(same_dim(x, y) for x, y in zip(a.shape, b.shape, strict=True))


def same_dim(a: Any, b: Any) -> bool:
    """Whether two sizes surely agree: known ones, or dimensions of one name."""
    if isinstance(a, int) or isinstance(b, int):
        return bool(a == b) and a != 0
    return a.value is not None and a.value == b.value


def attr(node: ir.Node, name: str, default: Any = None) -> Any:
    """An attribute's value, lists as tuples."""
    found = node.attributes.get(name)
    if found is None:
        return default
    value = found.value
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node that makes a value, if it is one of these types of the default domain."""
    node = None if value is None else value.producer()
    if node is None or node.domain not in {"", "ai.onnx"}:
        return None
    return node if node.op_type in op_types else None


def users(value: ir.Value) -> list[ir.Node]:
    """The nodes that read a value, each once."""
    return list(dict.fromkeys(use.node for use in value.uses()))


def only_user(value: ir.Value) -> ir.Node | None:
    """The one node that reads a value, and reads it once; None for graph outputs."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def private(value: ir.Value) -> bool:
    """Whether one node alone reads a value, so that it goes when that node goes."""
    return only_user(value) is not None


def opset(node: ir.Node) -> int:
    """Version of the default operator set."""
    assert node.graph is not None
    return node.graph.opset_imports.get("", 1)


def is_float(value: ir.Value | None) -> bool:
    """Whether a value is float32; an unknown type is not."""
    return value is not None and value.dtype == ir.DataType.FLOAT


def zeros(array: Array | None) -> bool:
    """Whether a known array is all zeros."""
    return array is not None and not np.any(array)


def pair(node: ir.Node) -> tuple[ir.Value, ir.Value]:
    """Both inputs of a node that has two."""
    a, b = node.inputs[:2]
    assert a is not None
    assert b is not None
    return a, b


def constant_side(node: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """(computed, constant) inputs of a node with two inputs, one of which is constant."""
    a, b = pair(node)
    if const(b) is not None and const(a) is None:
        return a, b
    if const(a) is not None and const(b) is None:
        return b, a
    return None


def conv_facts(node: ir.Node) -> tuple[Array, Array | None] | None:
    """(weight, bias) of a convolution with constant ones."""
    weight = const(node.inputs[1])
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if weight is None or (bias is not None and const(bias) is None):
        return None
    return weight, const(bias)


def conv_attrs(node: ir.Node) -> dict[str, Any]:
    """All attributes of a convolution or pooling with defaults filled in; two spatial axes.

    `pads` is None where `auto_pad` decides.
    """
    auto = attr(node, "auto_pad", "NOTSET")
    return {
        "strides": attr(node, "strides", (1, 1)),
        "dilations": attr(node, "dilations", (1, 1)),
        "group": attr(node, "group", 1),
        "pads": attr(node, "pads", (0, 0, 0, 0)) if auto == "NOTSET" else None,
    }


def in_subgraphs(graph: ir.Graph, ops: Iterable[str]) -> Iterator[ir.Node]:
    """Nodes of these types that stand inside of If, Loop or Scan."""
    wanted = set(ops)
    return (n for n in graph.all_nodes() if n.graph is not graph and n.op_type in wanted)
