"""Which operators have int8 kernels where. One table; no pass tests for a machine itself.

From the kernels of onnxruntime's CPU provider and the Q/DQ groups that its optimizer fuses; what is
not in the table stays float.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from trimtab.core.target import Target

#: Operators of multiply-accumulates.
PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
#: Element-wise and pooling operators with int8 kernels of their own.
ARITHMETIC = frozenset(
    {
        "Add",
        "AveragePool",
        "Concat",
        "GlobalAveragePool",
        "LeakyRelu",
        "Mul",
        "Sigmoid",
        "Softmax",
        "Where",
    }
)
#: Operators that move or select values, which keep the scale of their input.
MOVES = frozenset(
    {
        "Clip",
        "Flatten",
        "Gather",
        "MaxPool",
        "Pad",
        "Relu",
        "Reshape",
        "Resize",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
#: TensorRT and its kin fuse around products and want float elsewhere.
_GPU = PRODUCTS | {"ConvTranspose", "Add", "AveragePool", "GlobalAveragePool", "MaxPool"}


def int8_operators(target: Target) -> frozenset[str]:
    """Operator types that the target runs in int8."""
    return _GPU if target.isa == "gpu" else PRODUCTS | ARITHMETIC | MOVES


def misplaced(graph: ir.Graph, ops: frozenset[str]) -> Iterator[tuple[ir.Node, str]]:
    """Nodes of these types that must stay float all the same, with the reason."""
    for node in graph:
        if node.op_type not in ops:
            continue
        reason = _reason(node)
        if reason:
            yield node, reason


def _reason(node: ir.Node) -> str | None:
    if node.op_type == "Clip":
        low, high = _bound(node, 1, 0.0), _bound(node, 2, 0.0)
        if low is None or high is None:
            return "its bounds are computed while it runs"
        # The quantizer drops a Clip and lets the int8 range clip; that range always holds zero.
        if low > 0 or high < 0:
            return "its bounds leave out zero, which every int8 range holds"
    return None


def _bound(node: ir.Node, index: int, default: float) -> float | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return default
    return None if value.const_value is None else float(value.const_value.numpy().reshape(-1)[0])
