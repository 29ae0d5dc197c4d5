"""Random small graphs of the operators that real files have, as hypothesis draws them.

A graph starts from one input of a family (pictures, sequences, vectors or tokens) and grows node by
node on what is there already. Outputs inside the graph, shared weights, captures, attributes of
old opsets and names like those that a quantizer gives are sprinkled in. All shrinks towards fewer
nodes, plain names and none of these. Weights are random numbers that depend on their shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

#: Rows of each graph's data.
ROWS = 32
#: Endings that quantizers and converters give to names of tensors.
ENDINGS = ("_quantized", "_scale", "_zero_point", "_transposed", "_QuantizeLinear_Output", "_DQ")
#: Names that need care in JSON, in file names and on a terminal.
STRANGE = ("a/b c", 'say "x"', "{y}", "Grüße", "w;v", "100%")
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """A float tensor of the graph: its name, and its shape without the batch in front."""

    name: str
    shape: Shape


class RandomGraph:
    """A model and the rows that it is calibrated and judged on."""

    def __init__(self, proto: onnx.ModelProto, feeds: dict[str, NDArray[Any]]) -> None:
        self.proto, self.feeds = proto, feeds

    def __repr__(self) -> str:
        return str(onnx.printer.to_text(self.proto))


@dataclass
class Builder:
    """The graph so far, and the draws that go on with it."""

    draw: Callable[[st.SearchStrategy[Any]], Any]
    opset: int
    batch: int | str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, NDArray[Any]] = field(default_factory=dict)
    pool: list[Tensor] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)

    def pick(self, options: Sequence[Any]) -> Any:
        """Draw one of these; the first is the simplest."""
        return self.draw(st.sampled_from(list(options)))

    def chance(self, percent: int) -> bool:
        """Draw true in so many of 100 cases; false is simpler."""
        return bool(self.draw(st.integers(0, 99)) >= 100 - percent)

    def name(self, stem: str) -> str:
        """Return a new name of a tensor, now and then one like those that tools give."""
        plain = next(f"{stem}{i}" for i in range(1000) if f"{stem}{i}" not in self.taken)
        if self.taken and self.chance(8):
            other = self.pick(sorted(self.taken)) + self.pick(ENDINGS)
            plain = plain if other in self.taken else other
        if self.chance(3):
            other = self.pick(STRANGE)
            plain = plain if other in self.taken else other
        self.taken.add(plain)
        return plain

    def node(self, op: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; return the name of its output, or a list of names."""
        names = [self.name("t") for _ in range(outputs)]
        title = f"{op.lower()}_{len(self.nodes)}" if self.chance(80) else ""
        self.nodes.append(helper.make_node(op, list(inputs), names, name=title, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, array: Any) -> str:
        """Add numbers as an initializer or as a node."""
        array = np.asarray(array)
        name = self.name("k")
        if self.chance(10) and (self.opset >= 9 or array.dtype == np.float32):
            value = numpy_helper.from_array(array, name)
            self.nodes.append(helper.make_node("Constant", [], [name], value=value))
        else:
            self.weights[name] = array
        return name

    def weight(self, *shape: int, fan_in: int = 1) -> str:
        """Return a float weight, now and then one that is there already or behind a node."""
        same = [n for n, a in self.weights.items() if a.shape == shape and a.dtype == np.float32]
        if same and self.chance(15):
            return str(self.pick(same))
        turned = [n for n, a in self.weights.items() if len(shape) == 2 and a.shape == shape[::-1]]
        if turned and self.chance(10):
            return self.transpose(self.pick(turned), 1, 0)
        rng = np.random.default_rng(sum(shape) + len(self.weights))
        array = (rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)
        if len(shape) == 2 and self.chance(6):
            return str(self.node("Transpose", [self.constant(array.T.copy())], perm=[1, 0]))
        if len(shape) > 1 and self.chance(6):
            return str(self.reshape(self.constant(array.ravel()), shape))
        return self.constant(array)

    def reshape(self, name: str, shape: Sequence[int]) -> str:
        """Add a Reshape."""
        return str(self.node("Reshape", [name, self.constant(np.array(shape, np.int64))]))

    def axes_node(self, op: str, name: str, axes: list[int], since: int, **more: Any) -> str:
        """Add a node whose axes are an attribute before an opset and an input from it on."""
        if self.opset < since:
            return str(self.node(op, [name], axes=axes, **more))
        return str(self.node(op, [name, self.constant(np.array(axes, np.int64))], **more))

    def transpose(self, name: str, *perm: int) -> str:
        """Add a Transpose."""
        return str(self.node("Transpose", [name], perm=list(perm)))


# ------------------------------------------------------------------ on any tensor
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


# ------------------------------------------------------------------ on pictures (C, H, W)
def conv(b: Builder, x: Tensor) -> Tensor:
    """A Conv with groups, padding, strides or dilations."""
    channels, height, width = x.shape
    groups = b.pick([1, *(g for g in (2, channels) if channels % g == 0)])
    made = b.pick([4, 8, 3]) if groups == 1 else channels
    kernel = b.pick([1, 3])
    wide = min(height, width)
    dilation = b.pick([1, 2]) if kernel == 3 and wide >= 5 else 1
    pad, stride = b.pick([kernel // 2 * dilation, 0]), b.pick([1, 2])
    reach = dilation * (kernel - 1) + 1
    if wide + 2 * pad < reach:
        pad = kernel // 2 * dilation
    if dilation == 1 and b.chance(10):
        return _same_conv(b, x, made, groups, kernel, stride)
    weight = b.weight(
        made, channels // groups, kernel, kernel, fan_in=channels // groups * kernel**2
    )
    inputs = [x.name, weight, *([b.weight(made)] if b.chance(50) else [])]
    options = {"group": groups, "strides": [stride] * 2, "dilations": [dilation] * 2}
    name = b.node("Conv", inputs, kernel_shape=[kernel] * 2, pads=[pad] * 4, **options)
    size = [(s + 2 * pad - reach) // stride + 1 for s in (height, width)]
    return Tensor(name, (made, *size))


def _same_conv(b: Builder, x: Tensor, made: int, groups: int, kernel: int, stride: int) -> Tensor:
    """A Conv whose padding follows from its strides."""
    channels, *size = x.shape
    each = channels // groups
    weight = b.weight(made, each, kernel, kernel, fan_in=each * kernel**2)
    pad = b.pick(["SAME_UPPER", "SAME_LOWER"])
    options = {"group": groups, "strides": [stride] * 2, "auto_pad": pad}
    name = b.node("Conv", [x.name, weight], kernel_shape=[kernel] * 2, **options)
    return Tensor(name, (made, *(-(-s // stride) for s in size)))


def conv_transpose(b: Builder, x: Tensor) -> Tensor:
    """A ConvTranspose of stride 1 or 2."""
    channels, height, width = x.shape
    groups = b.pick([1, 2]) if channels % 2 == 0 else 1
    each, stride = b.pick([4, 2]), b.pick([1, 2])
    if max(height, width) > 16:
        return x
    inputs = [x.name, b.weight(channels, each, 2, 2, fan_in=channels * 2)]
    inputs += [b.weight(each * groups)] if b.chance(50) else []
    options = {"group": groups, "strides": [stride] * 2}
    name = b.node("ConvTranspose", inputs, kernel_shape=[2, 2], **options)
    return Tensor(name, (each * groups, *((s - 1) * stride + 2 for s in (height, width))))


def batch_norm(b: Builder, x: Tensor) -> Tensor:
    """A BatchNormalization, now and then in training mode."""
    channels = x.shape[0]
    rng = np.random.default_rng(channels)
    rows = [rng.uniform(0.5, 1.5, channels).astype(np.float32) for _ in range(4)]
    inputs = [x.name, *(b.constant(row) for row in rows)]
    if b.opset >= 14 and b.chance(20):
        outputs = b.node("BatchNormalization", inputs, 3, training_mode=1)
        return Tensor(outputs[0], x.shape)
    return Tensor(b.node("BatchNormalization", inputs), x.shape)


def pool(b: Builder, x: Tensor) -> Tensor:
    """A pool over windows of 2, or over everything."""
    op = b.pick(["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"])
    channels, height, width = x.shape
    if op.startswith("Global"):
        return Tensor(b.node(op, [x.name]), (channels, 1, 1))
    if min(height, width) < 2:
        return x
    stride, pads = b.pick([2, 1]), b.pick([0, 1])
    options: dict[str, Any] = {"pads": [pads] * 4} if pads else {}
    if pads and op == "AveragePool":
        options["count_include_pad"] = b.pick([0, 1])
    name = b.node(op, [x.name], kernel_shape=[2, 2], strides=[stride] * 2, **options)
    size = [(s + 2 * pads - 2) // stride + 1 for s in (height, width)]
    return Tensor(name, (channels, *size))


def resize(b: Builder, x: Tensor) -> Tensor:
    """Double height and width."""
    channels, height, width = x.shape
    if max(height, width) > 16:
        return x
    scales = b.constant(np.array([1, 1, 2, 2], np.float32))
    if b.opset < 9:
        name = b.node("Upsample", [x.name], mode="nearest", scales=[1.0, 1.0, 2.0, 2.0])
    elif b.opset < 11:
        op = "Upsample" if b.opset < 10 else "Resize"
        name = b.node(op, [x.name, scales], mode="nearest")
    else:
        roi = "" if b.opset >= 13 else b.constant(np.zeros(0, np.float32))
        name = b.node("Resize", [x.name, roi, scales], mode=b.pick(["nearest", "linear"]))
    return Tensor(name, (channels, height * 2, width * 2))


def pad(b: Builder, x: Tensor) -> Tensor:
    """A border of zeros or of a constant."""
    value, border = b.pick([0.0, 1.0]), [0, 0, 1, 1, 0, 0, 1, 1]
    if b.opset < 11:
        name = b.node("Pad", [x.name], pads=border, value=value)
    else:
        ends = [b.constant(np.array(border, np.int64)), b.constant(np.float32(value))]
        name = b.node("Pad", [x.name, *ends])
    channels, height, width = x.shape
    return Tensor(name, (channels, height + 2, width + 2))


def to_vector(b: Builder, x: Tensor) -> Tensor:
    """Flatten, average or reshape to rows of numbers."""
    channels, height, width = x.shape
    kind = b.pick(["Flatten", "mean", "reshape"])
    if kind == "mean":
        return Tensor(b.axes_node("ReduceMean", x.name, [2, 3], 18, keepdims=0), (channels,))
    size = channels * height * width
    if kind == "reshape":
        return Tensor(
            b.reshape(x.name, [-1 if isinstance(b.batch, str) else b.batch, size]), (size,)
        )
    return Tensor(b.node("Flatten", [x.name]), (size,))


def to_sequence(b: Builder, x: Tensor) -> Tensor:
    """Make the pixels a sequence of rows."""
    channels, height, width = x.shape
    flat = b.reshape(x.name, [0, channels, height * width])
    return Tensor(b.transpose(flat, 0, 2, 1), (height * width, channels))


# ------------------------------------------------------------------ on vectors and sequences
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


Step = Callable[[Builder, Tensor], Tensor]
ANY: list[Step] = [
    activation,
    activation,
    activation,
    arithmetic,
    residual,
    with_itself,
    concat,
    split,
    cut,
]
ANY += [move, branch, loop, twin]
STEPS: dict[int, list[Step]] = {
    3: [conv, conv, conv, conv_transpose, batch_norm, pool, resize, pad, to_vector, to_sequence],
    2: [matmul, matmul, layer_norm, attention, recurrent, scan, sequence_to_vector],
    1: [gemm, gemm, gemm, matmul, layer_norm, vector_to_sequence],
}
#: Operators behind which an activation may be computed by the same kernel.
PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Add"}
#: Shapes of the input of each family, without the batch.
STARTS: dict[str, Shape] = {
    "vector": (8,),
    "picture": (4, 6, 6),
    "sequence": (5, 8),
    "tokens": (5,),
}


@st.composite
def graphs(draw: Any, opsets: Sequence[int] = range(7, 24)) -> RandomGraph:
    """Draw a graph, its weights and its rows."""
    family = draw(st.sampled_from(list(STARTS)))
    opset = draw(st.sampled_from([17, *opsets]))
    b = Builder(draw, opset, "N")
    if b.chance(20):
        b.batch = draw(st.sampled_from([1, 2]))
    shape = STARTS[family]
    rng = np.random.default_rng(0)
    kind = TensorProto.INT64 if family == "tokens" else TensorProto.FLOAT
    source = b.name("x")
    x = Tensor(source, shape)
    feed: NDArray[Any] = rng.standard_normal((ROWS, *shape)).astype(np.float32)
    if family == "tokens":
        feed = rng.integers(0, 9, (ROWS, *shape))
        x = Tensor(b.node("Gather", [b.weight(9, 8), x.name]), (*shape, 8))
    b.pool.append(x)
    for _ in range(draw(st.integers(1, 7))):
        # From the last tensor as a rule, so that chains come out.
        at = b.pick(b.pool) if b.chance(25) else b.pool[-1]
        steps = ANY if b.chance(50) else STEPS[len(at.shape)]
        made = b.pick(steps)(b, at)
        if made is not at:
            b.pool.append(made)
        if b.nodes and b.nodes[-1].op_type in PRODUCTS and b.chance(50):
            b.pool.append(activation(b, b.pool[-1]))
    if b.pool[-1].name == source:
        b.pool.append(activation(b, b.pool[-1]))
    proto = _finished(b, (source, kind, shape))
    return RandomGraph(proto, {source: feed})


def _finished(b: Builder, source: tuple[str, int, Shape]) -> onnx.ModelProto:
    """Return the model, with outputs drawn among all tensors; old IR lists weights as inputs."""
    name, kind, shape = source
    outputs = [b.pool[-1]]
    outputs += [t for t in b.pool[:-1] if t.name != name and b.chance(20)]
    info = helper.make_tensor_value_info
    declared = [info(t.name, TensorProto.FLOAT, [b.batch, *t.shape]) for t in outputs]
    if b.chance(4):
        declared.append(info(name, kind, [b.batch, *shape]))
    floats = [n for n, a in b.weights.items() if a.dtype == np.float32 and a.ndim]
    if floats and b.chance(8):
        extra = b.pick(floats)
        declared.append(info(extra, TensorProto.FLOAT, list(b.weights[extra].shape)))
    old = b.opset <= 8
    inputs = [info(name, kind, [b.batch, *shape])]
    if old or b.chance(8):
        types = {n: helper.np_dtype_to_tensor_dtype(a.dtype) for n, a in b.weights.items()}
        inputs += [info(n, types[n], list(a.shape)) for n, a in b.weights.items()]
    graph = helper.make_graph(
        b.nodes,
        "random",
        inputs,
        declared,
        [numpy_helper.from_array(np.asarray(a, order="C"), n) for n, a in b.weights.items()],
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", b.opset)],
        ir_version=3 if old else max(4, min(10, b.opset - 8)),
    )
