"""Residual sums with a product on one side: TensorRT adds there in the product's own kernel."""

from __future__ import annotations

import onnx_ir as ir

from ...graph.queries import only_user, producer_in_any_domain
from .int8_operators import PRODUCTS


def drop_product_pairs(graph: ir.Graph) -> int:
    """Let each Add read one product without a Q/DQ pair between; return the number of Adds.

    The other side stays rounded, since the kernel reads it from memory (TensorRT's guide to
    explicit quantization: the residual input is quantized, the output of the product is not).
    """
    freed = 0
    for add in [node for node in graph if node.op_type == "Add"]:
        for index, value in enumerate(add.inputs):
            pair = _pair_of_a_product(value)
            if pair is not None:
                add.replace_input_with(index, pair[1].inputs[0])
                graph.remove(pair, safe=True)
                freed += 1
                break
    return freed


def _pair_of_a_product(value: ir.Value | None) -> tuple[ir.Node, ir.Node] | None:
    """Return the DQ and Q between a product and its only reader."""
    dequantize = producer_in_any_domain(value, "DequantizeLinear")
    integer = dequantize.inputs[0] if dequantize is not None else None
    quantize = producer_in_any_domain(integer, "QuantizeLinear")
    output = quantize.inputs[0] if quantize is not None else None
    product = producer_in_any_domain(output, *PRODUCTS, "ConvTranspose")
    if dequantize is None or quantize is None or product is None:
        return None
    alone = all(v is not None and only_user(v) is not None for v in (value, integer, output))
    return (dequantize, quantize) if alone else None
