from __future__ import annotations

import numpy as np
import onnx_ir as ir
from graphs import model_of

from trimtab.core.ort import session
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.core.ort.shared_weights import split_shared_weights
from trimtab.core.target import Target

TIED = """(float[n,4] x) => (float[n,4] y) <float s = {0.02}, uint8 z = {128}, int8 zero = {0},
    int8[4,4] w = {100, -3, 7, 90, 2, 5, -8, 1, 0, 3, 2, 60, 9, 9, -9, 4}> {
        q = QuantizeLinear (x, s, z)
        d = DequantizeLinear (q, s, z)
        v = DequantizeLinear (w, s, zero)
        a = MatMul (d, v)
        qa = QuantizeLinear (a, s, z)
        da = DequantizeLinear (qa, s, z)
        u = DequantizeLinear (w, s, zero)
        b = MatMul (da, u)
        qb = QuantizeLinear (b, s, z)
        y = DequantizeLinear (qb, s, z)
    }"""


def test_exact_kernels_are_used_where_only_the_host_saturates(monkeypatch):
    wide, narrow = Target.named("x64-avx512-vnni"), Target.named("x64-avx2")
    for host, target, exact in [
        (wide, wide, False),
        (wide, narrow, False),
        (narrow, wide, True),
        (narrow, narrow, False),
    ]:
        monkeypatch.setattr(session.Target, "detect", lambda here=host: here)
        assert (session.EXACT_INT8 in SessionConfig.for_evaluation(target).config) is exact


def test_shared_weights_load_with_exact_kernels_and_give_the_same_outputs():
    model = model_of(TIED)
    feeds = {"x": np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)}
    exact = SessionConfig(config={session.EXACT_INT8: "1"})
    expected = run(build_session(model, SessionConfig(level="basic")), feeds)["y"]
    np.testing.assert_allclose(run(build_session(model, exact), feeds)["y"], expected, atol=0.021)


def test_a_weight_is_copied_for_each_use_and_the_model_is_not_changed():
    model = model_of(TIED)
    copy = split_shared_weights(model)
    weights = [v for v in copy.graph.initializers.values() if v.dtype == ir.DataType.INT8]
    assert [len(tuple(v.uses())) for v in weights if v.shape] == [1, 1]
    assert sum(v.name.startswith("w") for v in model.graph.initializers.values()) == 1


def test_a_model_without_shared_weights_is_not_copied():
    model = model_of("(float[n,4] x) => (float[n,4] y) { y = Relu (x) }")
    assert split_shared_weights(model) is model
