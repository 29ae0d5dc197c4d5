"""Rules that replace operators on integers by float operators between Q and DQ."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .constants import Value, add_initializer, array_of, fresh_name, unpack_nbits
from .qdq_writer import (
    QuantizedTensor,
    insert_dequantize,
    quantized_input,
    replace_by_float_operator,
    replace_output,
    scales_of,
)

#: Integer operators of one quantized input; inputs: integers, scale, zero, scale, zero.
_UNARY = {
    "QLinearAveragePool": "AveragePool",
    "QLinearGlobalAveragePool": "GlobalAveragePool",
    "QLinearLeakyRelu": "LeakyRelu",
    "QLinearReduceMean": "ReduceMean",
    "QLinearSigmoid": "Sigmoid",
    "QLinearSoftmax": "Softmax",
}
_BINARY = {"QLinearAdd": "Add", "QLinearMul": "Mul"}


def _product_of_scales(graph: ir.Graph, name: str, *scales: Value) -> ir.Value | None:
    """Return the scale of an int32 bias: that of the data times that of the weight."""
    arrays = [array_of(scale) for scale in scales]
    if any(array is None for array in arrays):
        return None
    product = np.prod([np.asarray(a, np.float64).reshape(-1) for a in _broadcast(arrays)], axis=0)
    product = product if product.size > 1 else product.reshape(())
    return add_initializer(graph, name, product.astype(np.float32))


def _broadcast(arrays: Sequence[NDArray[np.generic] | None]) -> list[NDArray[np.generic]]:
    return list(np.broadcast_arrays(*[np.reshape(a, -1) for a in arrays if a is not None]))


def _conv(graph: ir.Graph, node: ir.Node) -> None:
    x, w = quantized_input(node, 0), quantized_input(node, 3, axis=0)
    bias = None
    if len(node.inputs) > 8 and node.inputs[8] is not None:
        scale = _product_of_scales(graph, f"{node.name}_bias_scale", x.scale, w.scale)
        if scale is None:
            return
        bias = QuantizedTensor(node.inputs[8], scale, None, axis=0)
    replace_by_float_operator(graph, node, "Conv", [x, w], (node.inputs[6], node.inputs[7]), bias)


def _matmul(graph: ir.Graph, node: ir.Node) -> None:
    a, b = quantized_input(node, 0), quantized_input(node, 3, axis=-1)
    replace_by_float_operator(graph, node, "MatMul", [a, b], (node.inputs[6], node.inputs[7]))


def _gemm(graph: ir.Graph, node: ir.Node) -> None:
    inputs = [*node.inputs, None, None, None]
    axis = 0 if node.attributes.get_int("transB", 0) else 1
    a, b = quantized_input(node, 0), quantized_input(node, 3, axis=axis)
    bias = None
    if inputs[6] is not None:
        scale = _product_of_scales(graph, f"{node.name}_bias_scale", a.scale, b.scale)
        if scale is None:
            return
        bias = QuantizedTensor(inputs[6], scale, None, axis=0)
    output = (inputs[7], inputs[8]) if inputs[7] is not None else None
    replace_by_float_operator(graph, node, "Gemm", [a, b], output, bias)


def _unary(graph: ir.Graph, node: ir.Node) -> None:
    if not node.attributes.get_int("channels_last", 0):
        output = (node.inputs[3], node.inputs[4])
        replace_by_float_operator(
            graph, node, _UNARY[node.op_type], [quantized_input(node, 0)], output
        )


def _binary(graph: ir.Graph, node: ir.Node) -> None:
    a, b = quantized_input(node, 0), quantized_input(node, 3)
    replace_by_float_operator(
        graph, node, _BINARY[node.op_type], [a, b], (node.inputs[6], node.inputs[7])
    )


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
    zero = node.inputs[3] if len(node.inputs) > 3 else None
    w = QuantizedTensor(node.inputs[1], weight_scale, zero, axis=-1 if op == "MatMul" else 0)
    floats = [insert_dequantize(graph, node, one) for one in (x, w)]
    name = (node.name or "").removesuffix("_quant")
    made = ir.node(op, floats, attributes=dict(node.attributes), name=name)
    made.outputs[0].name = fresh_name(f"{scaling.outputs[0].name}_float")
    graph.insert_before(node, made)
    replace_output(graph, scaling, scaling.outputs[0], made.outputs[0])


def _scaled(node: ir.Node) -> tuple[ir.Node, ir.Value] | None:
    """Return the Mul that scales integer sums, and the scale of the weight in it."""
    casts = [use.node for use in node.outputs[0].uses()]
    if len(casts) != 1 or casts[0].op_type != "Cast":
        return None
    uses = list(casts[0].outputs[0].uses())
    if len(uses) != 1 or uses[0].node.op_type != "Mul":
        return None
    scales = uses[0].node.inputs[1 - uses[0].idx]
    producer = scales.producer() if scales is not None else None
    if producer is None or producer.op_type != "Mul":
        return None
    constants = [v for v in producer.inputs if v is not None and array_of(v) is not None]
    return (uses[0].node, constants[0]) if len(constants) == 1 else None


def _nbits(graph: ir.Graph, node: ir.Node) -> None:
    """Replace MatMulNBits by a MatMul with the dequantized weight."""
    data, packed, scales = node.inputs[:3]
    numbers, sizes = array_of(packed), array_of(scales)
    zeros = array_of(node.inputs[3]) if len(node.inputs) > 3 else None
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
    made.outputs[0].name = fresh_name(f"{node.outputs[0].name}_float")
    graph.insert_before(node, made)
    replace_output(graph, node, node.outputs[0], made.outputs[0])


def _table(graph: ir.Graph, node: ir.Node) -> None:
    """Move a DequantizeLinear after a Gather from an int8 table before it."""
    table, rows = node.inputs[0], node.outputs[0]
    readers = [use.node for use in rows.uses()]
    if array_of(table) is None or rows.is_graph_output():
        return
    for reader in readers:
        scale = array_of(reader.inputs[1]) if reader.op_type == "DequantizeLinear" else None
        if scale is None or scale.size != 1:
            return
    for reader in readers:
        floats = insert_dequantize(graph, node, QuantizedTensor(table, *scales_of(reader)))
        attributes = dict(node.attributes)
        made = ir.node("Gather", [floats, node.inputs[1]], attributes=attributes, name=node.name)
        made.outputs[0].name = fresh_name(f"{rows.name}_float")
        graph.insert_before(node, made)
        replace_output(graph, reader, reader.outputs[0], made.outputs[0])


Rule = Callable[[ir.Graph, ir.Node], None]
RULES: dict[str, Rule] = {
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    "QGemm": _gemm,
    "Gather": _table,
    "QLinearConcat": _concat,
    "MatMulInteger": _dynamic,
    "ConvInteger": _dynamic,
    "MatMulNBits": _nbits,
    **dict.fromkeys(_UNARY, _unary),
    **dict.fromkeys(_BINARY, _binary),
}
