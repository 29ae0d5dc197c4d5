"""Layers that stay float between int8 ones, protected from onnxruntime's own quantization.

Since 1.20 onnxruntime quantizes the float weight of each Conv, ConvTranspose and Gemm between a
DequantizeLinear and a QuantizeLinear, per tensor and without a message (`WeightBiasQuantization`,
graph level basic). So a layer that was left float for its accuracy runs in int8 after all, with
more error than if it had been quantized per channel. A Sum of one input before it, which is a copy,
prevents that.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

#: Operators that onnxruntime would quantize.
_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm"})


def keep_float(graph: ir.Graph, names: Collection[str | None]) -> int:
    """Insert the copy before those of the named layers that need it; return their number."""
    kept = 0
    for node in list(graph):
        if node.op_type not in _LAYERS or node.name not in names:
            continue
        value = node.inputs[0]
        source_node = value.producer() if value is not None else None
        if (
            source_node is None
            or source_node.op_type != "DequantizeLinear"
            or not _leads_to_quantize(node)
        ):
            continue
        copy = ir.node("Sum", [value], name=f"{node.name}_stays_float")
        output = copy.outputs[0]
        output.name = f"{node.name}_float_input"
        output.dtype, output.shape = ir.DataType.FLOAT, value.shape if value is not None else None
        graph.insert_before(node, copy)
        node.replace_input_with(0, output)
        kept += 1
    return kept


def _leads_to_quantize(node: ir.Node) -> bool:
    """Return whether only Relu and Clip are between the node and a QuantizeLinear."""
    while True:
        uses = list(node.outputs[0].uses())
        if len(uses) != 1 or node.outputs[0].is_graph_output():
            return False
        node = uses[0].node
        if node.op_type == "QuantizeLinear":
            return True
        if node.op_type not in {"Relu", "Clip"}:
            return False
