"""Layers that shall stay float between int8 ones, kept so against onnxruntime's will.

Since 1.20 onnxruntime quantizes the float weight of each Conv, ConvTranspose and Gemm that stands
between a DequantizeLinear and a QuantizeLinear, per tensor and without a word
(`WeightBiasQuantization`, graph level basic). So a layer that was left float because int8 hurts it
runs in int8 all the same, and worse than if it had been quantized per channel. A Sum of one input
in front of it, which is a copy, ends that.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

#: What onnxruntime would quantize.
_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm"})


def keep_float(graph: ir.Graph, names: Collection[str | None]) -> int:
    """Put the copy in front of those of the named layers that need it; how many did."""
    kept = 0
    for node in list(graph):
        if node.op_type not in _LAYERS or node.name not in names:
            continue
        value = node.inputs[0]
        maker = value.producer() if value is not None else None
        if maker is None or maker.op_type != "DequantizeLinear" or not _leads_to_quantize(node):
            continue
        copy = ir.node("Sum", [value], name=f"{node.name}_stays_float")
        made = copy.outputs[0]
        made.name = f"{node.name}_float_input"
        made.dtype, made.shape = ir.DataType.FLOAT, value.shape if value is not None else None
        graph.insert_before(node, copy)
        node.replace_input_with(0, made)
        kept += 1
    return kept


def _leads_to_quantize(node: ir.Node) -> bool:
    """Whether only Relu and Clip stand between the node and a QuantizeLinear."""
    while True:
        uses = list(node.outputs[0].uses())
        if len(uses) != 1 or node.outputs[0].is_graph_output():
            return False
        node = uses[0].node
        if node.op_type == "QuantizeLinear":
            return True
        if node.op_type not in {"Relu", "Clip"}:
            return False
