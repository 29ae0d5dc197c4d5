from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import cnn, mlp, model_of, weights_of
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared

from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import build_session, run
from trimtab.passes.pruning.magnitude import PruneMagnitude


def declined(model: Model) -> dict[str, str]:
    return dict(model.lineage[-1].notes.get("declined", []))


def zeros(model: Model) -> dict[str, float]:
    return {name: float((array == 0).mean()) for name, array in weights_of(model).items()}


# Which weights go -----------------------------------------------------------------------------


def test_half_of_each_layer_goes_and_biases_and_norms_stay():
    before, after = weights_of(cnn()), weights_of(PruneMagnitude()(cnn()))
    for name in ("w0", "w1", "w2", "w3"):
        assert (after[name] == 0).mean() == 0.5
        assert (
            np.abs(before[name][after[name] == 0]).max()
            <= np.abs(after[name][after[name] != 0]).min()
        )
    for name in ("scale", "shift", "mean", "var", "b1", "b3"):
        np.testing.assert_array_equal(before[name], after[name])


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 0.99))
def test_the_ratio_is_exact(sparsity):
    after = weights_of(PruneMagnitude(sparsity=sparsity)(mlp()))
    for name, size in (("w0", 512), ("w1", 128)):
        assert (after[name] == 0).sum() == np.floor(sparsity * size + 0.5)


def test_equal_weights_reach_the_ratio_too():
    ones = np.ones((8, 8), np.float32)
    model = model_of(
        "(float[N,8] x) => (float[N,8] y) <float[8,8] w> { y = MatMul (x, w) }", w=ones
    )
    assert zeros(PruneMagnitude(sparsity=0.25)(model))["w"] == 0.25


def test_global_scope_compares_all_layers():
    model = model_of(
        """(float[N,4] x) => (float[N,4] y) <float[4,4] small, float[4,4] large> {
            a = MatMul (x, small)
            y = MatMul (a, large)
        }""",
        small=np.full((4, 4), 0.1, np.float32),
        large=np.full((4, 4), 9.0, np.float32),
    )
    after = PruneMagnitude(sparsity=0.5, scope="global")(model)
    assert zeros(after) == {"small": 1.0, "large": 0.0}
    assert after.lineage[-1].notes["emptied"] == ["small"]


def test_a_threshold_takes_what_lies_below_it():
    weight = np.array([[0.1, -0.2], [0.3, -0.4]], np.float32)
    model = model_of(
        "(float[N,2] x) => (float[N,2] y) <float[2,2] w> { y = MatMul (x, w) }", w=weight
    )
    after = weights_of(PruneMagnitude(threshold=0.3)(model))["w"]
    np.testing.assert_array_equal(after, np.array([[0, 0], [0.3, -0.4]], np.float32))


INPUT_AXES = {
    "(float[N,8,4,4] x) => (float[N,4,2,2] y) <float[4,8,3,3] w> { y = Conv (x, w) }": 1,
    "(float[N,8,4,4] x) => (float[N,4,6,6] y) <float[8,4,3,3] w> { y = ConvTranspose (x, w) }": 0,
    "(float[N,8] x) => (float[N,6] y) <float[8,6] w> { y = Gemm (x, w) }": 0,
    "(float[N,8] x) => (float[N,6] y) <float[6,8] w> { y = Gemm <transB=1> (x, w) }": 1,
    "(float[N,8] x) => (float[N,6] y) <float[8,6] w> { y = MatMul (x, w) }": 0,
    "(float[8,N] x) => (float[6,N] y) <float[6,8] w> { y = MatMul (w, x) }": 1,
    "(float[3,N,8] x) => (float[3,N,6] y) <float[3,8,6] w> { y = MatMul (x, w) }": 1,
}


@pytest.mark.parametrize(("text", "axis"), INPUT_AXES.items())
def test_two_of_four_stay_along_the_input_channels(text, axis):
    after = weights_of(PruneMagnitude(pattern="2:4")(model_of(text)))["w"]
    groups = np.moveaxis(after != 0, axis, -1).reshape(-1, 4)
    assert (groups.sum(axis=1) == 2).all()


@pytest.mark.parametrize(("text", "axis"), INPUT_AXES.items())
def test_blocks_run_along_outputs_and_inputs(text, axis):
    after = weights_of(PruneMagnitude(pattern="block", block=(2, 4))(model_of(text)))["w"]
    output_axis = axis + 1 if axis == 0 else axis - 1
    if after.ndim == 3:
        output_axis = 2
    moved = np.moveaxis(after == 0, (output_axis, axis), (0, 1))
    outputs, inputs = moved.shape[:2]
    blocks = moved.reshape(outputs // 2, 2, inputs // 4, 4, -1)
    assert (blocks.all(axis=(1, 3)) == blocks.any(axis=(1, 3))).all()
    assert blocks.mean() == pytest.approx(0.5, abs=0.1)


def test_a_shared_weight_is_pruned_once():
    model = model_of("""(float[N,4] x) => (float[N,4] y) <float[4,4] w> {
            a = MatMul (x, w)
            y = MatMul (a, w)
        }""")
    after = PruneMagnitude()(model)
    assert zeros(after)["w"] == 0.5
    assert after.lineage[-1].notes["weights"] == 16


def test_the_weight_of_a_constant_node_is_found():
    model = model_of("""(float[N,4] x) => (float[N,4] y) {
            w = Constant <value = float[4,4] {1,2,3,4, 5,6,7,8, 9,10,11,12, 13,14,15,16}> ()
            y = MatMul (x, w)
        }""")
    assert zeros(PruneMagnitude()(model))["w"] == 0.5


def test_zeros_by_a_mask_that_left_signs_are_plain_zeros():
    weight = np.array([[-0.0, 1.0], [-0.0, 2.0]], np.float32)
    model = model_of(
        "(float[N,2] x) => (float[N,2] y) <float[2,2] w> { y = MatMul (x, w) }", w=weight
    )
    assert not np.signbit(weights_of(PruneMagnitude()(model))["w"]).any()


def test_a_weight_that_a_branch_reads_is_found():
    model = model_of("""(float[N,2] x, bool flag) => (float[N,2] y) <float[2,2] w> {
            y = If (flag) <
                then_branch = t () => (float[N,2] p) { p = MatMul (x, w) },
                else_branch = e () => (float[N,2] q) { q = Neg (x) }
            >
        }""")
    assert zeros(PruneMagnitude()(model))["w"] == 0.5


@pytest.mark.parametrize("dtype", ["float16", "double"])
def test_other_float_types_keep_their_type(dtype):
    model = model_of(
        f"({dtype}[N,4] x) => ({dtype}[N,4] y) <{dtype}[4,4] w> {{ y = MatMul (x, w) }}"
    )
    after = PruneMagnitude()(model)
    assert zeros(after)["w"] == 0.5
    assert after.graph.initializers["w"].dtype == model.graph.initializers["w"].const_value.dtype


# Which are left alone -------------------------------------------------------------------------


def test_include_and_exclude_choose_by_node_name():
    names = [n.name for n in mlp().graph if n.op_type == "MatMul"]
    after = zeros(PruneMagnitude(include=("matmul_*",), exclude=(names[1],))(mlp()))
    assert (after["w0"], after["w1"]) == (0.5, 0.0)


def test_a_pattern_that_matches_nothing_is_an_error_with_the_nearest_name():
    with pytest.raises(OptionError, match="Did you mean 'matmul_0'"):
        PruneMagnitude(exclude=("matmull_0",))(mlp())


def test_only_the_named_operators_are_pruned():
    after = zeros(PruneMagnitude(ops=("Gemm",))(cnn()))
    assert (after["w0"], after["w3"]) == (0.0, 0.5)


def test_small_weights_stay():
    after = PruneMagnitude(min_size=200)(mlp())
    assert zeros(after)["w1"] == 0
    assert declined(after) == {"w1": "has 128 elements, fewer than 200"}


REFUSED = {
    "reads it as well": """(float[N,4] x, int64[N] i) => (float[N,4] y, float[N,4] e)
        <float[4,4] w> { e = Gather (w, i) y = MatMul (x, w) }""",
    "graph output": "(float[N,4] x) => (float[N,4] y, float[4,4] w) <float[4,4] w> {"
    " y = MatMul (x, w) }",
    "computed by Abs": """(float[N,4] x) => (float[N,4] y) <float[4,4] w> {
            t = Abs (w) y = MatMul (x, t) }""",
    "goes through Transpose, and Gather": """(int64[N] i) => (float[N,6] y) <float[6,4] w> {
            e = Gather (w, i) t = Transpose <perm=[1,0]> (w) y = MatMul (e, t) }""",
    "different axes": """(float[N,4] x) => (float[N,4] y) <float[4,4] w> {
            a = Gemm (x, w) y = Gemm <transB=1> (a, w) }""",
    "is a vector": "(float[N,4] x) => (float[N] y) <float[4] w> { y = MatMul (x, w) }",
}


@pytest.mark.parametrize("reason", REFUSED)
def test_declines_with_a_reason(reason):
    model = model_of(REFUSED[reason])
    after = PruneMagnitude()(model)
    assert any(reason in text for text in declined(after).values())
    assert after.weight_bytes == model.weight_bytes
    assert zeros(after) == zeros(model)


def test_of_weights_that_are_quantized_already_only_the_others_are_pruned():
    model = model_of(
        """(float[N,4] x) => (float[N,4] y)
        <int8[4,4] w, float[4,4] v, float s = {0.1}, int8 z = {0}> {
            d = DequantizeLinear (w, s, z) a = MatMul (x, d)
            b = MatMul (x, v) y = Add (a, b) }"""
    )
    after = PruneMagnitude()(model)
    assert any("quantized already" in text for text in declined(after).values())
    assert zeros(after)["v"] == 0.5


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"pattern": "2:4"}, "its 3 input channels are not a multiple of 4"),
        ({"pattern": "block", "block": (3, 1)}, "its 8 outputs are not a multiple of 3"),
        ({"pattern": "block", "block": (1, 2)}, "its 3 input channels are not a multiple of 2"),
    ],
)
def test_declines_a_layer_that_the_pattern_does_not_divide(fields, reason):
    after = PruneMagnitude(**fields)(cnn())
    assert declined(after)["w0"] == reason


def test_a_depthwise_convolution_has_no_groups_of_four_inputs():
    model = model_of("""(float[N,4,4,4] x) => (float[N,4,2,2] y) <float[4,1,3,3] w> {
            y = Conv <group=4> (x, w)
        }""")
    assert "1 input channels" in declined(PruneMagnitude(pattern="2:4")(model))["w"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sparsity": 0.5, "threshold": 0.1}, "not both"),
        ({"sparsity": 1.0}, "not a share"),
        ({"sparsity": float("nan")}, "nan is not float"),
        ({"threshold": -1.0}, "below 0"),
        ({"pattern": "2:4", "sparsity": 0.8}, "is a sparsity of 0.5"),
        ({"pattern": "2:4", "scope": "global"}, "global scope"),
        ({"pattern": "4:2"}, "not a valid pattern"),
        ({"pattern": "blocks"}, "Did you mean 'block'"),
        ({"block": (4,)}, "not a valid block"),
        ({"ops": ("Gem",)}, "Did you mean 'Gemm'"),
    ],
)
def test_refuses_fields_that_contradict(fields, message):
    with pytest.raises(OptionError, match=message):
        PruneMagnitude(**fields)


def test_a_pattern_may_repeat_its_own_sparsity():
    assert PruneMagnitude(pattern="1:4", sparsity=0.75).sparsity == 0.75


# What it tells, and how it is stored ----------------------------------------------------------


def test_report_says_that_zeros_bring_no_speed():
    notes = PruneMagnitude(sparsity=0.5)(mlp()).lineage[-1].notes
    assert "no speed" in notes["note"]
    assert notes["sparsity"] == 0.5
    assert notes["layers"] == {"w0": 0.5, "w1": 0.5}
    assert notes["gzip_bytes"][1] < notes["gzip_bytes"][0]
    assert notes["bytes"][0] == notes["bytes"][1]


def test_a_sparse_file_is_smaller_and_computes_the_same():
    dense = PruneMagnitude(sparsity=0.9)(mlp())
    sparse = PruneMagnitude(sparsity=0.9, store="sparse")(mlp())
    assert len(onnx.ModelProto.FromString(sparse.to_bytes()).graph.sparse_initializer) == 2
    assert sparse.lineage[-1].notes["bytes"][1] < 0.6 * sparse.lineage[-1].notes["bytes"][0]
    feeds = random_feeds(mlp())
    expected, got = run(build_session(dense), feeds), run(build_session(sparse), feeds)
    np.testing.assert_array_equal(expected["y"], got["y"])


def test_says_so_where_dense_is_smaller():
    after = PruneMagnitude(sparsity=0.5, store="sparse")(mlp())
    assert declined(after) == {"store": "dense is smaller below 67% zeros"}


@pytest.mark.slow
def test_resnet20_with_90_percent_zeros_is_a_third_of_its_size(tmp_path):
    model = Model.load(shared("data/resnet20.onnx"))
    after = PruneMagnitude(sparsity=0.9, store="sparse")(model)
    path = after.save(tmp_path / "sparse.onnx")
    assert path.stat().st_size < 345_000 < model.size_bytes / 3
    again = Model.load(path)
    assert again.digest == after.digest
    feeds = random_feeds(model, batch=2)
    dense = PruneMagnitude(sparsity=0.9)(model)
    for other in (path, again):
        got = run(build_session(other), feeds)["logits"]
        np.testing.assert_array_equal(got, run(build_session(dense), feeds)["logits"])


# Where weights stand --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (
            """(float[N,4] x) => (float[N,4] y) <float[16] w, int64[2] s = {4,4}> {
            r = Reshape (w, s) t = Transpose <perm=[1,0]> (r) y = MatMul (x, t) }""",
            "t",
        ),
        (
            """(float[N,4] x) => (float[N,4] y) <float16[4,4] w> {
            c = Cast <to=1> (w) y = MatMul (x, c) }""",
            "c",
        ),
        (
            """(float[N,4] x, bool f) => (float[N,4] y) <float[4,4] w> {
            y = If (f) <
                then_branch = a () => (float[N,4] t) { t = MatMul (x, w) },
                else_branch = b () => (float[N,4] e) { e = Relu (x) }
            > }""",
            "w",
        ),
    ],
    ids=["behind moves", "behind a cast", "captured by a branch"],
)
def test_a_weight_is_found_where_files_have_it(text, name):
    after = PruneMagnitude()(model_of(text))
    assert zeros(after)[name] == 0.5
    assert after.lineage[-1].notes["share_of_all"] == 1


def test_a_weight_inside_of_a_branch_goes_and_one_that_is_an_output_stays():
    values = ", ".join(str(i + 1) for i in range(16))
    model = model_of(f"""(float[N,4] x, bool f) => (float[N,4] y, float[4,4] w) <float[4,4] w> {{
        h = MatMul (x, w)
        y = If (f) <
            then_branch = a () => (float[N,4] t) <float[4,4] v = {{{values}}}>
                {{ t = MatMul (h, v) }},
            else_branch = b () => (float[N,4] e) {{ e = Relu (h) }}
        > }}""")
    after = PruneMagnitude()(model)
    assert declined(after)["w"] == "it is a graph output as well"
    [inner] = [g for g in after.graph.subgraphs() if g.initializers]
    assert (inner.initializers["v"].const_value.numpy() == 0).mean() == 0.5
    assert after.lineage[-1].notes["share_of_all"] == 0.5


def test_a_name_with_brackets_is_left_out():
    model = model_of("""(float[N,4] x) => (float[N,4] y) <float[4,4] a, float[4,4] b> {
        [n0] h = MatMul (x, a) [n1] y = MatMul (h, b) }""")
    for node, name in zip(model.graph, ("layers[0]", "layers[1]"), strict=True):
        node.name = name
    after = PruneMagnitude(exclude=("layers[0]",))(model)
    assert [(weights_of(after)[n] == 0).mean() for n in "ab"] == [0, 0.5]
