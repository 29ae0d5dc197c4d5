from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from int8_graphs import chain, graph, normal, residual

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import SessionConfig, build_session, optimized_graph, run
from trimtab.core.target import Target
from trimtab.passes import (
    CompressWeights,
    Dequantize,
    PruneMagnitude,
    QuantizeStatic,
    Simplify,
)
from trimtab.passes.graph.stored.compressed import compressed_weights
from trimtab.passes.quantization.judge import Judge


def wide(**weights):
    return graph(
        """g (float[N, 64] x) => (float[N, 32] y) {
          a = MatMul (x, w1)
          b = Relu (a)
          y = Gemm <transB = 1> (b, w2, c)
        }""",
        **({"w1": (64, 128), "w2": (32, 128), "c": (32,)} | weights),
    )


def ops(model):
    return [node.op_type for node in model.graph]


def error(before, after, level="all"):
    feeds = random_feeds(before, batch=8)
    config = SessionConfig(level=level)
    (a,), (b,) = (run(build_session(m, config), feeds).values() for m in (before, after))
    return float(np.abs(a - b).max() / np.abs(a).max())


def opset(model, version):
    proto = model.to_proto()
    proto.opset_import[0].version = version
    return Model.from_proto(proto, "other opset")


@pytest.mark.parametrize(
    ("store", "part", "most"),
    [("int8", 0.3, 0.02), ("int4", 0.2, 0.25), ("float16", 0.55, 2e-3), ("int16", 0.6, 1e-4)],
)
@pytest.mark.parametrize("version", [13, 21])
def test_weights_shrink_and_the_graph_that_runs_is_float(store, part, most, version):
    model = opset(wide(), version)
    after = CompressWeights(store=store, wide_share=0.0, max_error=0.3)(model)
    assert after.weight_bytes < part * model.weight_bytes
    assert 0 < error(model, after) < most
    assert error(model, after, "off") < most
    running = optimized_graph(after, SessionConfig(level="basic"))
    assert not compressed_weights(running)
    assert [n.op_type for n in running.graph] == [
        n.op_type for n in optimized_graph(model, SessionConfig(level="basic")).graph
    ]


def test_each_channel_has_its_own_scale():
    rng = np.random.default_rng(0)
    sizes = np.float32(10.0) ** np.arange(-8, 8, dtype=np.float32)[:, None, None, None]
    w = rng.standard_normal((16, 8, 3, 3)).astype(np.float32) * sizes
    model = graph("g (float[1, 8, 9, 9] x) => (float[1, 16, 7, 7] y) { y = Conv (x, w) }", w=w)
    after = CompressWeights(wide_share=0.0)(model)
    ((_, nodes),) = compressed_weights(after.ir).items()
    integers, scales = (after.graph.initializers[n] for n in ("w_int8", "w_scale"))
    assert scales.const_value.shape == (16, 1, 1, 1)
    assert [node.op_type for node in nodes] == ["Cast", "Mul"]
    got = integers.const_value.numpy() * scales.const_value.numpy()
    lost = np.square(got - w).sum(axis=(1, 2, 3)) / np.square(w).sum(axis=(1, 2, 3))
    assert (np.sqrt(lost) < 0.01).all()


def test_weights_on_a_grid_in_few_values_or_in_float16_lose_nothing():
    rng = np.random.default_rng(0)
    grid = rng.integers(-127, 128, (64, 128)) * np.exp(rng.standard_normal((1, 128)))
    few = rng.choice(rng.standard_normal(11), (32, 128))
    model = wide(w1=grid.astype(np.float32), w2=few.astype(np.float32))
    after = CompressWeights()(model)
    notes = after.lineage[-1].notes
    assert notes["weights"] == {"int8": 1, "table": 1}
    assert error(model, after) < 1e-6
    assert after.weight_bytes < 64 * 128 + 32 * 64 + 1000
    half = rng.standard_normal((64, 128)).astype(np.float16).astype(np.float32)
    model = wide(w1=half)
    assert error(model, CompressWeights(store="float16", exclude=("*1",))(model)) < 2e-3


def test_shared_weights_are_stored_once_and_outputs_stay():
    model = graph(
        """g (float[N, 64] x, int64[M] i) => (float[N, 64] y, float[M, 64] e, float[64, 64] v) {
          a = MatMul (x, w)
          y = MatMul (a, w)
          e = Gather (t, i)
          b = MatMul (x, v)
        }""",
        w=(64, 64),
        t=(100, 64),
        v=(64, 64),
    )
    after = CompressWeights(wide_share=0.0)(model)
    assert ops(after).count("Mul") == 2
    assert after.graph.initializers["v"].dtype == ir.DataType.FLOAT


def test_weights_inside_of_branches():
    text = """<ir_version: 8, opset_import: ["" : 11]>
    g (float[2, 64] x, bool c) => (float[2, 64] y) {
      y = If (c) <
        then_branch = t () => (float[2, 64] p) { p = MatMul (x, w) },
        else_branch = e () => (float[2, 64] q) <float[64, 64] u> { q = MatMul (x, u) }
      >
    }"""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    w, u = rng.standard_normal((2, 64, 64)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    inner = proto.graph.node[0].attribute[1].g
    del inner.initializer[:]
    inner.initializer.append(onnx.numpy_helper.from_array(u, "u"))
    model = Model.from_proto(proto, "branches")
    after = CompressWeights(wide_share=0.0)(model)
    assert after.weight_bytes < 0.3 * model.weight_bytes
    x = rng.standard_normal((2, 64)).astype(np.float32)
    for flag, weight in ((True, w), (False, u)):
        (got,) = run(build_session(after), {"x": x, "c": np.array(flag)}).values()
        assert np.abs(got - x @ weight).max() < 0.02 * np.abs(x @ weight).max()


@pytest.mark.parametrize("step", [Simplify(), PruneMagnitude(sparsity=0.5)], ids=lambda s: s.name())
def test_later_passes_see_floats_and_leave_them_stored_in_8_bits(step):
    model = wide()
    once = CompressWeights(wide_share=0.0)(model)
    again = step(once)
    assert len(compressed_weights(again.ir)) == 2
    assert again.weight_bytes <= once.weight_bytes + 100
    if isinstance(step, Simplify):
        assert error(once, again) < 1e-6


@pytest.mark.parametrize("share", [0.0, 1.0], ids=["int8", "int16"])
def test_a_second_time_changes_nothing(share):
    once = CompressWeights(wide_share=share)(wide())
    again = CompressWeights(wide_share=share)(once)
    assert error(once, again) < 1e-6
    assert again.weight_bytes == once.weight_bytes


def test_quantizing_a_compressed_model_and_turning_it_back():
    model = chain()
    once = CompressWeights(wide_share=0.0)(model)
    quantized = QuantizeStatic()(once, Context(data=normal(model)))
    assert ops(quantized).count("Mul") == 0
    assert error(model, quantized) < 0.1
    assert not compressed_weights(Dequantize()(once).ir)


def test_biases_are_corrected_where_that_helps():
    model = residual()
    after = CompressWeights()(model, Context(data=normal(model, rows=32)))
    notes = after.lineage[-1].notes
    assert notes["squared_relative_error"] <= notes["without_bias_correction"]


def dependent(rows=96, wide=48):
    """Features that depend on each other, as behind a layer that is wider than its input."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, 6)) @ rng.standard_normal((6, wide))
    model = graph("g (float[N, 48] x) => (float[N, 32] y) { y = MatMul (x, w) }", w=(48, 32))
    return model, Dataset.of_arrays({"x": x.astype(np.float32)})


@pytest.mark.parametrize(("store", "part"), [("int8", 0.3), ("int4", 0.3)])
def test_errors_of_dependent_inputs_make_up_for_each_other(store, part):
    model, data = dependent()
    fresh = list(data.select(np.arange(64, 96), "fresh"))
    judge = Judge(model, fresh, Target.named("generic-qdq"))
    settings = {"store": store, "wide_share": 0.0, "fidelity": 0.0, "max_error": 1.0}
    plain = CompressWeights(**settings)(model)
    better = CompressWeights(**settings, samples=64)(model, Context(data=data))
    assert judge.of(better).loss < part * judge.of(plain).loss


@pytest.mark.slow
def test_weights_take_more_bits_only_until_the_promise_is_kept():
    rng = np.random.default_rng(3)
    model = graph(
        """g (float[N, 32] x) => (float[N, 32] y) {
          a = MatMul (x, w1)
          b = Relu (a)
          y = MatMul (b, w2)
        }""",
        w1=rng.standard_normal((32, 32)).astype(np.float32),
        w2=rng.standard_normal((32, 32)).astype(np.float32),
    )
    data = Context(data=normal(model, rows=96))
    counts = {}
    for wanted in (0.0, 0.95, 0.9999):
        after = CompressWeights(store="int4", fidelity=wanted)(model, data)
        counts[wanted] = after.lineage[-1].notes["weights"]
        assert after.lineage[-1].notes["fidelity"] >= wanted
    assert counts[0.0] == {"int4": 2}
    assert "int4" not in counts[0.95]
    assert "int8" not in counts[0.9999]


def test_a_convolution_of_one_axis_padded_by_rule_is_rounded_for_its_inputs():
    model = graph(
        """g (float[N, 8, 40] x) => (float[N, 16, 20] y) {
          y = Conv <auto_pad = "SAME_UPPER", strides = [2]> (x, w)
        }""",
        w=(16, 8, 5),
    )
    after = CompressWeights(fidelity=0.9)(model, Context(data=normal(model, rows=24)))
    assert after.lineage[-1].notes["weights"] == {"int8": 1}
    assert error(model, after) < 0.02


@pytest.mark.parametrize(("store", "kind"), [("int4", "int8"), ("int8", "int16")])
def test_what_loses_too_much_takes_more_bits(store, kind):
    limit = 1e-9 if store == "int8" else 0.0
    rng = np.random.default_rng(0)
    outliers = rng.standard_normal((64, 128)).astype(np.float32)
    outliers[rng.random(outliers.shape) < 0.1] *= 10
    after = CompressWeights(store=store, max_error=limit, wide_share=0.0)(wide(w1=outliers))
    assert kind in after.lineage[-1].notes["weights"]


@pytest.mark.parametrize(
    "wrong", [{"max_error": -1.0}, {"wide_share": 2.0}, {"samples": 0}, {"fidelity": 1.5}]
)
def test_fields_out_of_range(wrong):
    with pytest.raises(OptionError):
        CompressWeights(**wrong)


def test_a_spectrum_before_a_logarithm_stays_float():
    model = graph(
        """g (float[1, 1, 128] x) => (float[1, 64, 65] y) {
          s = Conv (x, basis)
          p = Mul (s, s)
          q = Add (p, one)
          l = Log (q)
          r = Relu (l)
          y = MatMul (w, r)
        }""",
        basis=(32, 1, 64),
        one=np.array([1.0], np.float32),
        w=(64, 32),
    )
    after = CompressWeights(wide_share=0.0)(model)
    assert set(after.graph.initializers) >= {"basis", "w_int8"}


def test_what_is_only_told_is_not_measured_for_a_candidate_of_a_search():
    model, ctx = residual(), Context()
    told, trial = (CompressWeights()(model, replace(ctx, trial=t)) for t in (False, True))
    assert set(told.lineage[-1].notes) - set(trial.lineage[-1].notes) == {"peak_bytes"}
