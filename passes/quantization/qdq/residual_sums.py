"""Residual sums with a product on one side: TensorRT adds there in the product's own kernel."""

from __future__ import annotations

import onnx_ir as ir

from ...graph.weight_scales import channel_axis


def drop_product_pairs(graph: ir.Graph) -> int:
    """Let each Add read one product without a Q/DQ pair between; return the number of Adds.

    The other side stays rounded, since the kernel reads it from memory (TensorRT's guide to
    explicit quantization: the residual input is quantized, the output of the product is not).
    """
    freed = 0
    for add in [node for node in graph if node.op_type == "Add"]:
        for index, value in enumerate(add.inputs):
            pair = _pair_of_a_product(value)
            if pair is None:
                continue
            dequantize, quantize = pair
            add.replace_input_with(index, quantize.inputs[0])
            graph.remove([dequantize, quantize], safe=True)
            freed += 1
            break
    return freed


def _pair_of_a_product(value: ir.Value | None) -> tuple[ir.Node, ir.Node] | None:
    """Return the DQ and Q between a product and its only reader."""
    dequantize = value.producer() if value is not None else None
    if value is None or dequantize is None or dequantize.op_type != "DequantizeLinear":
        return None
    integer = dequantize.inputs[0]
    quantize = integer.producer() if integer is not None else None
    if integer is None or quantize is None or quantize.op_type != "QuantizeLinear":
        return None
    output = quantize.inputs[0]
    product = output.producer() if output is not None else None
    if output is None or product is None:
        return None
    alone = all(len(v.uses()) == 1 and not v.is_graph_output() for v in (value, integer, output))
    is_product = channel_axis(product) is not None or product.op_type == "ConvTranspose"
    return (dequantize, quantize) if alone and is_product else None
