"""Float16 where it holds, float32 islands where it would not."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import cnn, model_of, transformer, weights_of
from shared_data import shared

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import InputError, OptionError
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import build_session, run
from trimtab.passes.base import relative_error
from trimtab.passes.float16.error import Float16Trials
from trimtab.passes.float16.float16 import Half
from trimtab.passes.graph.shapes import infer_shapes
from trimtab.passes.quantization.static import QuantizeStatic


def data_of(model: Model, scale: float = 1.0, **sizes) -> Dataset:
    feeds = random_feeds(model, seed=3, sizes={"batch": 8, **sizes}, batch=8)
    return Dataset.of_arrays({n: a * np.float32(scale) for n, a in feeds.items()})


def halves(model: Model) -> set[str]:
    """Operators that give float16."""
    return {
        node.op_type
        for node in model.graph
        if node.op_type != "Cast" and node.outputs[0].dtype == ir.DataType.FLOAT16
    }


def reasons(model: Model) -> dict[str, str]:
    return dict(model.lineage[-1].notes.get("declined", []))


def agree(model: Model, after: Model, most: float) -> None:
    feeds = next(iter(data_of(model, length=6).sized(8))).feeds
    expected, got = run(build_session(model), feeds), run(build_session(after), feeds)
    for name, array in expected.items():
        assert got[name].dtype == array.dtype
        assert relative_error(array, got[name]) < most


@pytest.mark.parametrize("make", [cnn, transformer])
def test_weights_become_float16_and_input_types_stay(make):
    model = make()
    after = Half(data=data_of(model, length=6))(model)
    assert {a.dtype for n, a in weights_of(after).items() if a.ndim > 1} == {np.dtype(np.float16)}
    assert after.weight_bytes < 0.55 * model.weight_bytes
    assert {v.dtype for v in (*after.inputs, *after.outputs)} == {ir.DataType.FLOAT}
    onnx.checker.check_model(after.to_proto(), full_check=True)
    agree(model, after, 5e-3)


def test_a_plain_network_needs_two_casts_and_no_island():
    after = Half(data=data_of(cnn()))(cnn())
    notes = after.lineage[-1].notes
    assert notes["casts"] == 2
    assert notes["relative_rms_error"] < 2e-3
    assert "declined" not in notes


def test_without_data_sums_and_exponentials_stay_float32():
    after = Half()(transformer())
    assert {"MatMul", "Add", "Erf"} <= halves(after)
    assert not {"Softmax", "LayerNormalization"} & halves(after)
    assert all("no data were given" in why for why in reasons(after).values())
    agree(transformer(), after, 5e-3)


def squares() -> Model:
    """A norm by hand: the squares of large values overflow float16."""
    return model_of("""(float[batch,64] x) => (float[batch,64] y) <float[64,64] w, float[64,64] v> {
        m = MatMul (x, w)
        s = Mul (m, m)
        t = ReduceMean <keepdims = 1> (s)
        r = Sqrt (t)
        n = Div (m, r)
        y = MatMul (n, v)
    }""")


def test_regions_that_overflow_stay_float32_and_are_reported():
    model, data = squares(), data_of(squares(), scale=300)
    names = {node.name for node in model.graph}
    typed = Model.from_proto(onnx.shape_inference.infer_shapes(model.to_proto()))
    assert Float16Trials(typed, list(data)).error(names) > 0.1
    after = Half(data=data)(model)
    why = reasons(after)
    assert "values reach" in why["mul_1"]
    assert "65504" in why["reducemean_2"]
    assert "MatMul" in halves(after)
    feeds = next(iter(data)).feeds
    expected, got = run(build_session(model), feeds)["y"], run(build_session(after), feeds)["y"]
    assert relative_error(expected, got) < 5e-3
    assert after.lineage[-1].notes["casts"] <= 4


def cancelling() -> Model:
    """A large number is added and taken away: float16 keeps few digits of the rest."""
    return model_of("""(float[batch,16] x) => (float[batch,16] y)
    <float[16,16] w, float[16,16] v, float big = {1000.0}> {
        m = MatMul (x, w)
        a = Add (m, big)
        b = Sub (a, big)
        y = MatMul (b, v)
    }""")


def test_islands_are_as_many_as_the_allowed_error_requires():
    model, data = cancelling(), data_of(cancelling())
    strict = Half(data=data, max_error=0.01)(model)
    notes = strict.lineage[-1].notes
    assert notes["relative_rms_error_without_islands"] > 0.05
    assert notes["relative_rms_error"] <= 0.01
    assert "causes too much error" in reasons(strict)["add_1"]
    assert notes["curve"][0]["islands"] == 0
    loose = Half(data=data, max_error=10.0)(model)
    assert "declined" not in loose.lineage[-1].notes


def test_weights_beyond_float16_stay_float32():
    model = model_of(
        "(float[batch,4] x) => (float[batch,4] y) <float[4,4] w, float[4,4] v> "
        "{ m = MatMul (x, w) y = MatMul (m, v) }",
        w=np.full((4, 4), 1e5, np.float32),
    )
    after = Half()(model)
    assert "has a weight of 1e+05" in reasons(after)["matmul_0"]
    assert halves(after) == {"MatMul"}


def test_tied_weights_stay_one():
    model = model_of(
        "(float[batch,8] x) => (float[batch,8] y) <float[8,8] w> "
        "{ m = MatMul (x, w) r = Relu (m) y = MatMul (r, w) }"
    )
    after = Half()(model)
    assert len(weights_of(after)) == 1


def test_an_if_keeps_its_types_outside_of_its_branches():
    model = model_of("""(float[batch,8] x, bool c) => (float[batch,8] y) <float[8,8] w> {
        m = MatMul (x, w)
        [choice] i = If (c) <
            then_branch = yes () => (float[batch,8] t) { t = Relu (m) },
            else_branch = no () => (float[batch,8] e) { e = Neg (m) }
        >
        y = MatMul (i, w)
    }""")
    after = Half()(model)
    assert "hands float32 to its subgraphs" in reasons(after)["choice"]
    assert halves(after) == {"MatMul"}
    for flag in (True, False):
        feeds = {"x": np.ones((2, 8), np.float32), "c": np.array(flag)}
        expected, got = run(build_session(model), feeds), run(build_session(after), feeds)
        assert relative_error(expected["y"], got["y"]) < 5e-3


def test_nodes_are_excluded_by_name():
    after = Half(exclude=("conv_0",))(cnn())
    assert reasons(after)["conv_0"] == "excluded by the user"
    with pytest.raises(OptionError, match="no_such"):
        Half(exclude=("no_such",))(cnn())


def test_an_int8_model_is_refused():
    model = cnn()
    with pytest.raises(InputError, match="is quantized already"):
        Half()(QuantizeStatic(data=data_of(model))(model, Context()))


@pytest.mark.slow
def test_a_real_network_keeps_its_outputs():
    model = Model.load(shared("data/resnet20.onnx"))
    after = Half(data=data_of(model))(model)
    assert after.size_bytes < 0.55 * model.size_bytes
    assert after.lineage[-1].notes["casts"] <= 4
    feeds = next(iter(data_of(model))).feeds
    expected, got = run(build_session(model), feeds), run(build_session(after), feeds)
    for name in expected:
        assert (expected[name].argmax(1) == got[name].argmax(1)).all()


BRANCHES = """(float[n,8] x, bool c) => (float[n,8] y) <float[8,8] w, float[8,8] only> {
    m = MatMul (x, w)
    y = If (c) <
        then_branch = yes () => (float[n,8] t) {
            q = MatMul (m, only)
            t = If (c) <
                then_branch = a () => (float[n,8] u) { r = MatMul (q, w) u = Relu (r) },
                else_branch = b () => (float[n,8] v) { v = Neg (q) }
            >
        },
        else_branch = no () => (float[n,8] e) { p = MatMul (m, w) s = Exp (p) e = Relu (s) }
    >
}"""


def test_branches_are_converted_inside_and_weights_outside_with_them():
    model = model_of(BRANCHES)
    after = Half()(model)
    kinds = {value.const_value.dtype for value in after.graph.initializers.values()}
    assert kinds == {ir.DataType.FLOAT16}
    assert after.lineage[-1].notes["float32_weights"] == 0
    inside = {n.op_type: n.outputs[0].dtype for n in after.nodes() if n.graph is not after.graph}
    assert inside["MatMul"] == ir.DataType.FLOAT16
    assert inside["Exp"] == ir.DataType.FLOAT
    for flag in (True, False):
        feeds = {"x": np.ones((2, 8), np.float32) / 4, "c": np.array(flag)}
        expected, got = run(build_session(model), feeds), run(build_session(after), feeds)
        assert relative_error(expected["y"], got["y"]) < 5e-3


def test_data_limit_the_error_of_branches_too():
    x = np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)
    rows = Dataset.of_batches(
        lambda: iter([{"x": x, "c": np.array(True)}, {"x": x, "c": np.array(False)}])
    )
    model = model_of(BRANCHES)
    exact = Half(max_error=1e-9)(model, Context(data=rows))
    assert exact.lineage[-1].notes["half"] == 0
    close = Half(max_error=0.01)(model, Context(data=rows))
    assert close.lineage[-1].notes["float32_weights"] == 0
    assert close.lineage[-1].notes["relative_rms_error"] < 0.01


def test_a_sequence_is_no_tensor_of_floats():
    model = model_of("""(float[n,8] x) => (float[n,8] y) <float[8,8] w, int64 i = {0}> {
        m = MatMul (x, w)
        s = SequenceConstruct (m, x)
        y = SequenceAt (s, i)
    }""")
    after = Half()(model)
    assert halves(after) == {"MatMul"}


def test_names_like_those_of_the_pass_do_not_clash():
    model = model_of("""(float[n,8] x) => (float[n,8] y)
        <float[8,8] w, float[8,8] x_to_float16> {
        w_half = MatMul (x, w)
        y_half = Relu (w_half)
        y = MatMul (y_half, x_to_float16)
    }""")
    after = Half()(model)
    assert halves(after) == {"MatMul", "Relu"}


def test_weights_that_are_listed_as_inputs_are_converted():
    proto = model_of(
        "(float[n,8] x) => (float[n,8] y) <float[8,8] w> { y = MatMul (x, w) }",
        opset=8,
    ).to_proto()
    proto.ir_version = 3
    for tensor in proto.graph.initializer:
        kind = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        proto.graph.input.append(kind)
    after = Half()(Model.from_proto(proto))
    assert [v.const_value.dtype for v in after.graph.initializers.values()] == [ir.DataType.FLOAT16]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        # onnxruntime moves the axes into the product, and dies of SIGSEGV where that is float16.
        (
            """(float[N,3,16] x) => (float[3,N,16] y) <float[16,16] w> {
                t = Transpose <perm = [1, 0, 2]> (x)
                i = Identity (t)
                y = MatMul (i, w)
            }""",
            "Transpose",
        ),
        # It loads a float16 sum of scattered values, and refuses to run it.
        (
            """(float[4,16] x, int64[4,16] i) => (float[4,16] y) <float[16,16] w, float[4,16] z> {
                m = MatMul (x, w)
                s = ScatterElements <axis = 0, reduction = "add"> (z, i, m)
                y = MatMul (s, w)
            }""",
            "ScatterElements",
        ),
    ],
)
def test_what_onnxruntime_cannot_run_in_float16_stays_float32(text, kept):
    model = model_of(text, opset=16)
    half = Half()(model)
    assert half.weight_bytes <= 0.6 * model.weight_bytes
    assert [
        n.op_type for n in half.nodes() if n.name in dict(half.lineage[-1].notes["declined"])
    ] == [kept]
    feeds = random_feeds(half, seed=0)
    expected, got = run(build_session(model), feeds), run(build_session(half), feeds)
    assert relative_error(expected["y"], got["y"]) < 0.01


def test_an_output_whose_length_float16_changes_is_wrong_as_a_whole():
    """A product of 1e-8 is above zero in float32 alone, so that fewer values are picked."""
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[n, 8] x) => (float[m] y)
    <float[8, 8] w = {1,0,0,0,0,0,0,0, 0,1,0,0,0,0,0,0, 0,0,1,0,0,0,0,0, 0,0,0,1,0,0,0,0,
                      0,0,0,0,1,0,0,0, 0,0,0,0,0,1,0,0, 0,0,0,0,0,0,1,0, 0,0,0,0,0,0,0,1},
     float zero = {0.0}, int64[1] flat = {-1}>
    {
        h = MatMul(x, w)
        r = Reshape(h, flat)
        high = Greater(r, zero)
        y = Compress(r, high)
    }"""
    model = Model.from_proto(onnx.parser.parse_model(text))
    infer_shapes(model.ir)
    for node in model.graph:
        node.name = node.op_type
    rows = np.tile(np.array([1, 1e-8, 2, 3, 4, 5, 6, 7], np.float32), (4, 1))
    trials = Float16Trials(model, list(Dataset.of_arrays({"x": rows}, batch=4).bind(model)))
    assert trials.errors({"MatMul"}).output == 1
    assert trials.errors(set()).output == 0
    Half(data=Dataset.of_arrays({"x": rows}))(model)
