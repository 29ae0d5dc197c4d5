"""Any int8 graph as pairs of QuantizeLinear and DequantizeLinear around float operators.

Operators that compute on integers (QLinearConv, MatMulInteger, MatMulNBits, ...) become the float
operator between the pairs that they stand for, so that one reading suits all formats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .constants import Value, array_of, constant, fresh, unpacked

#: Operators that move integers as they move floats, and change none.
MOVES = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "MaxPool",
        "Pad",
        "Reshape",
        "Resize",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
#: Integer operators with one quantized input and one output: input, scale, zero, scale, zero.
_UNARY = {
    "QLinearAveragePool": "AveragePool",
    "QLinearGlobalAveragePool": "GlobalAveragePool",
    "QLinearLeakyRelu": "LeakyRelu",
    "QLinearReduceMean": "ReduceMean",
    "QLinearSigmoid": "Sigmoid",
    "QLinearSoftmax": "Softmax",
}
_BINARY = {"QLinearAdd": "Add", "QLinearMul": "Mul"}
#: Attributes that only the integer operator has.
_OWN = frozenset({"channels_last", "opset"})


@dataclass(frozen=True)
class _Integers:
    """Integers with their scale and zero point."""

    value: Value
    scale: Value
    zero: Value
    axis: int | None = None


def _integers(node: ir.Node, start: int, axis: int | None = None) -> _Integers:
    """The integers, scale and zero point at three neighbouring inputs of a node."""
    value, scale, zero = [*node.inputs[start : start + 3], None, None][:3]
    return _Integers(value, scale, zero, axis)


def to_pairs(model: ir.Model) -> list[str]:
    """Rewrite the main graph in place.

    Returns:
        Names of integer operators that have no float form here; they stay as they are.
    """
    graph = model.graph
    left = []
    for node in list(graph):
        rule = _RULES.get(node.op_type)
        if rule is not None:
            rule(graph, node)
        elif node.op_type.startswith(("QLinear", "QAttention", "DynamicQuantizeLSTM")):
            left.append(node.name or node.op_type)
    _read_as_floats(graph)
    # What was replaced is read by nobody now.
    for node in reversed(list(graph)):
        if not any(v.uses() or v.is_graph_output() for v in node.outputs):
            graph.remove(node, safe=True)
    unread = [
        node.name or node.op_type
        for node in graph
        if node.op_type in {"MatMulInteger", "ConvInteger", "MatMulNBits"}
    ]
    graph.sort()
    return left + unread


def _dequantized(graph: ir.Graph, before: ir.Node, integers: _Integers) -> ir.Value:
    inputs = [integers.value, integers.scale, integers.zero]
    attributes = {} if integers.axis is None else {"axis": integers.axis}
    node = ir.node("DequantizeLinear", inputs, attributes=attributes)
    value = integers.value
    base = f"{value.name if value is not None else ''}_as_float"
    node.outputs[0].name = fresh(base)
    graph.insert_before(before, node)
    return node.outputs[0]


def _become(
    graph: ir.Graph,
    node: ir.Node,
    op: str,
    inputs: Sequence[_Integers],
    output: tuple[Value, Value] | None,
    bias: _Integers | None = None,
) -> None:
    """Put the float operator and its pairs in the place of an integer operator."""
    floats = [_dequantized(graph, node, one) for one in inputs]
    if bias is not None:
        floats.append(_dequantized(graph, node, bias))
    attributes = {name: a for name, a in node.attributes.items() if name not in _OWN}
    made = ir.node(op, floats, attributes=attributes, name=node.name)
    result = node.outputs[0]
    made.outputs[0].name = fresh(f"{result.name}_float")
    graph.insert_before(node, made)
    final = made.outputs[0]
    if output is not None:
        quantize = ir.node("QuantizeLinear", [final, *output])
        quantize.outputs[0].name = fresh(f"{result.name}_integers")
        if output[1] is not None and output[1].dtype is not None:
            quantize.outputs[0].dtype = output[1].dtype
        graph.insert_before(node, quantize)
        final = quantize.outputs[0]
    _replace(graph, node, result, final)


def _replace(graph: ir.Graph, node: ir.Node, old: ir.Value, new: ir.Value) -> None:
    if new.dtype is None and old.dtype is not None:
        new.dtype = old.dtype
    new.shape = new.shape or old.shape
    was_output, name = old.is_graph_output(), old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    if was_output:
        new.name = name


def _product_of_scales(graph: ir.Graph, name: str, *scales: Value) -> ir.Value | None:
    """The scale of an int32 bias: that of the data times that of the weight."""
    arrays = [array_of(scale) for scale in scales]
    if any(array is None for array in arrays):
        return None
    product = np.prod([np.asarray(a, np.float64).reshape(-1) for a in _broadcast(arrays)], axis=0)
    product = product if product.size > 1 else product.reshape(())
    return constant(graph, name, product.astype(np.float32))


def _broadcast(arrays: Sequence[NDArray[np.generic] | None]) -> list[NDArray[np.generic]]:
    return list(np.broadcast_arrays(*[np.reshape(a, -1) for a in arrays if a is not None]))


def _conv(graph: ir.Graph, node: ir.Node) -> None:
    x, w = _integers(node, 0), _integers(node, 3, axis=0)
    bias = None
    if len(node.inputs) > 8 and node.inputs[8] is not None:
        scale = _product_of_scales(graph, f"{node.name}_bias_scale", x.scale, w.scale)
        if scale is None:
            return
        bias = _Integers(node.inputs[8], scale, None, axis=0)
    _become(graph, node, "Conv", [x, w], (node.inputs[6], node.inputs[7]), bias)


def _matmul(graph: ir.Graph, node: ir.Node) -> None:
    a, b = _integers(node, 0), _integers(node, 3, axis=-1)
    _become(graph, node, "MatMul", [a, b], (node.inputs[6], node.inputs[7]))


def _gemm(graph: ir.Graph, node: ir.Node) -> None:
    inputs = [*node.inputs, None, None, None]
    transposed = node.attributes.get("transB")
    axis = 0 if transposed is not None and transposed.as_int() else 1
    a, b = _integers(node, 0), _integers(node, 3, axis=axis)
    bias = None
    if inputs[6] is not None:
        scale = _product_of_scales(graph, f"{node.name}_bias_scale", a.scale, b.scale)
        if scale is None:
            return
        bias = _Integers(inputs[6], scale, None, axis=0)
    output = (inputs[7], inputs[8]) if inputs[7] is not None else None
    _become(graph, node, "Gemm", [a, b], output, bias)


def _unary(graph: ir.Graph, node: ir.Node) -> None:
    channels_last = node.attributes.get("channels_last")
    if channels_last is None or not channels_last.as_int():
        output = (node.inputs[3], node.inputs[4])
        _become(graph, node, _UNARY[node.op_type], [_integers(node, 0)], output)


def _binary(graph: ir.Graph, node: ir.Node) -> None:
    a, b = _integers(node, 0), _integers(node, 3)
    _become(graph, node, _BINARY[node.op_type], [a, b], (node.inputs[6], node.inputs[7]))


def _concat(graph: ir.Graph, node: ir.Node) -> None:
    parts = [_integers(node, i) for i in range(2, len(node.inputs), 3)]
    _become(graph, node, "Concat", parts, (node.inputs[0], node.inputs[1]))


def _dynamic(graph: ir.Graph, node: ir.Node) -> None:
    """MatMulInteger or ConvInteger, the Cast behind it and the Mul that scales it."""
    found = _scaled(node)
    data = node.inputs[0].producer() if node.inputs[0] is not None else None
    if found is None or data is None or data.op_type != "DynamicQuantizeLinear":
        return
    scaling, weight_scale = found
    op = "MatMul" if node.op_type == "MatMulInteger" else "Conv"
    x = _Integers(data.outputs[0], data.outputs[1], data.outputs[2])
    zero = node.inputs[3] if len(node.inputs) > 3 else None
    w = _Integers(node.inputs[1], weight_scale, zero, axis=-1 if op == "MatMul" else 0)
    floats = [_dequantized(graph, node, one) for one in (x, w)]
    name = (node.name or "").removesuffix("_quant")
    made = ir.node(op, floats, attributes=dict(node.attributes), name=name)
    made.outputs[0].name = fresh(f"{scaling.outputs[0].name}_float")
    graph.insert_before(node, made)
    _replace(graph, scaling, scaling.outputs[0], made.outputs[0])


def _scaled(node: ir.Node) -> tuple[ir.Node, ir.Value] | None:
    """The Mul that makes floats of integer sums, and the scale of the weight in it."""
    casts = [use.node for use in node.outputs[0].uses()]
    if len(casts) != 1 or casts[0].op_type != "Cast":
        return None
    uses = list(casts[0].outputs[0].uses())
    if len(uses) != 1 or uses[0].node.op_type != "Mul":
        return None
    scales = uses[0].node.inputs[1 - uses[0].idx]
    maker = scales.producer() if scales is not None else None
    if maker is None or maker.op_type != "Mul":
        return None
    constants = [v for v in maker.inputs if v is not None and array_of(v) is not None]
    return (uses[0].node, constants[0]) if len(constants) == 1 else None


def _nbits(graph: ir.Graph, node: ir.Node) -> None:
    """MatMulNBits: the weight becomes the floats that its integers mean."""
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
    rows = unpacked(numbers, sizes, zeros, shape=(width, depth), bits=bits, block=block)
    weight = constant(graph, f"{node.name}_as_floats", rows.T)
    made = ir.node("MatMul", [data, weight], name=node.name)
    made.outputs[0].name = fresh(f"{node.outputs[0].name}_float")
    graph.insert_before(node, made)
    _replace(graph, node, node.outputs[0], made.outputs[0])


def _table(graph: ir.Graph, node: ir.Node) -> None:
    """A DequantizeLinear behind a Gather from an int8 table goes before it."""
    table, rows = node.inputs[0], node.outputs[0]
    readers = [use.node for use in rows.uses()]
    if array_of(table) is None or rows.is_graph_output():
        return
    for reader in readers:
        scale = array_of(reader.inputs[1]) if reader.op_type == "DequantizeLinear" else None
        if scale is None or scale.size != 1:
            return
    for reader in readers:
        floats = _dequantized(graph, node, _Integers(table, *_scales(reader)))
        attributes = dict(node.attributes)
        made = ir.node("Gather", [floats, node.inputs[1]], attributes=attributes, name=node.name)
        made.outputs[0].name = fresh(f"{rows.name}_float")
        graph.insert_before(node, made)
        _replace(graph, reader, reader.outputs[0], made.outputs[0])


def _scales(node: ir.Node) -> tuple[Value, Value]:
    """Scale and zero point of a quantizer."""
    return node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None


def _read_as_floats(graph: ir.Graph) -> None:
    """Put a DQ before and a Q behind each operator that moves the integers of a Q."""
    for node in list(graph):
        if node.op_type not in MOVES:
            continue
        pair: tuple[Value, Value] | None = None
        for index, value in enumerate(node.inputs):
            maker = value.producer() if value is not None else None
            if maker is not None and maker.op_type == "QuantizeLinear":
                pair = _scales(maker)
                floats = _dequantized(graph, node, _Integers(value, *pair))
                node.replace_input_with(index, floats)
        if pair is not None:
            for output in node.outputs:
                _quantized_again(graph, node, output, pair)


def _quantized_again(
    graph: ir.Graph, node: ir.Node, output: ir.Value, pair: tuple[Value, Value]
) -> None:
    uses, was_output = list(output.uses()), output.is_graph_output()
    quantize = ir.node("QuantizeLinear", [output, *pair])
    integers = quantize.outputs[0]
    integers.name = fresh(f"{output.name}_integers")
    if output.dtype is not None:
        integers.type = ir.TensorType(output.dtype)
    output.type = ir.TensorType(ir.DataType.FLOAT)  # a clone shares the old type with its source
    graph.insert_after(node, quantize)
    for use in uses:
        use.node.replace_input_with(use.idx, integers)
    if was_output:
        graph.outputs[list(graph.outputs).index(output)] = integers


_Rule = Callable[[ir.Graph, ir.Node], None]
_RULES: dict[str, _Rule] = {
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
