"""Steps of random graphs on vectors and sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from property.builder import Builder, Shape, Tensor


def gemm(b: Builder, x: Tensor) -> Tensor:
    """A Gemm of any alpha, beta, transposition and form of bias."""
    (features,), made = x.shape, b.pick([4, 8, 1])
    flipped, turned = b.pick([0, 1]), int(b.chance(10))
    shape = (made, features) if flipped else (features, made)
    first = b.transpose(x.name, 1, 0) if turned else x.name
    forms: list[Shape | None] = [(made,), (1, made), (1,), (), *([None] if b.opset >= 11 else [])]
    bias = b.pick(forms)
    inputs = [first, b.weight(*shape, fan_in=features)]
    inputs += [b.weight(*bias)] if bias is not None else []
    attributes: dict[str, Any] = {"transB": flipped, "transA": turned}
    attributes |= {"alpha": 0.5} if b.chance(20) else {}
    attributes |= {"beta": 2.0} if b.chance(20) else {}
    return Tensor(b.node("Gemm", inputs, **attributes), (made,))


def matmul(b: Builder, x: Tensor) -> Tensor:
    """A MatMul with a weight, with or without an Add behind it."""
    features, made = x.shape[-1], b.pick([4, 8])
    lead = (1,) if len(x.shape) == 2 and b.chance(20) else ()
    name = b.node("MatMul", [x.name, b.weight(*lead, features, made, fan_in=features)])
    if b.chance(50):
        both = [name, b.weight(*b.pick([(made,), (1, made), (1,), ()]))]
        name = b.node("Add", both[::-1] if b.chance(30) else both)
    return Tensor(name, (*x.shape[:-1], made))


def layer_norm(b: Builder, x: Tensor) -> Tensor:
    """A LayerNormalization, or the nodes that older opsets have for it."""
    features = x.shape[-1]
    scale, shift = (np.linspace(0.5, 1.5, features, dtype=np.float32) for _ in range(2))
    if b.opset >= 17:
        inputs = [x.name, b.constant(scale), b.constant(shift)]
        return Tensor(b.node("LayerNormalization", inputs, axis=-1), x.shape)
    mean = b.node("ReduceMean", [x.name], axes=[-1], keepdims=1)
    centred = b.node("Sub", [x.name, mean])
    square = b.node("Mul", [centred, centred])
    variance = b.node("ReduceMean", [square], axes=[-1], keepdims=1)
    width = b.node("Sqrt", [b.node("Add", [variance, b.constant(np.float32(1e-3))])])
    scaled = b.node("Mul", [b.node("Div", [centred, width]), b.constant(scale)])
    return Tensor(b.node("Add", [scaled, b.constant(shift)]), x.shape)


def vector_to_sequence(b: Builder, x: Tensor) -> Tensor:
    """Cut a vector into a sequence."""
    (features,) = x.shape
    if features % 2:
        return x
    return Tensor(b.reshape(x.name, [0, 2, features // 2]), (2, features // 2))


def attention(b: Builder, x: Tensor) -> Tensor:
    """Softmax of products of the sequence with itself: two products without a weight."""
    score = b.node("MatMul", [x.name, b.transpose(x.name, 0, 2, 1)])
    share = b.node("Softmax", [score], axis=2)
    return Tensor(b.node("MatMul", [share, x.name]), x.shape)


def recurrent(b: Builder, x: Tensor) -> Tensor:
    """An LSTM or GRU, some of whose optional inputs are absent."""
    op, hidden = b.pick(["LSTM", "GRU"]), 4
    steps, features = x.shape
    gates = {"LSTM": 4, "GRU": 3}[op] * hidden
    ways = b.pick([1, 2])
    inputs = [b.transpose(x.name, 1, 0, 2)]
    inputs += [b.weight(ways, gates, n, fan_in=n) for n in (features, hidden)]
    if b.chance(50):
        inputs.append(b.weight(ways, 2 * gates))
    if op == "LSTM" and b.chance(15):  # peepholes, with nothing between
        inputs += [""] * (7 - len(inputs)) + [b.weight(ways, 3 * hidden)]
    more = {"direction": "bidirectional"} if ways == 2 else {}
    made = b.node(op, inputs, 2, hidden_size=hidden, **more)
    if b.chance(30):  # the last state: (ways, N, hidden)
        last = b.transpose(made[1], 1, 0, 2)
        return Tensor(b.reshape(last, [0, ways * hidden]), (ways * hidden,))
    rows = b.transpose(made[0], 2, 0, 1, 3)
    return Tensor(b.reshape(rows, [0, steps, ways * hidden]), (steps, ways * hidden))


def scan(b: Builder, x: Tensor) -> Tensor:
    """A Scan over the sequence, whose body reads a captured weight, and its state or its steps."""
    steps, features = x.shape
    if b.opset < 9:
        return x
    weight = b.weight(features, features, fan_in=features)
    names = {n: b.name(n) for n in ("state", "step", "sum", "product", "next", "each")}
    nodes = [
        helper.make_node("Add", [names["state"], names["step"]], [names["sum"]]),
        helper.make_node("MatMul", [names["sum"], weight], [names["product"]], name="in_scan"),
        helper.make_node("Tanh", [names["product"]], [names["next"]]),
        helper.make_node("Identity", [names["next"]], [names["each"]]),
    ]

    def values(*keys: str) -> list[onnx.ValueInfoProto]:
        make = helper.make_tensor_value_info
        return [make(names[k], TensorProto.FLOAT, [b.batch, features]) for k in keys]

    body = helper.make_graph(nodes, "body", values("state", "step"), values("next", "each"))
    first = b.axes_node("ReduceMean", x.name, [1], 18, keepdims=0)
    options = {"num_scan_inputs": 1, "scan_input_axes": [1], "scan_output_axes": [1]}
    last, rows = b.node("Scan", [first, x.name], 2, body=body, **options)
    return Tensor(last, (features,)) if b.chance(30) else Tensor(rows, (steps, features))


def sequence_to_vector(b: Builder, x: Tensor) -> Tensor:
    """Average over the sequence, or flatten it."""
    steps, features = x.shape
    if b.chance(50):
        return Tensor(b.node("Flatten", [x.name]), (steps * features,))
    return Tensor(b.axes_node("ReduceMean", x.name, [1], 18, keepdims=0), (features,))


def rnn(b: Builder, x: Tensor) -> Tensor:
    """A recurrent layer whose first state, and the lengths of whose rows, are given."""
    op, hidden, (steps, features) = b.pick(["GRU", "RNN", "LSTM"]), 4, x.shape
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op] * hidden
    inputs = [b.transpose(x.name, 1, 0, 2)]
    inputs += [b.weight(1, gates, n, fan_in=n) for n in (features, hidden)]
    state = b.transpose(b.fed(1, hidden).name, 1, 0, 2)
    inputs += ["", "", state, *([state] if op == "LSTM" else [])]
    more: dict[str, Any] = {"direction": b.pick(["forward", "reverse"])}
    if op == "GRU" and b.chance(50):
        more["linear_before_reset"] = 1
    made = b.node(op, inputs, 2, hidden_size=hidden, **more)
    rows = b.transpose(made[0], 2, 0, 1, 3)
    return Tensor(b.reshape(rows, [0, steps, hidden]), (steps, hidden))


def conv_1d(b: Builder, x: Tensor) -> Tensor:
    """A convolution along the sequence, padded by a rule."""
    steps, features = x.shape
    made, groups = b.pick([4, 8]), 1 if features % 2 else b.pick([1, 2])
    inputs = [b.transpose(x.name, 0, 2, 1)]
    inputs.append(b.weight(made, features // groups, 3, fan_in=3 * features // groups))
    inputs += [b.weight(made)] if b.chance(50) else []
    padding = b.pick(["SAME_UPPER", "SAME_LOWER"])
    name = b.node("Conv", inputs, auto_pad=padding, group=groups)
    return Tensor(b.transpose(name, 0, 2, 1), (steps, made))


def einsum(b: Builder, x: Tensor) -> Tensor:
    """A product of heads, as some exporters write it."""
    steps, features = x.shape
    if b.opset < 12:
        return x
    heads = b.node(
        "Einsum", [x.name, b.weight(features, 2, 4, fan_in=features)], equation="bsd,dhk->bhsk"
    )
    name = b.node("Einsum", [heads, b.weight(2, 4, 8, fan_in=8)], equation="bhsk,hko->bso")
    return Tensor(name, (steps, 8))
