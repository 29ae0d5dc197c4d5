from __future__ import annotations

import subprocess
import sys

import graphs
import numpy as np
import onnx
import onnxsim
import pytest
from graphs import model_of, ops
from int8_graphs import graph
from shared_data import shared

from trimtab.core.context import Context
from trimtab.core.errors import MissingExtraError, ModelError, OptionError
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import build_session, optimized_graph, run
from trimtab.passes.base import relative_error
from trimtab.passes.simplify.simplify import Simplify


def declined(model: Model) -> dict[str, str]:
    return dict(model.lineage[-1].notes.get("declined", []))


def assert_same_numbers(before: Model, after: Model, **sizes: int) -> None:
    feeds = random_feeds(before, seed=3, sizes=sizes)
    expected, got = run(build_session(before), feeds), run(build_session(after), feeds)
    for name, array in expected.items():
        assert relative_error(array, got[name]) < 1e-5


def test_a_gelu_before_a_convolution_stays_one_node_of_onnxruntime():
    """onnxsim moves its factor of a half into the weights, and onnxruntime knows it no more."""
    model = graph(
        """g (float[N, 4, 8, 8] x) => (float[N, 4, 8, 8] y) {
          c = Conv <pads = [1, 1, 1, 1]> (x, w)
          d = Div (c, root)
          e = Erf (d)
          a = Add (e, one)
          m = Mul (c, a)
          h = Mul (m, half)
          y = Conv <pads = [1, 1, 1, 1]> (h, v)
        }""",
        w=(4, 4, 3, 3),
        v=(4, 4, 3, 3),
        root=np.float32(2**0.5),
        one=np.float32(1),
        half=np.float32(0.5),
    )
    made = Simplify()(model, Context())
    for one in (model, made):
        running = [node.op_type for node in optimized_graph(one).graph]
        assert (running.count("Gelu"), running.count("Erf")) == (1, 0)


def test_what_onnxsim_cannot_fold_is_not_reported_with_its_traceback(capfd):
    """It writes one from native code, for each node, with names as they are in the file."""
    model = model_of("""(float[N,4] x) => (float[N,4] y)
        <float[4] w, float[4,4] v> { c = Gemm (w, v) y = Add (x, c) }""")
    with pytest.raises(ModelError, match="rank"):
        Simplify()(model)
    assert capfd.readouterr().err == ""


# What goes ------------------------------------------------------------------------------------


def test_batch_normalization_goes_into_the_convolution():
    model = model_of("""(float[N,3,6,6] x) => (float[N,4,4,4] y)
        <float[4,3,3,3] w, float[4] s, float[4] b, float[4] m, float[4] var> {
            c = Conv (x, w)
            y = BatchNormalization (c, s, b, m, var)
        }""")
    assert ops(Simplify()(model)) == ["Conv"]


def test_identities_casts_to_the_same_type_and_dropout_go():
    model = model_of("""(float[N,4] x) => (float[N,4] y)
        <float rate = {0.5}, bool training = {0}> {
            a = Identity (x)
            b = Cast <to=1> (a)
            c = Relu (b)
            d = Dropout (c, rate, training)
            e = Sigmoid (d)
            y = Identity (e)
        }""")
    assert ops(Simplify()(model)) == ["Relu", "Sigmoid"]


def test_a_cast_to_another_type_stays():
    model = model_of("(float[N,4] x) => (int64[N,4] y) { y = Cast <to=7> (x) }")
    assert ops(Simplify()(model)) == ["Cast"]


def test_an_identity_between_an_input_and_an_output_stays():
    model = model_of(
        "(float[N,4] x) => (float[N,4] y, float[N,4] z) { y = Identity (x) z = Relu (x) }"
    )
    assert sorted(ops(Simplify()(model))) == ["Identity", "Relu"]


def test_an_identity_that_names_a_second_output_stays():
    model = model_of(
        "(float[N,4] x) => (float[N,4] y, float[N,4] z) { y = Relu (x) z = Identity (y) }"
    )
    after = Simplify()(model)
    assert [v.name for v in after.graph.outputs] == ["y", "z"]
    assert_same_numbers(model, after, N=2)


def test_constant_nodes_become_initializers():
    model = model_of("""(float[N,2] x) => (float[N,2] y) {
            w = Constant <value = float[2,2] {1.0, 2.0, 3.0, 4.0}> ()
            y = MatMul (x, w)
        }""")
    after = Simplify()(model)
    assert ops(after) == ["MatMul"]
    assert len(after.graph.initializers) == 1


def test_initializers_leave_the_input_list():
    text = """(float[N,2] x, float[2,2] w) => (float[N,2] y) <float[2,2] w0> {
        a = MatMul (x, w0)
        y = MatMul (a, w)
    }"""
    proto = model_of(text, ir_version=3, opset=9).to_proto()
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(2, dtype=np.float32), "w"))
    proto.graph.input.append(onnx.helper.make_tensor_value_info("w0", 1, [2, 2]))
    after = Simplify()(Model.from_proto(proto))
    assert [v.name for v in after.graph.inputs] == ["x"]


@pytest.mark.parametrize("opset", [18, 15])
def test_local_functions_are_inlined_whose_operators_are_those_of_the_model(opset):
    text = """<ir_version: 9, opset_import: ["" : OPSET, "my" : 1]>
        g (float[N,4] x) => (float[N,4] y) { y = my.double (x) }
        <domain: "my", opset_import: ["" : 18]> double (a) => (b) { b = Add (a, a) }"""
    text = text.replace("OPSET", str(opset))
    assert ops(Simplify()(Model.from_proto(onnx.parser.parse_model(text)))) == ["Add"]


# Means and operator sets ------------------------------------------------------------------------

MEAN = """(float[N,3,5,5] x) => (float[{out}] y) {axes} {{ r = Relu (x) y = ReduceMean {call} }}"""


@pytest.mark.parametrize(
    ("opset", "out", "axes", "call", "expected"),
    [
        (18, "N,3,1,1", "<int64[2] axes = {2,3}>", "(r, axes)", ["GlobalAveragePool"]),
        (18, "N,3,1,1", "<int64[2] axes = {-1,-2}>", "(r, axes)", ["GlobalAveragePool"]),
        (
            18,
            "N,3",
            "<int64[2] a = {2,3}>",
            "<keepdims=0> (r, a)",
            ["GlobalAveragePool", "Flatten"],
        ),
        (13, "N,3", "", "<keepdims=0, axes=[2,3]> (r)", ["GlobalAveragePool", "Flatten"]),
        (18, "N,1,5,5", "<int64[1] axes = {1}>", "(r, axes)", ["ReduceMean"]),
        (18, "N,3,5,1", "<int64[1] axes = {3}>", "(r, axes)", ["ReduceMean"]),
    ],
)
def test_a_mean_over_all_spatial_axes_becomes_a_pool(opset, out, axes, call, expected):
    model = model_of(MEAN.format(out=out, axes=axes, call=call), opset=opset)
    after = Simplify()(model)
    assert ops(after) == ["Relu", *expected]
    assert_same_numbers(model, after, N=3)


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ("kernel_shape=[5,5]", "GlobalAveragePool"),
        ("kernel_shape=[5,5], strides=[5,5], count_include_pad=1", "GlobalAveragePool"),
        ("kernel_shape=[5,4]", "AveragePool"),
        ("kernel_shape=[5,5], pads=[0,1,0,0]", "AveragePool"),
        ('kernel_shape=[5,5], auto_pad="SAME_UPPER"', "AveragePool"),
    ],
)
def test_a_window_that_is_the_whole_image_pools_globally(window, expected):
    model = model_of(f"""(float[N,3,5,5] x) => (float[N,3,h,w] y) {{
            r = Relu (x)
            y = AveragePool <{window}> (r)
        }}""")
    after = Simplify()(model)
    assert ops(after)[-1] == expected
    assert_same_numbers(model, after, N=3)


def test_a_mean_of_doubles_stays_with_a_reason():
    model = model_of("""(double[N,3,5,5] x) => (double[N,3,1,1] y) <int64[2] axes = {2,3}> {
            y = ReduceMean (x, axes)
        }""")
    after = Simplify()(model)
    assert ops(after) == ["ReduceMean"]
    assert "double" in next(iter(declined(after).values()))


def test_the_mean_of_an_open_layer_normalization_stays():
    model = model_of("""(float[N,5,8] x) => (float[N,5,1] y) <int64[1] axes = {2}> {
            y = ReduceMean (x, axes)
        }""")
    assert ops(Simplify()(model)) == ["ReduceMean"]


def test_an_old_operator_set_is_raised_and_a_new_one_kept():
    text = "(float[N,4] x) => (float[N,4] y) { a = Relu (x) y = Softmax <axis=1> (a) }"
    assert Simplify()(model_of(text, opset=9, ir_version=4)).opset == 13
    assert Simplify()(model_of(text, opset=17)).opset == 17
    assert Simplify(opset=18)(model_of(text, opset=17)).opset == 18


# What must not happen -------------------------------------------------------------------------


def test_dynamic_dimensions_stay_dynamic():
    model = model_of("""(float[batch,length,8] x) => (float[batch,rest] y)
        <int64[1] zero = {0}, int64[1] all = {-1}> {
            shape = Shape <start=0, end=1> (x)
            target = Concat <axis=0> (shape, all)
            r = Relu (x)
            y = Reshape (r, target)
        }""")
    after = Simplify()(model)
    assert (after.inputs, after.outputs) == (model.inputs, model.outputs)
    for batch in (1, 5):
        assert_same_numbers(model, after, batch=batch, length=3)


def test_an_input_that_nothing_reads_stays():
    model = model_of(
        "(float[N,4] x, int64[N] unused) => (float[N,4] y) { a = Identity (x) y = Relu (a) }"
    )
    assert Simplify()(model).inputs == model.inputs


@pytest.mark.parametrize("size", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_large_constants_that_are_cheap_to_make_stay_nodes(size):
    """Large beside the file: 40 kB of a window in a small model of sounds are most of it."""
    model = model_of(f"""(float[{size},{size}] x) => (float[{size},{size}] y)
        <int64[2] size = {{{size},{size}}}> {{
            w = ConstantOfShape <value = float[1] {{2.0}}> (size)
            y = MatMul (x, w)
        }}""")
    after = Simplify()(model)
    assert ops(after) == ["ConstantOfShape", "MatMul"]
    assert after.size_bytes < 10_000
    assert "ConstantOfShape" not in ops(Simplify(max_growth=8_000_000)(model))


def test_quantized_weights_are_not_folded_to_float():
    model = model_of(
        """(float[N,64] x) => (float[N,64] y)
        <float s = {0.1}, int8 z = {0}, int8[64,64] w> {
            q = QuantizeLinear (x, s, z)
            d = DequantizeLinear (q, s, z)
            f = DequantizeLinear (w, s, z)
            y = MatMul (d, f)
        }""",
        w=np.arange(4096).reshape(64, 64).astype(np.int8),
    )
    after = Simplify()(model)
    assert sorted(ops(after)) == sorted(ops(model))
    assert after.weight_bytes < 5_000


def test_a_branch_keeps_what_it_takes_from_outside():
    model = model_of("""(float[N,4] x, bool flag) => (float[N,4] y) {
            a = Relu (x)
            i = Identity (a)
            y = If (flag) <
                then_branch = t () => (float[N,4] p) { p = Neg (i) },
                else_branch = e () => (float[N,4] q) { q = Identity (i) }
            >
        }""")
    after = Simplify()(model)
    assert "Identity" not in ops(after)
    assert_same_numbers(model, after, N=2)


def test_contrib_operators_stay():
    model = model_of(
        "(float[N,4] x) => (float[N,4] y) { a = Identity (x) y = com.microsoft.Gelu (a) }",
        imports=', "com.microsoft" : 1',
    )
    assert ops(Simplify()(model)) == ["Gelu"]


# When onnxsim cannot --------------------------------------------------------------------------


def test_works_without_onnxsim_s_part_where_that_fails(monkeypatch):
    def fail(*_args, **_kwargs):
        raise RuntimeError("no such thing")

    monkeypatch.setattr(onnxsim, "simplify", fail)
    model = model_of("(float[N,4] x) => (float[N,4] y) { a = Identity (x) y = Relu (a) }")
    after = Simplify()(model)
    assert ops(after) == ["Relu"]
    assert after.lineage[-1].notes["notes"] == ["without onnxsim: no such thing"]


def test_rejects_an_onnxsim_that_changes_the_numbers(monkeypatch):
    def spoil(proto, **_kwargs):
        spoilt = onnx.ModelProto.FromString(proto.SerializeToString())
        spoilt.graph.node[0].op_type = "Sigmoid"
        return spoilt, True

    monkeypatch.setattr(onnxsim, "simplify", spoil)
    model = model_of("(float[N,4] x) => (float[N,4] y) { y = Relu (x) }")
    after = Simplify()(model)
    assert ops(after) == ["Relu"]
    assert "changed output 'y'" in after.lineage[-1].notes["notes"][0]


def test_says_which_extra_to_install_where_onnxsim_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxsim", None)
    model = model_of("(float[N,4] x) => (float[N,4] y) { y = Relu (x) }")
    with pytest.raises(MissingExtraError, match=r"trimtab\[optimize\]"):
        Simplify()(model)


@pytest.mark.parametrize("fields", [{"opset": 3}, {"opset": 999}, {"max_growth": -1}])
def test_refuses_fields_without_meaning(fields):
    with pytest.raises(OptionError):
        Simplify(**fields)


# Real networks --------------------------------------------------------------------------------


@pytest.mark.slow
def test_report_lists_operators_and_bytes():
    model = Model.load(shared("data/mobilenet_v2.onnx"))
    notes = Simplify()(model).lineage[-1].notes
    assert notes["ops"] == {"Flatten": [0, 1], "GlobalAveragePool": [0, 1], "ReduceMean": [1, 0]}
    assert notes["bytes"][1] < notes["bytes"][0] + 1000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "resnet56"])
def test_a_trained_network_keeps_its_outputs(name):
    model = Model.load(shared(f"data/{name}.onnx"))
    after = Simplify()(model)
    assert after.graph.num_nodes() < model.graph.num_nodes()
    assert after.size_bytes < model.size_bytes + 2000
    assert_same_numbers(model, after, batch=4)


@pytest.mark.slow
def test_onnxsim_is_imported_without_torch_which_can_still_be_imported(tmp_path):
    file = graphs.cnn().save(tmp_path / "cnn.onnx")
    code = (
        "import sys; from trimtab.core.model import Model; from trimtab.passes import Simplify\n"
        f"Simplify()(Model.load({str(file)!r}))\n"
        "assert 'onnxsim' in sys.modules and 'torch' not in sys.modules\n"
        "import torch; torch.zeros(1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_if_with_a_constant_condition_becomes_its_branch():
    model = model_of("""(float[n,4] x) => (float[n,4] y) <bool c = {0}, float[4,4] w> {
        h = MatMul (x, w)
        y = If (c) <
            then_branch = yes () => (float[n,4] t) { t = Sigmoid (h) },
            else_branch = no () => (float[n,4] e) { q = Abs (h) e = Sqrt (q) }
        >
    }""")
    after = Simplify()(model)
    assert ops(after) == ["MatMul", "Abs", "Sqrt"]
    assert after.outputs == model.outputs
    assert_same_numbers(model, after, n=3)


def test_a_sparse_constant_is_read():
    values = onnx.numpy_helper.from_array(np.array([2, 3], np.float32), "v")
    places = onnx.numpy_helper.from_array(np.array([0, 3], np.int64), "p")
    sparse = onnx.helper.make_sparse_tensor(values, places, [2, 2])
    proto = model_of("(float[n,2] x) => (float[n,2] y) <float[2,2] w> { y = MatMul (x, w) }")
    made = proto.to_proto()
    del made.graph.initializer[:]
    made.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["w"], sparse_value=sparse))
    after = Simplify()(Model.from_proto(made))
    got = run(build_session(after), {"x": np.ones((1, 2), np.float32)})["y"]
    np.testing.assert_array_equal(got, [[2, 3]])


def test_draws_are_not_merged():
    model = model_of("""(float[n,64] x) => (float[n,64] y) <float half = {0.5}> {
        a = Bernoulli (x) b = Bernoulli (x) y = Sub (a, b) }""")
    assert ops(Simplify()(model)).count("Bernoulli") == 2


@pytest.mark.parametrize(
    "move",
    [
        "t = Transpose <perm=[1,0]> (e)",
        "u = Reshape (e, s) t = Transpose <perm=[1,0]> (u)",
    ],
)
def test_a_table_that_is_the_head_as_well_is_not_stored_twice(move):
    model = model_of(
        f"""(int64[n,5] i) => (float[n,5,400] y)
        <float[400,16] e, float[16,16] w, int64[2] s = {{400, 16}}> {{
        g = Gather (e, i) h = MatMul (g, w) {move} y = MatMul (h, t) }}"""
    )
    after = Simplify()(model)
    assert after.size_bytes < 1.1 * model.size_bytes
    assert "Transpose" in ops(after)
    assert_same_numbers(model, after, n=3)


def test_a_moved_weight_that_nothing_else_reads_is_folded():
    model = model_of("""(float[n,64] x) => (float[n,64] y) <float[64,64] w> {
        t = Transpose <perm=[1,0]> (w) y = MatMul (x, t) }""")
    assert ops(Simplify()(model)) == ["MatMul"]
