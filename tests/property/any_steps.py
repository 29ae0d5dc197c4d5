"""Steps of random graphs that take a tensor of any shape."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper
from property.builder import Builder, Tensor


def activation(b: Builder, x: Tensor) -> Tensor:
    """Relu and its relatives, as one operator or as the nodes that exporters write."""
    kinds = [
        "Relu",
        "clip",
        "Sigmoid",
        "Tanh",
        "HardSigmoid",
        "LeakyRelu",
        "PRelu",
        "Softmax",
        "silu",
    ]
    kinds += ["gelu"] * (b.opset >= 9) + ["HardSwish"] * (b.opset >= 14) + ["Elu"]
    kind = b.pick(kinds)
    if kind == "clip":
        low, high = b.pick([(0.0, 6.0), (0.0, 1.0), (-0.5, 0.5)])
        if b.opset < 11:
            return Tensor(b.node("Clip", [x.name], min=low, max=high), x.shape)
        ends = [b.constant(np.float32(low)), b.constant(np.float32(high))]
        ends = b.pick([ends, ends[:1], ["", ends[1]]])
        return Tensor(b.node("Clip", [x.name, *ends]), x.shape)
    if kind == "PRelu":
        slope = b.weight(x.shape[0], *[1] * (len(x.shape) - 1))
        return Tensor(b.node("PRelu", [x.name, slope]), x.shape)
    if kind == "Softmax":
        return Tensor(b.node("Softmax", [x.name], axis=len(x.shape)), x.shape)
    if kind == "silu":
        return Tensor(b.node("Mul", [x.name, b.node("Sigmoid", [x.name])]), x.shape)
    if kind == "gelu":
        erf = b.node("Erf", [b.node("Div", [x.name, b.constant(np.float32(2**0.5))])])
        inner = b.node("Mul", [x.name, b.node("Add", [erf, b.constant(np.float32(1))])])
        return Tensor(b.node("Mul", [inner, b.constant(np.float32(0.5))]), x.shape)
    return Tensor(b.node(kind, [x.name]), x.shape)


def arithmetic(b: Builder, x: Tensor) -> Tensor:
    """Add, Mul, Sub or Div with a constant that is a scalar, a channel row or a whole row."""
    op = b.pick(["Add", "Mul", "Sub", "Div"])
    channels = (x.shape[0], 1, 1) if len(x.shape) == 3 else x.shape[-1:]
    shape = b.pick([(), (1,), channels])
    rng = np.random.default_rng(len(b.weights))
    other = b.constant(rng.uniform(0.5, 1.5, shape).astype(np.float32))
    both = [other, x.name] if op != "Div" and b.chance(30) else [x.name, other]
    return Tensor(b.node(op, both), x.shape)


def with_itself(b: Builder, x: Tensor) -> Tensor:
    """Square or double a tensor by naming it twice."""
    return Tensor(b.node(b.pick(["Add", "Mul"]), [x.name, x.name]), x.shape)


def residual(b: Builder, x: Tensor) -> Tensor:
    """Combine with an earlier tensor of the same shape."""
    same = [t for t in b.pool if t.shape == x.shape]
    return Tensor(b.node(b.pick(["Add", "Mul", "Sub"]), [b.pick(same).name, x.name]), x.shape)


def concat(b: Builder, x: Tensor) -> Tensor:
    """Concatenate channels with those of another tensor, of the same, or of none."""
    axis = 1 if len(x.shape) == 3 else len(x.shape)
    rest = lambda t: t.shape[1:] if len(t.shape) == 3 else t.shape[:-1]  # noqa: E731
    others = [t for t in b.pool if len(t.shape) == len(x.shape) and rest(t) == rest(x)]
    parts = [x, *b.pick([[], [x], [b.pick(others)]])]
    sizes = list(x.shape)
    sizes[axis - 1] = sum(t.shape[axis - 1] for t in parts)
    return Tensor(b.node("Concat", [t.name for t in parts], axis=axis), tuple(sizes))


def split(b: Builder, x: Tensor) -> Tensor:
    """Split the last axis in two and add or concatenate the halves."""
    size, axis = x.shape[-1], len(x.shape)
    if size % 2:
        return x
    half = [size // 2] * 2
    if b.opset < 13:
        parts = b.node("Split", [x.name], 2, axis=axis, split=half)
    elif b.opset >= 18 and b.chance(50):
        parts = b.node("Split", [x.name], 2, axis=axis, num_outputs=2)
    else:
        parts = b.node("Split", [x.name, b.constant(np.array(half, np.int64))], 2, axis=axis)
    if b.chance(30):
        return Tensor(b.node("Concat", parts[::-1], axis=axis), x.shape)
    return Tensor(b.node(b.pick(["Add", "Mul"]), parts), (*x.shape[:-1], size // 2))


def cut(b: Builder, x: Tensor) -> Tensor:
    """Slice an end of an axis off."""
    axis = b.pick(range(1, len(x.shape) + 1))
    size = x.shape[axis - 1]
    if size < 3:
        return x
    ends = [[1], [size], [axis]]
    if b.opset < 10:
        name = b.node("Slice", [x.name], starts=ends[0], ends=ends[1], axes=ends[2])
    else:
        name = b.node("Slice", [x.name, *(b.constant(np.array(e, np.int64)) for e in ends)])
    sizes = list(x.shape)
    sizes[axis - 1] = size - 1
    return Tensor(name, tuple(sizes))


def twin(b: Builder, x: Tensor) -> Tensor:
    """Repeat the node that made a tensor, and add both results."""
    found = [n for n in b.nodes if x.name in n.output and len(n.output) == 1]
    if not found or any(a.HasField("g") for a in found[0].attribute):
        return x
    again = onnx.NodeProto()
    again.CopyFrom(found[0])
    again.output[0], again.name = b.name("t"), ""
    b.nodes.append(again)
    b.pool.append(Tensor(again.output[0], x.shape))
    return Tensor(b.node("Add", [again.output[0], x.name]), x.shape)


def move(b: Builder, x: Tensor) -> Tensor:
    """Move nothing at all: Identity, Dropout, or there and back."""
    kind = b.pick(["Identity", "Dropout", "transposes"])
    if kind != "transposes":
        return Tensor(b.node(kind, [x.name]), x.shape)
    perm = [0, *range(len(x.shape), 0, -1)]
    return Tensor(b.transpose(b.transpose(x.name, *perm), *perm), x.shape)


def branch(b: Builder, x: Tensor) -> Tensor:
    """An If that captures a tensor and a weight, behind a condition that is always true."""
    weight = b.weight(x.shape[-1], x.shape[-1], fan_in=x.shape[-1])
    captured = b.pick([x, *(t for t in b.pool if t.shape == x.shape)])
    shape = [b.batch, *x.shape]
    graphs = []
    taken = b.pick([("MatMul", [captured.name, weight]), ("Relu", [captured.name])])
    for op, operands in (taken, ("Identity", [x.name])):
        out = b.name("i")
        value = helper.make_tensor_value_info(out, TensorProto.FLOAT, shape)
        inner = helper.make_node(op, operands, [out], name=f"{op.lower()}_{len(b.taken)}")
        graphs.append(helper.make_graph([inner], out, [], [value]))
    if b.chance(30):
        condition = b.constant(np.array(True))
    else:
        sizes = b.node("Cast", [b.node("Shape", [x.name])], to=TensorProto.FLOAT)
        first = b.node("ReduceMax", [sizes], keepdims=0)
        condition = b.node("Greater", [first, b.constant(np.float32(0))])
    made = b.node("If", [condition], then_branch=graphs[0], else_branch=graphs[1])
    return Tensor(made, x.shape)


def loop(b: Builder, x: Tensor) -> Tensor:
    """A Loop of two turns, whose body reads a captured weight."""
    weight = b.weight(x.shape[-1], x.shape[-1], fan_in=x.shape[-1])
    names = {n: b.name(n) for n in ("turn", "go", "state", "on", "product", "next")}
    nodes = [
        helper.make_node("Identity", [names["go"]], [names["on"]]),
        helper.make_node("MatMul", [names["state"], weight], [names["product"]], name="in_loop"),
        helper.make_node("Tanh", [names["product"]], [names["next"]]),
    ]
    info = helper.make_tensor_value_info
    state = [b.batch, *x.shape]
    body = helper.make_graph(
        nodes,
        "body",
        [
            info(names["turn"], TensorProto.INT64, []),
            info(names["go"], TensorProto.BOOL, []),
            info(names["state"], TensorProto.FLOAT, state),
        ],
        [info(names["on"], TensorProto.BOOL, []), info(names["next"], TensorProto.FLOAT, state)],
    )
    turns, go = b.constant(np.array(2, np.int64)), b.constant(np.array(True))
    return Tensor(b.node("Loop", [turns, go, x.name], body=body), x.shape)


def nested(b: Builder, x: Tensor) -> Tensor:
    """A branch inside of a branch, which captures what both of its outer graphs have."""
    weight = b.weight(x.shape[-1], x.shape[-1], fan_in=x.shape[-1])
    names = {n: b.name(n) for n in ("deep", "flat", "there", "product", "inner", "other")}
    made = helper.make_node
    info = helper.make_tensor_value_info
    value = {n: info(names[n], TensorProto.FLOAT, [b.batch, *x.shape]) for n in names}
    size = b.node("Cast", [b.node("Size", [x.name])], to=TensorProto.FLOAT)  # for old Greater
    condition = b.node("Greater", [size, b.constant(np.float32(b.pick([0, 10**6])))])
    deep = made("Add", [names["product"], x.name], [names["deep"]], name="deep_sum")
    flat = made("Relu", [names["product"]], [names["flat"]], name="deep_relu")
    inside = {
        "then_branch": helper.make_graph([deep], "deep", [], [value["deep"]]),
        "else_branch": helper.make_graph([flat], "flat", [], [value["flat"]]),
    }
    nodes = [
        made("MatMul", [x.name, weight], [names["product"]], name="branch_product"),
        made("If", [condition], [names["inner"]], name="deep_if", **inside),
    ]
    other = made("Identity", [x.name], [names["other"]], name="branch_wire")
    branches = {
        "then_branch": helper.make_graph(nodes, "outer", [], [value["inner"]]),
        "else_branch": helper.make_graph([other], "other", [], [value["other"]]),
    }
    return Tensor(b.node("If", [condition], **branches), x.shape)


def fed_beside(b: Builder, x: Tensor) -> Tensor:
    """Combine with another input of the same rows."""
    return Tensor(b.node(b.pick(["Add", "Mul"]), [x.name, b.fed(*x.shape).name]), x.shape)


def choice(b: Builder, x: Tensor) -> Tensor:
    """Where of a tensor and of an earlier one or a constant: the larger, or the smaller.

    At the threshold both are equal: a jump would make a large error of a small one.
    """
    if b.opset < 9:
        return x
    same = [t.name for t in b.pool if t.shape == x.shape]
    other = b.pick([b.constant(np.float32(0.5)), *same])
    larger = b.node("Greater", [x.name, other])
    return Tensor(b.node("Where", [larger, *b.pick([[x.name, other], [other, x.name]])]), x.shape)


def island(b: Builder, x: Tensor) -> Tensor:
    """A product in double precision between two casts."""
    size = x.shape[-1]
    array = np.random.default_rng(size).standard_normal((size, size)) / np.sqrt(size)
    wide = b.node("Cast", [x.name], to=TensorProto.DOUBLE)
    made = b.node("MatMul", [wide, b.constant(array)])
    return Tensor(b.node("Cast", [made], to=TensorProto.FLOAT), x.shape)


def foreign(b: Builder, x: Tensor) -> Tensor:
    """An operator that only onnxruntime has, whose type inference does not know."""
    return Tensor(b.node("Gelu", [x.name], domain="com.microsoft"), x.shape)


def reverse(b: Builder, x: Tensor) -> Tensor:
    """Reverse an axis, or gather it in another order."""
    axis = b.pick(range(1, len(x.shape) + 1))
    order = np.arange(x.shape[axis - 1])[::-1].copy()
    if b.opset < 10 or b.chance(50):
        return Tensor(b.node("Gather", [x.name, b.constant(order)], axis=axis), x.shape)
    ends = [[-1], [-(2**31)], [axis], [-1]]
    cuts = [b.constant(np.array(e, np.int64)) for e in ends]
    return Tensor(b.node("Slice", [x.name, *cuts]), x.shape)
