"""Outputs of readers of channels: what is added to them, a bias or a residual stream."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ...graph.constants import constant_array, is_constant
from ...graph.queries import only_user, pair


@dataclass(frozen=True, eq=False)
class ReaderOutput:
    """Output of a reader, its bias, and the residual stream that it is added to.

    Attributes:
        bias: node and input of the bias, None where there is none to write to.
        result: the output with the bias.
        stream: the other operand where the output is added to a stream, else None.
    """

    bias: tuple[ir.Node, int] | None
    result: ir.Value
    stream: ir.Value | None


def reader_output(node: ir.Node) -> ReaderOutput:
    """Follow a reader to its bias and to the stream that its output is added to."""
    result = node.outputs[0]
    bias: tuple[ir.Node, int] | None = (node, 2)
    if node.op_type == "MatMul":
        bias = None
        added = _added(result)
        if added and is_constant(added[1]) and _is_vector(added[1]):
            bias = (added[0], added[0].inputs.index(added[1]))
            result = added[0].outputs[0]
    added = _added(result)
    stream = added[1] if added and not is_constant(added[1]) else None
    return ReaderOutput(bias, result, stream)


def _added(value: ir.Value) -> tuple[ir.Node, ir.Value] | None:
    """Return the Add that alone reads a tensor, and its other operand."""
    node = only_user(value)
    if node is None or node.op_type != "Add":
        return None
    a, b = pair(node)
    return node, b if a is value else a


def _is_vector(value: ir.Value) -> bool:
    array = constant_array(value)
    return array is not None and array.ndim > 0 and array.size == array.shape[-1]
