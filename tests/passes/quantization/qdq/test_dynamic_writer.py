"""Dynamic int8 against float, whatever onnxruntime optimizes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from int8_graphs import graph
from onnx import helper

from trimtab.core.context import Context
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.int8_share import int8_share
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.core.target import Target
from trimtab.passes.quantization.dynamic import QuantizeDynamic
from trimtab.passes.quantization.file_size import plain_bytes

VNNI = Context(target=Target.named("x64-avx512-vnni"))
RNG = np.random.default_rng(0)


def weight(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) / 3).astype(np.float32)


def ops(model: Model) -> Counter[str]:
    return Counter(node.op_type for node in model.nodes())


def notes(model: Model) -> dict:
    return dict(model.lineage[-1].notes)


def close(model: Model, made: Model, feeds: dict, tolerance: float = 0.03) -> None:
    """Assert that both give the same numbers, with onnxruntime's optimization on and off."""
    expected = run(build_session(model), feeds)
    for level in ("all", "basic", "off"):
        got = run(build_session(made, SessionConfig(level=level)), feeds)
        for name, array in expected.items():
            assert got[name].shape == array.shape
            assert np.abs(got[name] - array).max() <= tolerance * max(np.abs(array).max(), 1e-6)


def gemm(bias: tuple[int, ...] | str | None, **attributes: float) -> Model:
    a, b = int(attributes.get("transA", 0)), int(attributes.get("transB", 0))
    inputs, weights = ["x", "w"], {"w": weight(*((16, 32) if b else (32, 16)))}
    given = "float[32, 5] x" if a else "float[5, 32] x"
    if bias is not None:
        inputs.append("c")
    if bias == "fed":
        given += ", float[16] c"
    elif bias is not None:
        weights["c"] = weight(*bias)
    how = ", ".join(f"{k} = {v}" for k, v in attributes.items())
    return graph(
        f"g ({given}) => (float[5, 16] y) {{ y = Gemm <{how}> ({', '.join(inputs)}) }}", **weights
    )


@pytest.mark.parametrize("bias", [(16,), (1, 16), (1,), (5, 1), (5, 16), (), "fed", None])
@pytest.mark.parametrize(
    "attributes",
    [
        {"alpha": 1.0},
        {"transA": 1, "alpha": 0.5, "beta": 2.0},
        {"transB": 1, "alpha": -2.0, "beta": 0.5},
        {"transA": 1, "transB": 1, "beta": 0.0},
    ],
)
def test_a_gemm_of_any_form(bias, attributes):
    model = gemm(bias, **attributes)
    made = QuantizeDynamic()(model, VNNI)
    assert int8_share(made).int8_share == 1
    close(model, made, random_feeds(model))


def lstm(directions: int, extra: str) -> tuple[Model, dict]:
    hidden, features = 6, 5
    tensors = {
        "W": weight(directions, 4 * hidden, features),
        "R": weight(directions, 4 * hidden, hidden),
        "B": weight(directions, 8 * hidden),
    }
    inputs, outputs = ["x", "W", "R", "B", "", "", "", ""], ["Y", "H", "C"]
    attributes: dict = {"hidden_size": hidden}
    attributes["direction"] = "bidirectional" if directions == 2 else "reverse"
    if extra == "states":
        tensors |= {"h": weight(directions, 3, hidden), "c": weight(directions, 3, hidden)}
        inputs[5:7] = ["h", "c"]
    if extra == "lengths":
        tensors["n"] = np.array([7, 3, 5], np.int32)
        inputs[4] = "n"
    if extra == "peepholes":
        tensors["P"] = weight(directions, 3 * hidden)
        inputs[7] = "P"
    if extra == "attributes":
        attributes |= {"activations": ["HardSigmoid", "Tanh", "Tanh"] * directions, "clip": 0.5}
        attributes |= {
            "activation_alpha": [0.3] * directions,
            "activation_beta": [0.4] * directions,
        }
    if extra == "absent":
        tensors.pop("B")
        inputs[3], outputs = "", ["", "H"]
    while not inputs[-1]:
        inputs.pop()
    node = helper.make_node("LSTM", inputs, outputs, **attributes)
    return built([node], tensors, {"x": (7, 3, features)}, {"Y": 4, "H": 3, "C": 3})


def built(nodes: list, tensors: dict, inputs: dict, ranks: dict) -> tuple[Model, dict]:
    info = helper.make_tensor_value_info
    present = {name for node in nodes for name in node.output}
    proto = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [info(name, onnx.TensorProto.FLOAT, shape) for name, shape in inputs.items()],
            [
                info(name, onnx.TensorProto.FLOAT, [f"{name}{i}" for i in range(rank)])
                for name, rank in ranks.items()
                if name in present
            ],
            [onnx.numpy_helper.from_array(array, name) for name, array in tensors.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
        ir_version=8,
    )
    return Model.from_proto(proto, "built"), {n: weight(*shape) for n, shape in inputs.items()}


@pytest.mark.parametrize("extra", ["", "states", "lengths", "peepholes", "attributes", "absent"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("per_channel", [True, False])
def test_an_lstm_of_any_form(extra, directions, per_channel):
    model, feeds = lstm(directions, extra)
    made = QuantizeDynamic(per_channel=per_channel)(model, VNNI)
    assert ops(made) == {"DynamicQuantizeLSTM": 1}
    close(model, made, feeds)


@pytest.mark.parametrize("shared", ["W", "R", "WR"])
def test_two_lstms_share_weights_that_are_stored_once(shared):
    tensors = {"W": weight(1, 24, 5), "R": weight(1, 24, 6), "B": weight(1, 48)}
    tensors |= {f"{k}2": v[..., ::-1].copy() for k, v in tensors.items() if k not in shared + "B"}
    second = [k if k in shared else f"{k}2" for k in "WR"]
    nodes = [
        helper.make_node("LSTM", ["x", "W", "R", "B"], ["a"], hidden_size=6),
        helper.make_node("LSTM", ["x", *second, "B"], ["b"], hidden_size=6),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    model, feeds = built(nodes, tensors, {"x": (7, 3, 5)}, {"y": 4})
    made = QuantizeDynamic()(model, VNNI)
    close(model, made, feeds)
    integers = [v for v in made.graph.initializers.values() if v.const_value.nbytes > 100]
    assert sum(v.dtype.name == "INT8" for v in integers) == len(set("WR") | set(second))


def test_gru_stays_float_with_the_reason():
    node = helper.make_node("GRU", ["x", "W", "R"], ["y"], hidden_size=6, name="gru")
    tensors = {"W": weight(1, 18, 5), "R": weight(1, 18, 6)}
    model, feeds = built([node], tensors, {"x": (7, 3, 5)}, {"y": 4})
    made = QuantizeDynamic()(model, VNNI)
    assert notes(made)["quantized"] == {}
    assert notes(made)["declined"] == [["gru", "onnxruntime has no dynamic int8 kernel for GRU"]]
    close(model, made, feeds, 0)


@pytest.mark.parametrize("extra", ["", "mask", "past", "scale", "qkv_hidden_sizes"])
def test_attention_of_one_packed_weight(extra):
    tensors = {"w": weight(16, 48), "b": weight(48)}
    inputs, outputs, attributes = ["x", "w", "b", "", ""], ["y"], {"num_heads": 4}
    if extra == "mask":
        tensors["mask"], inputs[3] = np.array([5, 3], np.int32), "mask"
    if extra == "past":
        tensors["past"], inputs[4], outputs = weight(2, 2, 4, 3, 4), "past", ["y", "present"]
    if extra == "scale":
        attributes["scale"] = 0.9
    if extra == "qkv_hidden_sizes":
        attributes["qkv_hidden_sizes"] = [16, 16, 16]
    node = helper.make_node("Attention", inputs, outputs, domain="com.microsoft", **attributes)
    model, feeds = built([node], tensors, {"x": (2, 5, 16)}, {"y": 3, "present": 5})
    made = QuantizeDynamic()(model, VNNI)
    close(model, made, feeds)
    if extra == "qkv_hidden_sizes":
        assert "qkv_hidden_sizes" in notes(made)["declined"][0][1]
    else:
        assert ops(made)["QAttention"] == 1


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_convolutions_that_share_a_bias(kind):
    model = graph(
        """g (float[2, 4, 9, 9] x) => (float[2, 8, 9, 9] y, float[2, 8, 4, 4] z) {
          y = Conv <pads = [1, 1, 1, 1]> (x, w, bias)
          z = Conv <strides = [2, 2], group = 4> (x, v, bias)
        }""",
        w=(8, 4, 3, 3),
        v=(8, 1, 3, 3),
        bias=weight(8) * 9,
    )
    made = QuantizeDynamic(convs=True, weight=kind)(model, VNNI)
    assert ops(made)["ConvInteger"] == 2
    assert ops(made)["DynamicQuantizeLinear"] == 1  # both read x
    close(model, made, random_feeds(model))


def test_a_weight_read_in_three_ways_is_right_in_each():
    model = graph(
        """g (float[5, 8] x) => (float[5, 8] y, float[5, 8] z, float[8, 8] w2) {
          a = Gemm <transB = 1> (x, w)
          b = Gemm (x, w)
          y = Add (a, b)
          z = MatMul (x, w)
          w2 = Mul (w, two)
        }""",
        w=(8, 8),
        two=np.float32(2),
    )
    made = QuantizeDynamic()(model, VNNI)
    assert notes(made)["quantized"] == {"Gemm": 2, "MatMul": 1}
    close(model, made, random_feeds(model), 0.04)
    exact = run(build_session(made), random_feeds(model))["w2"]
    np.testing.assert_array_equal(exact, 2 * model.graph.initializers["w"].const_value.numpy())
    # One copy of integers serves both that read w as it is stored.
    assert sum(v.dtype.name == "INT8" for v in made.graph.initializers.values()) == 2


def test_tensors_that_have_the_names_of_helpers():
    model = graph(
        """g (float[5, 8] w_scale) => (float[5, 8] y, float[5, 8] z) {
          x_quantized = MatMul (w_scale, w)
          w_zero_point = Relu (x_quantized)
          y = MatMul (w_zero_point, w_quantized)
          z = Gemm <transB = 1> (w_scale, w_quantized)
        }""",
        w=(8, 8),
        w_quantized=(8, 8),
    )
    made = QuantizeDynamic()(model, VNNI)
    close(model, made, random_feeds(model), 0.05)


LOOP = """g (float[4, 16] x, bool f) => (float[4, 16] z, float[4, 16] k) {
  z = MatMul (x, w)
  k = If <then_branch = th () => (float[4, 16] t) <float[16, 16] own = {%s}> {
    m = MatMul (z, own)
    t = Tanh (m)
  }, else_branch = el () => (float[4, 16] e) {
    n = MatMul (z, w)
    e = Relu (n)
  }> (f)
}"""


@pytest.mark.parametrize("flag", [True, False])
def test_weights_of_branches_and_weights_that_they_capture(flag):
    own = ",".join(f"{v:.3f}" for v in weight(256))
    model = graph(LOOP % own, w=(16, 16))
    made = QuantizeDynamic()(model, VNNI)
    assert notes(made)["quantized"] == {"MatMul": 3}
    assert len(notes(made)["in_subgraphs"]) == 2
    close(model, made, {"x": weight(4, 16), "f": np.array(flag)})


def test_weights_that_are_sliced_and_joined():
    """As PyTorch exports an LSTM, whose gates ONNX orders otherwise."""
    model = graph(
        """g (float[7, 3, 5] x) => (float[7, 1, 3, 6] y) {
          first = Slice (w, zero, six, zero)
          rest = Slice (w, six, end, zero)
          joined = Concat <axis = 0> (rest, first)
          W = Unsqueeze (joined, zero)
          y = LSTM <hidden_size = 6> (x, W, R)
        }""",
        w=(24, 5),
        R=(1, 24, 6),
        zero=np.array([0], np.int64),
        six=np.array([6], np.int64),
        end=np.array([24], np.int64),
    )
    made = QuantizeDynamic()(model, VNNI)
    assert ops(made) == {"DynamicQuantizeLSTM": 1}
    close(model, made, random_feeds(model))


@pytest.mark.parametrize("other", ["", "output", "reader"])
def test_a_table_becomes_integers_where_nothing_else_reads_it(other):
    model = graph(
        f"""g (int64[5] ids) => (float[5, 8] y{", float[300, 8] all" if other else ""}) {{
          y = Gather (table, ids)
          {"all = Identity (table)" if other == "output" else ""}
          {"all = Neg (table)" if other == "reader" else ""}
        }}""",
        table=(300, 8),
    )
    made = QuantizeDynamic()(model, VNNI)
    feeds = {"ids": np.array([0, 7, 299, -1, 3])}
    close(model, made, feeds, 0.02 if not other else 0)
    assert notes(made)["quantized"] == ({} if other else {"Gather": 1})
    assert ("larger" in notes(made)) is False


@pytest.mark.parametrize("opset", [8, 10, 11, 12])
def test_old_operator_sets_with_weights_as_inputs(opset):
    text = f'<ir_version: 3, opset_import: ["" : {opset}]>\n' + (
        "g (float[5, 16] x, float[16, 8] w) => (float[5, 8] y) { y = MatMul (x, w) }"
    )
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight(16, 8), "w"))
    model = Model.from_proto(proto, "old")
    made = QuantizeDynamic()(model, VNNI)
    assert made.opset >= 11
    assert [spec.name for spec in made.inputs] == ["x"]
    close(model, made, {"x": weight(5, 16)})


def test_a_file_that_grows_is_reported():
    model = graph("g (float[N, 8] x) => (float[N, 2] y) { y = MatMul (x, w) }", w=(8, 2))
    assert "bytes" in notes(QuantizeDynamic()(model, VNNI))["larger"]


@pytest.mark.parametrize(
    ("text", "weights", "reason"),
    [
        ("y = MatMul (w, x)", {"w": (6, 8)}, "first factor"),
        ("y = MatMul (x, x)", {}, "computed while"),
        ("y = MatMul (x, w)", {"w": (8,)}, "vector"),
        ("y = MatMul (x, w)", {"w": np.full((8, 4), np.inf, np.float32)}, "not finite"),
        ("y = MatMul (x, w)", {"w": np.zeros((8, 0), np.float32)}, "empty"),
    ],
)
def test_what_stays_float_is_listed_with_the_reason(text, weights, reason):
    rank = "float[M]" if "vector" in reason else "float[M, K]"
    model = graph(f"g (float[8, 8] x) => ({rank} y) {{ {text} }}", **weights)
    made = QuantizeDynamic()(model, VNNI)
    assert notes(made)["quantized"] == {}
    assert reason in notes(made)["declined"][0][1]


def transformer_like() -> Model:
    return graph(
        """g (int64[N, 6] ids) => (float[N, 6, 32] y) {
          e = Gather (table, ids)
          p = Add (e, positions)
          a = MatMul (p, w1)
          b = Add (a, c1)
          c = Relu (b)
          d = MatMul (c, w2)
          y = Add (d, e)
        }""",
        table=(500, 32),
        positions=(6, 32),
        w1=(32, 64),
        c1=(64,),
        w2=(64, 32),
    )


@pytest.mark.parametrize("make", [transformer_like, lambda: lstm(2, "states")[0]])
@pytest.mark.parametrize("per_channel", [True, False])
def test_onnxruntimes_own_quantizer_gives_the_same(make, per_channel):
    model = make()
    mine, other = (
        QuantizeDynamic(per_channel=per_channel, backend=backend)(model, VNNI)
        for backend in ("trimtab", "onnxruntime")
    )
    assert plain_bytes(mine) <= plain_bytes(other)
    assert int8_share(mine).ops == int8_share(other).ops
    feeds = random_feeds(model, batch=2)
    for a, b in zip(*(run(build_session(m), feeds).values() for m in (mine, other)), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3 * np.abs(b).max())
