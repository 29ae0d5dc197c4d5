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

from ...graph.queries import only_user, producer_in_any_domain

#: Operators that onnxruntime would quantize.
_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm"})


def keep_float(graph: ir.Graph, names: Collection[str | None]) -> int:
    """Insert the copy before those of the named layers that need it; return their number."""
    kept = 0
    for node in list(graph):
        if node.op_type not in _LAYERS or node.name not in names:
            continue
        source_node = producer_in_any_domain(node.inputs[0], "DequantizeLinear")
        if source_node is None or not _leads_to_quantize(node):
            continue
        value = source_node.outputs[0]
        output = ir.val(f"{node.name}_float_input", ir.DataType.FLOAT, value.shape)
        copy = ir.node("Sum", [value], outputs=[output], name=f"{node.name}_stays_float")
        graph.insert_before(node, copy)
        node.replace_input_with(0, output)
        kept += 1
    return kept


def _leads_to_quantize(node: ir.Node) -> bool:
    """Return whether only Relu and Clip are between the node and a QuantizeLinear."""
    while True:
        reader = only_user(node.outputs[0])
        if reader is None or reader.op_type not in {"QuantizeLinear", "Relu", "Clip"}:
            return False
        if reader.op_type == "QuantizeLinear":
            return True
        node = reader
