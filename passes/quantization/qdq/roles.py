"""Roles of nodes in an int8 graph: what onnxruntime's kernels compute on integers, node by node."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping

import onnx_ir as ir

from ...calibration.range_estimator import Range
from ...graph.queries import attr, input_at, is_onnx_op, scalar
from .int8_operators import ARITHMETIC, PRODUCTS, unsupported_reason
from .scheme import Scheme

#: Element types that pairs can stand between.
FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16})
#: Metadata of a QuantizeLinear: least and greatest value of the Relu or Clip that it replaces.
BOUNDS_KEY = "trimtab.bounds"
#: Element types of values where the file does not declare them.
Types = Mapping[ir.Value, ir.DataType]


class Role(enum.Enum):
    """Role of a node.

    `SELECTION` (Where) computes on integers only where both sides are rounded anyway, `BOUND` (Relu
    and Clip) is done by the range of a pair behind it, or stays float.
    """

    FLOAT = enum.auto()
    PRODUCT = enum.auto()
    ARITHMETIC = enum.auto()
    SELECTION = enum.auto()
    MOVE = enum.auto()
    BOUND = enum.auto()


def roles_of(graph: ir.Graph, scheme: Scheme) -> dict[ir.Node | None, Role]:
    """Return the role of each node of the main graph."""
    excluded = set(scheme.exclude) - {""}
    types: dict[ir.Value, ir.DataType] = {}
    found: dict[ir.Node | None, Role] = {}
    for node in graph:
        chosen = node.op_type in scheme.ops and is_onnx_op(node) and node.name not in excluded
        kind = _element_type(node, types) if is_onnx_op(node) else None
        fits = chosen and kind in FLOATS and unsupported_reason(node) is None
        found[node] = _role(node) if fits else Role.FLOAT
        output = node.outputs[0] if node.outputs else None
        if fits and kind is not None and output is not None and output.dtype is None:
            types[output] = kind
    return found


def _role(node: ir.Node) -> Role:
    if node.op_type in PRODUCTS or node.op_type == "ConvTranspose":
        return Role.PRODUCT
    if node.op_type == "Where":
        return Role.SELECTION
    if node.op_type in {"Relu", "Clip"}:
        return Role.BOUND
    # An AveragePool keeps its input's scale, as its kernel prefers.
    arithmetic = node.op_type in ARITHMETIC and node.op_type != "AveragePool"
    return Role.ARITHMETIC if arithmetic else Role.MOVE


def data_inputs(node: ir.Node) -> range:
    """Return the positions of the inputs that a kernel reads as integers, without the bias."""
    if node.op_type in PRODUCTS or node.op_type in {"ConvTranspose", "Add", "Mul"}:
        return range(2)
    if node.op_type == "Concat":
        return range(len(node.inputs))
    return range(1, 3) if node.op_type == "Where" else range(1)


def _element_type(node: ir.Node, types: Types) -> ir.DataType | None:
    """Return the element type of a node's data, None where it is unknown or they differ.

    All data of an operator are of one type: a weight tells it where another library's operator,
    whose outputs inference does not know, made the rest.
    """
    found: set[ir.DataType] = set()
    for index in data_inputs(node):
        value = input_at(node, index)
        if value is None:
            return None
        kind = element_type(value) or types.get(value)
        found |= set() if kind is None else {kind}
    return found.pop() if len(found) == 1 else None


def element_type(value: ir.Value) -> ir.DataType | None:
    """Return the element type of a value or of the tensor that it holds; None if unknown."""
    if value.dtype is None and value.const_value is not None:
        return value.const_value.dtype
    return value.dtype


def bounds_of(node: ir.Node) -> Range:
    """Return the bounds of a Relu, or of a Clip whose bounds are constants."""
    if node.op_type == "Relu":
        return 0.0, math.inf
    low, high = (input_at(node, index) for index in (1, 2))
    least, greatest = (None if v is None else scalar(v) for v in (low, high))
    return (
        -math.inf if least is None else least,
        math.inf if greatest is None else greatest,
    )


def keeps_scale(node: ir.Node) -> bool:
    """Return whether the output of a moving operator holds values of its input, and zeros alone."""
    if node.op_type != "Pad" or attr(node, "mode", "constant") != "constant":
        return True
    value = input_at(node, 2)
    return value is None or scalar(value) == 0
