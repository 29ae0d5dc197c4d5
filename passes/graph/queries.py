"""The questions that passes ask of a graph: constants, sizes, attributes, producers and users.

Each is asked here once, over the accessors of onnx_ir; arrays that operators make of constants are
in `constants`, changes in `edit`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, overload

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Array

T = TypeVar("T")

#: Names of the domain of ONNX's own operators.
ONNX_DOMAINS = frozenset({"", "ai.onnx"})


def const(value: ir.Value | None) -> Array | None:
    """Return the array of an initializer that no caller feeds, or of a Constant node."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def is_free_to_change(value: ir.Value) -> bool:
    """Return whether a constant has one reader and is neither fed nor an output of its graph."""
    fixed = value.const_value is not None and not value.is_graph_input()
    return fixed and not value.is_graph_output() and len(value.uses()) == 1


def scalar(value: ir.Value | None) -> float | None:
    """Return the one element of a constant; None where it has several, or is computed."""
    array = const(value)
    return None if array is None or array.size != 1 else float(array.reshape(-1)[0])


def is_scalar(value: ir.Value | None, wanted: float, *, tolerance: float = 1e-6) -> bool:
    """Return whether a value is a constant of one element, this one within float rounding."""
    found = scalar(value)
    return found is not None and abs(found - wanted) <= tolerance * max(1.0, abs(wanted))


def ints(value: ir.Value | None) -> list[int] | None:
    """Return the elements of a constant of integers."""
    array = const(value)
    return None if array is None else [int(i) for i in array.reshape(-1)]


def is_zero(array: Array | None) -> bool:
    """Return whether a known array is all zeros."""
    return array is not None and not np.any(array)


def dims(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """Return the sizes of a value, None for an unknown size, or None where its rank is unknown.

    A size of 0 counts as unknown: exporters write it where their shape inference fails.
    """
    if value is None or value.shape is None:
        return None
    return tuple(d if isinstance(d, int) and d else None for d in value.shape)


def rank(value: ir.Value | None) -> int | None:
    """Return the number of axes; None where it is unknown."""
    return None if value is None or value.shape is None else len(value.shape)


def same_shape(a: ir.Value | None, b: ir.Value | None) -> bool:
    """Return whether two values are known to have one shape, by sizes and names of dimensions."""
    if a is None or b is None or a.shape is None or b.shape is None:
        return False
    return len(a.shape) == len(b.shape) and all(map(same_dim, a.shape, b.shape))


def same_dim(a: Any, b: Any) -> bool:
    """Return whether two sizes are known to agree: equal numbers, or dimensions of one name."""
    if isinstance(a, int) or isinstance(b, int):
        return bool(a == b) and a != 0
    return a.value is not None and a.value == b.value


def is_float(value: ir.Value | None) -> bool:
    """Return whether a value is a float32 tensor; an unknown type is not, nor is a sequence."""
    if value is None or isinstance(value.type, ir.SequenceType | ir.OptionalType):
        return False
    return value.dtype == ir.DataType.FLOAT


@overload
def attr(node: ir.Node, name: str) -> Any: ...
@overload
def attr(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]: ...
@overload
def attr(node: ir.Node, name: str, default: T) -> T: ...


def attr(node: ir.Node, name: str, default: Any = None) -> Any:
    """Return an attribute's value, of the type of its default; lists are tuples.

    Where there is no default, `node.attributes.get_int(name, None)` and its kin are typed.
    """
    found = node.attributes.get(name)
    return default if found is None else found.value


def is_onnx_op(node: ir.Node) -> bool:
    """Return whether a node is of ONNX's own operators, not of a runtime's or a user's domain."""
    return node.domain in ONNX_DOMAINS


def opset(node: ir.Node) -> int:
    """Return the version of the default operator set."""
    assert node.graph is not None
    return node.graph.opset_imports.get("", 1)


def node_label(node: ir.Node) -> str:
    """Return a node's name, or where it has none that of its first output that has one."""
    return node.name or next((v.name for v in node.outputs if v.name), node.op_type)


def input_at(node: ir.Node, index: int) -> ir.Value | None:
    """Return an input by position; None where an optional one is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def axes_of(node: ir.Node) -> list[int] | None:
    """Return the axes of a reduction: an attribute in old operator sets, an input in new ones.

    None where they are left out, or computed.
    """
    given = node.attributes.get_ints("axes", None)
    return ints(input_at(node, 1)) if given is None else list(given)


def pair(node: ir.Node) -> tuple[ir.Value, ir.Value]:
    """Return both inputs of a node that has two."""
    a, b = node.inputs[:2]
    assert a is not None
    assert b is not None
    return a, b


def constant_side(node: ir.Node | None) -> tuple[ir.Value, ir.Value] | None:
    """Return the (computed, constant) inputs of a node that has one of each."""
    for computed, constant in (pair(node), pair(node)[::-1]) if node is not None else ():
        if const(constant) is not None and const(computed) is None:
            return computed, constant
    return None


def operand(value: ir.Value | None, op_type: str, number: float) -> ir.Value | None:
    """Return the x of a value that is `op_type`(x, number), in either order of the two."""
    sides = constant_side(producer(value, op_type))
    return sides[0] if sides and is_scalar(sides[1], number) else None


def divided_by(node: ir.Node | None, number: float) -> ir.Value | None:
    """Return the x of a node that is Div(x, number), or Mul of x and its inverse."""
    if node is not None and node.op_type == "Div":
        a, b = pair(node)
        return a if is_scalar(b, number) else None
    return operand(node.outputs[0], "Mul", 1 / number) if node is not None else None


def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """Return the node that makes a value, if it is one of these of ONNX's own operators."""
    node = None if value is None else value.producer()
    return node if node is not None and is_onnx_op(node) and node.op_type in op_types else None


def producer_in_any_domain(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """Return the node that makes a value, if of these types; Q/DQ may be onnxruntime's own."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type in op_types else None


def users(value: ir.Value) -> list[ir.Node]:
    """Return the nodes that read a value, each once."""
    return list(dict.fromkeys(use.node for use in value.uses()))


def users_beside(node: ir.Node, value: ir.Value) -> list[ir.Node]:
    """Return the nodes that read a value in the graph of a node, without those of subgraphs.

    A rule may write these anew together; a node inside of a branch runs only with its branch.
    """
    return [user for user in users(value) if user.graph is node.graph]


def only_user(value: ir.Value) -> ir.Node | None:
    """Return the one node that reads a value, and reads it once; None for graph outputs.

    The node may stand in a subgraph, which captures the value.
    """
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def is_unused(value: ir.Value) -> bool:
    """Return whether nothing reads a value: no node of any graph, and no caller as an output."""
    return not value.uses() and not value.is_graph_output()


def is_inference_norm(node: ir.Node) -> bool:
    """Return whether a BatchNormalization uses its statistics, one of each per channel.

    One that trains computes them from the batch: by `training_mode`, before opset 14 by its five
    outputs. With `spatial=0`, before opset 9, there is one for each element.
    """
    if node.op_type != "BatchNormalization" or not is_onnx_op(node):
        return False
    trains = bool(attr(node, "training_mode", 0)) or any(v.name for v in node.outputs[1:])
    return not trains and attr(node, "spatial", 1) == 1


def in_subgraphs(graph: ir.Graph, ops: Iterable[str]) -> Iterator[ir.Node]:
    """Return the nodes of these types that stand inside If, Loop or Scan."""
    wanted = set(ops)
    return (n for n in graph.all_nodes() if n.graph is not graph and n.op_type in wanted)
