from __future__ import annotations

import numpy as np
import pytest
from int8_graphs import graph, normal

from trimtab.core.context import Context
from trimtab.core.metric import evaluate
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.core.target import Target
from trimtab.passes.base import relative_error
from trimtab.passes.quantization.algorithms.cross_layer_equalization import Equalize
from trimtab.passes.quantization.static import QuantizeStatic

VNNI = Context(target=Target.named("x64-avx512-vnni"))
PER_TENSOR = QuantizeStatic(per_channel=False)


def weight(model, name):
    return model.graph.initializers[name].const_value.numpy()


def channel_ranges(model, name, axis):
    values = np.abs(weight(model, name))
    return values.max(axis=tuple(i for i in range(values.ndim) if i != axis))


def spread(channels, seed=0):
    return (16 ** np.random.default_rng(seed).uniform(-1, 1, channels)).astype(np.float32)


def crooked(between="Relu (a)"):
    """Two convolutions with a random factor per channel moved from the first to the second."""
    rng, s = np.random.default_rng(1), spread(12)
    w1 = rng.standard_normal((12, 4, 3, 3)).astype(np.float32) / 6
    w2 = rng.standard_normal((5, 12, 3, 3)).astype(np.float32) / 10
    return graph(
        f"""g (float[N, 4, 8, 8] x) => (float[N, 5, 6, 6] y) {{
          [first] a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
          [act] r = {between}
          [second] y = Conv (r, w2)
        }}""",
        w1=w1 * s[:, None, None, None],
        b1=rng.standard_normal(12).astype(np.float32) * s,
        w2=w2 / s[None, :, None, None],
        six=np.array(6, np.float32),
        zero=np.array(0, np.float32),
    )


def same(before, after):
    feeds = random_feeds(before, seed=3, batch=4)
    config = SessionConfig(level="basic")
    expected = next(iter(run(build_session(before, config), feeds).values()))
    got = next(iter(run(build_session(after, config), feeds).values()))
    return relative_error(expected, got)


@pytest.mark.parametrize(
    "between",
    ["Relu (a)", "LeakyRelu <alpha = 0.1> (a)", "MaxPool <kernel_shape = [1, 1]> (a)"],
)
def test_ranges_of_both_layers_become_equal_and_the_function_stays(between):
    model = crooked(between)
    after = Equalize()(model, VNNI)
    np.testing.assert_allclose(
        channel_ranges(after, "w1", 0), channel_ranges(after, "w2", 1), rtol=2e-3
    )
    assert same(model, after) < 1e-5
    notes = after.lineage[-1].notes
    assert (notes["pairs"], notes["changed"]) == (1, 1)
    assert notes["spread_after"] < notes["spread_before"]


def test_a_depthwise_triple_gets_the_cube_root():
    rng = np.random.default_rng(2)
    model = graph(
        """g (float[N, 4, 8, 8] x) => (float[N, 5, 8, 8] y) {
          a = Conv (x, w1, b1)
          b = Relu (a)
          c = Conv <group = 6, pads = [1, 1, 1, 1]> (b, w2, b2)
          d = Relu (c)
          y = Conv (d, w3)
        }""",
        w1=rng.standard_normal((6, 4, 1, 1)).astype(np.float32) * spread(6, 1)[:, None, None, None],
        b1=(6,),
        w2=rng.standard_normal((6, 1, 3, 3)).astype(np.float32) * spread(6, 2)[:, None, None, None],
        b2=(6,),
        w3=(5, 6, 1, 1),
    )
    ranges = [channel_ranges(model, n, a) for n, a in (("w1", 0), ("w2", 0), ("w3", 1))]
    after = Equalize()(model, VNNI)
    for name, axis in (("w1", 0), ("w2", 0), ("w3", 1)):
        np.testing.assert_allclose(
            channel_ranges(after, name, axis), np.cbrt(np.prod(ranges, axis=0)), rtol=1e-2
        )
    assert same(model, after) < 1e-5


def test_a_clip_stops_it_unless_asked_for_and_is_exact_then():
    model = crooked("Clip (a, zero, six)")
    declined = Equalize()(model, VNNI)
    assert declined.lineage[-1].notes["declined"][0][0] == "first"
    assert "Clip" in declined.lineage[-1].notes["declined"][0][1]
    np.testing.assert_array_equal(weight(declined, "w1"), weight(model, "w1"))

    after = Equalize(clips=True)(model, VNNI)
    assert [node.op_type for node in after.graph] == ["Conv", "Relu", "Min", "Conv"]
    assert same(model, after) < 1e-5
    again = Equalize(clips=True)(after, VNNI)
    assert again.lineage[-1].notes["changed"] == 0


def test_matrix_products_with_an_added_bias_and_flattened_convolutions():
    s = spread(6, 5)
    model = graph(
        """g (float[N, 4, 3, 3] x) => (float[N, 5] y) {
          a = Conv (x, w1)
          b = Relu (a)
          f = Flatten (b)
          c = Gemm <transB = 1> (f, w2, b2)
          d = Relu (c)
          e = MatMul (d, w3)
          h = Add (e, b3)
          i = Relu (h)
          y = MatMul (i, w4)
        }""",
        w1=np.random.default_rng(0).standard_normal((6, 4, 1, 1)).astype(np.float32)
        * s[:, None, None, None],
        w2=(8, 54),
        b2=(8,),
        w3=(8, 7),
        b3=(7,),
        w4=(7, 5),
    )
    after = Equalize()(model, VNNI)
    assert after.lineage[-1].notes["changed"] == 3
    assert same(model, after) < 1e-5
    np.testing.assert_allclose(
        channel_ranges(after, "w3", 1), channel_ranges(after, "w4", 0), rtol=1e-2
    )


@pytest.mark.parametrize(
    ("between", "inputs", "reason"),
    [
        ("b = Flatten (a)", 20, "another number of channels"),
        ("b = MaxPool <kernel_shape = [1], strides = [1]> (a)", 4, "mixes its channels"),
    ],
)
def test_channels_of_a_product_are_on_its_last_axis(between, inputs, reason):
    tail = "MatMul" if "Pool" in between else "Gemm"
    text = f"g (float[2, 5, 8] x) => (y) {{ a = MatMul (x, v) {between} y = {tail} (b, w) }}"
    weights = np.random.default_rng(1).standard_normal((8, 4)).astype(np.float32)
    model = graph(text, v=weights * spread(4), w=(inputs, 3))
    after = Equalize()(model, VNNI)
    assert any(reason in why for _, why in after.lineage[-1].notes["declined"])
    assert same(model, after) < 1e-5


def test_a_weight_that_is_an_output_stays_as_it_is():
    nodes = "{ a = MatMul (x, v) y = MatMul (a, w) }"
    text = f"g (float[N, 4] x) => (float[N, 3] y, float[4, 4] v) {nodes}"
    weights = np.random.default_rng(1).standard_normal((4, 4)).astype(np.float32)
    model = graph(text, v=weights * spread(4), w=(4, 3))
    after = Equalize()(model, VNNI)
    assert any("an output" in why for _, why in after.lineage[-1].notes["declined"])
    np.testing.assert_array_equal(weight(after, "v"), weights * spread(4))


def test_equal_layers_are_unchanged_to_the_byte():
    after = Equalize()(crooked(), VNNI)
    again = Equalize()(after, VNNI)
    assert again.lineage[-1].notes["changed"] == 0
    assert again.digest == after.digest


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("a = Conv (x, w)\nb = Sigmoid (a)\ny = Conv (b, v)", "Sigmoid"),
        ("a = Conv (x, w)\nb = Conv (a, v)\ny = Add (b, a)", "several readers"),
        ("a = Conv (x, w)\nb = Conv (a, w)\ny = Conv (b, v)", "shared"),
    ],
)
def test_declined_layers_are_listed_with_the_reason(body, reason):
    text = f"g (float[N, 4, 6, 6] x) => (float[N, 4, 6, 6] y) {{\n{body}\n}}"
    model = graph(text, w=(4, 4, 1, 1), v=(4, 4, 1, 1))
    after = Equalize()(model, VNNI)
    assert any(reason in why for _, why in after.lineage[-1].notes["declined"])
    assert same(model, after) < 1e-5


def test_a_dead_channel_is_unchanged():
    model = crooked()
    proto = model.to_proto()
    w = weight(model, "w1").copy()
    w[3] = 0
    proto.graph.initializer[0].raw_data = w.tobytes()
    dead = type(model).from_proto(proto)
    after = Equalize()(dead, VNNI)
    assert np.isfinite(weight(after, "w2")).all()
    assert same(dead, after) < 1e-5


def test_it_rescues_weights_with_one_scale_for_a_whole_tensor():
    model = crooked()
    data = normal(model, rows=48)
    plain = PER_TENSOR.with_fields(data=data)(model, VNNI)
    rescued = PER_TENSOR.with_fields(data=data)(Equalize()(model, VNNI), VNNI)
    lost = [1 - evaluate(m, data, "cosine", reference=model).value for m in (plain, rescued)]
    assert lost[1] < 0.2 * lost[0]
