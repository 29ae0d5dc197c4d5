"""Rules that replace operators on integers by float operators between Q and DQ."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from trimtab.core.graphs import constant_array

from ..graph.queries import input_at, only_user, producer
from .constants import OptionalValue, add_initializer, unpack_nbits
from .qdq_writer import (
    QuantizedTensor,
    insert_before,
    insert_dequantize,
    quantized_input,
    replace_by_float_operator,
    replace_output,
    scales_of,
)

#: Integer operators of one quantized input; inputs: integers, scale, zero, scale, zero.
_UNARY = (
    *("QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearReduceMean"),
    *("QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax"),
)
#: Integer operators of two quantized inputs, and the axis of the second's scales.
_BINARY = {"QLinearAdd": None, "QLinearMul": None, "QLinearMatMul": -1}


def _conv(graph: ir.Graph, node: ir.Node) -> None:
    output = (node.inputs[6], node.inputs[7])
    _layer(graph, node, "Conv", 0, input_at(node, 8), output)


def _gemm(graph: ir.Graph, node: ir.Node) -> None:
    bias, scale, zero = (input_at(node, i) for i in (6, 7, 8))
    axis = 0 if node.attributes.get_int("transB", 0) else 1
    _layer(graph, node, "Gemm", axis, bias, None if scale is None else (scale, zero))


def _layer(
    graph: ir.Graph,
    node: ir.Node,
    op: str,
    axis: int,
    bias: OptionalValue,
    output: tuple[OptionalValue, OptionalValue] | None,
) -> None:
    """Replace a layer whose int32 bias has the scale of the data times that of the weight."""
    tensors = [quantized_input(node, 0), quantized_input(node, 3, axis=axis)]
    if bias is not None:
        a, b = (constant_array(tensor.scale) for tensor in tensors)
        if a is None or b is None:
            return
        scales = np.multiply(a.reshape(-1), b.reshape(-1), dtype=np.float64).astype(np.float32)
        array = scales if scales.size > 1 else scales.reshape(())
        scale = add_initializer(graph, f"{node.name}_bias_scale", array)
        tensors.append(QuantizedTensor(bias, scale, None, axis=0))
    replace_by_float_operator(graph, node, op, tensors, output)


def _unary(graph: ir.Graph, node: ir.Node) -> None:
    if not node.attributes.get_int("channels_last", 0):
        x, output = quantized_input(node, 0), (node.inputs[3], node.inputs[4])
        replace_by_float_operator(graph, node, node.op_type.removeprefix("QLinear"), [x], output)


def _binary(graph: ir.Graph, node: ir.Node) -> None:
    a, b = quantized_input(node, 0), quantized_input(node, 3, axis=_BINARY[node.op_type])
    output = (node.inputs[6], node.inputs[7])
    replace_by_float_operator(graph, node, node.op_type.removeprefix("QLinear"), [a, b], output)


def _concat(graph: ir.Graph, node: ir.Node) -> None:
    parts = [quantized_input(node, i) for i in range(2, len(node.inputs), 3)]
    replace_by_float_operator(graph, node, "Concat", parts, (node.inputs[0], node.inputs[1]))


def _dynamic(graph: ir.Graph, node: ir.Node) -> None:
    """Replace MatMulInteger or ConvInteger, the Cast after it and the Mul that scales it."""
    found = _scaled(node)
    data = node.inputs[0].producer() if node.inputs[0] is not None else None
    if found is None or data is None or data.op_type != "DynamicQuantizeLinear":
        return
    scaling, weight_scale = found
    op = "MatMul" if node.op_type == "MatMulInteger" else "Conv"
    x = QuantizedTensor(data.outputs[0], data.outputs[1], data.outputs[2])
    axis = -1 if op == "MatMul" else 0
    w = QuantizedTensor(node.inputs[1], weight_scale, input_at(node, 3), axis)
    floats = [insert_dequantize(graph, node, one) for one in (x, w)]
    name = re.sub(r"(_quant|_MatMulInteger|_ConvInteger)$", "", node.name or "")
    made = ir.node(op, floats, attributes=dict(node.attributes), name=name)
    _replace(graph, node, made, scaling)


def _scaled(node: ir.Node) -> tuple[ir.Node, ir.Value] | None:
    """Return the Mul that scales integer sums, and the scale of the weight in it."""
    cast = only_user(node.outputs[0])
    scaling = only_user(cast.outputs[0]) if cast is not None and cast.op_type == "Cast" else None
    if cast is None or scaling is None or scaling.op_type != "Mul":
        return None
    scales = next((v for v in scaling.inputs if v is not cast.outputs[0]), None)
    product = producer(scales, "Mul")
    constants = (
        [v for v in product.inputs if v and constant_array(v) is not None] if product else []
    )
    return (scaling, constants[0]) if len(constants) == 1 else None


def _nbits(graph: ir.Graph, node: ir.Node) -> None:
    """Replace MatMulNBits by a MatMul with the dequantized weight."""
    data, packed, scales = node.inputs[:3]
    numbers, sizes = constant_array(packed), constant_array(scales)
    zeros = constant_array(input_at(node, 3))
    if numbers is None or sizes is None or len(node.inputs) > 4:
        return
    depth, width, bits, block = (
        node.attributes[name].as_int() for name in ("K", "N", "bits", "block_size")
    )
    if bits not in {4, 8}:
        return
    rows = unpack_nbits(numbers, sizes, zeros, shape=(width, depth), bits=bits, block=block)
    weight = add_initializer(graph, f"{node.name}_as_floats", rows.T)
    made = ir.node("MatMul", [data, weight], name=node.name)
    _replace(graph, node, made, node)


def _table(graph: ir.Graph, node: ir.Node) -> None:
    """Move a DequantizeLinear after a Gather from an int8 table before it."""
    table, rows = node.inputs[0], node.outputs[0]
    readers = [use.node for use in rows.uses()]
    if constant_array(table) is None or rows.is_graph_output():
        return
    for reader in readers:
        scale = constant_array(reader.inputs[1]) if reader.op_type == "DequantizeLinear" else None
        if scale is None or scale.size != 1:
            return
    for reader in readers:
        floats = insert_dequantize(graph, node, QuantizedTensor(table, *scales_of(reader)))
        attributes = dict(node.attributes)
        made = ir.node("Gather", [floats, node.inputs[1]], attributes=attributes, name=node.name)
        _replace(graph, node, made, reader)


def _replace(graph: ir.Graph, node: ir.Node, made: ir.Node, last: ir.Node) -> None:
    """Insert a float operator before a node, and let it replace the last of the old operators."""
    output = last.outputs[0]
    replace_output(graph, last, output, insert_before(graph, node, made, f"{output.name}_float"))


Rule = Callable[[ir.Graph, ir.Node], None]
RULES: dict[str, Rule] = {
    "QLinearConv": _conv,
    "QGemm": _gemm,
    "Gather": _table,
    "QLinearConcat": _concat,
    "MatMulInteger": _dynamic,
    "ConvInteger": _dynamic,
    "MatMulNBits": _nbits,
    **dict.fromkeys(_UNARY, _unary),
    **dict.fromkeys(_BINARY, _binary),
}
