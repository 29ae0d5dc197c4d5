"""Operators supported in int8 by each target, in one table; no pass tests for a machine itself.

From the kernels of onnxruntime's CPU provider and the Q/DQ groups that its optimizer fuses;
operators that are not in the table stay float.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from trimtab.core.target import Target

from ...graph.queries import attr, input_at, scalar

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
#: Operators that move or select values and keep the scale of their input.
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
#: TensorRT and the like fuse around products and want float elsewhere.
_GPU = PRODUCTS | {"ConvTranspose", "Add", "AveragePool", "GlobalAveragePool", "MaxPool"}


#: Normalisations over the features of each token. They have no int8 kernels, and the values around
#: them have outliers that 256 levels cannot hold: all-MiniLM-L6-v2 falls from 0.83 to 0.37
#: Spearman when everything is quantized, and keeps its 0.83 when the products alone are.
_TOKEN_NORMS = frozenset(
    {
        "LayerNormalization",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    }
)


def is_transformer(graph: ir.Graph) -> bool:
    """Return whether the graph normalises tokens: then only products run in int8."""
    return any(node.op_type in _TOKEN_NORMS for node in graph)


def int8_operators(target: Target, graph: ir.Graph) -> frozenset[str]:
    """Return the operator types that the target runs in int8 in this graph."""
    if target.isa == "gpu":
        return _GPU
    return PRODUCTS if is_transformer(graph) else PRODUCTS | ARITHMETIC | MOVES


def unsupported_nodes(graph: ir.Graph, ops: frozenset[str]) -> Iterator[tuple[ir.Node, str]]:
    """Yield nodes of these types that nevertheless must stay float, with the reason."""
    transformer = is_transformer(graph)
    for node in graph:
        if node.op_type not in ops:
            continue
        reason = unsupported_reason(node)
        if reason is None and transformer and _of_activations(node):
            reason = "a product of two activations costs accuracy and saves little time"
        if reason:
            yield node, reason


def _of_activations(node: ir.Node) -> bool:
    return node.op_type == "MatMul" and all(
        value is not None and value.const_value is None for value in node.inputs
    )


def unsupported_reason(node: ir.Node) -> str | None:
    """Return why a node of an int8 operator type must stay float, None where it need not."""
    match node.op_type:
        case "Conv" | "ConvTranspose" | "Gemm" | "MatMul":
            return _reason_of_product(node)
        case "Clip":
            return _reason_of_clip(node)
        case "Add" | "Mul" if any(map(_is_empty, (*node.inputs, *node.outputs))):
            reason = "its tensors have no elements, on which the int8 kernels end the process"
        case "Concat" if len(node.inputs) == 1:
            reason = "a Concat of one tensor has no int8 kernel"
        case "Resize" if attr(node, "mode", "nearest") == "cubic":
            reason = "cubic interpolation has no int8 kernel"
        case "AveragePool" if any(step != 1 for step in attr(node, "dilations", (1,))):
            reason = "the int8 kernel of AveragePool has no dilations"
        case _:
            return None
    return reason


def _reason_of_product(node: ir.Node) -> str | None:
    first, second, bias = (input_at(node, index) for index in range(3))
    weights = [v.const_value for v in (first, second, bias) if v is not None]
    if any(weight is not None and not weight.size for weight in weights):
        return "its weight is empty"
    if is_fixed(first) and (node.op_type != "MatMul" or is_fixed(second)):
        return "it multiplies constants"
    if bias is not None and not is_fixed(bias):
        return "its bias is computed while it runs"
    if node.op_type == "Gemm" and attr(node, "alpha", 1.0) <= 0:
        return "its alpha is not positive, as a scale must be"
    return None


def is_fixed(value: ir.Value | None) -> bool:
    """Return whether a value is a tensor of the file that no caller can feed."""
    return value is not None and value.const_value is not None and not value.is_graph_input()


def _is_empty(value: ir.Value | None) -> bool:
    shape = value.shape if value is not None else None
    return shape is not None and any(isinstance(d, int) and d == 0 for d in shape)


def _reason_of_clip(node: ir.Node) -> str | None:
    bounds = (input_at(node, index) for index in (1, 2))
    low, high = (0.0 if value is None else scalar(value) for value in bounds)
    if low is None or high is None:
        return "its bounds are computed while it runs"
    # A Clip is left to the bounds of the int8 range behind it, and that range contains zero.
    if low > 0 or high < 0:
        return "its bounds exclude zero, which every int8 range contains"
    return None
