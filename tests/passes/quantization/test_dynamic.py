from __future__ import annotations

import numpy as np
import pytest
from int8_graphs import attention, chain, graph, linear

from trimtab.core.context import Context
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.int8_share import int8_share
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.core.target import Target
from trimtab.passes.quantization.dynamic import QuantizeDynamic

VNNI = Context(target=Target.named("x64-avx512-vnni"))


@pytest.mark.parametrize("make", [linear, attention])
def test_products_with_weights_run_in_int8(make):
    model = make()
    quantized = QuantizeDynamic()(model, VNNI)
    weights = sum(name.startswith("w") for name in model.graph.initializers)
    assert int8_share(quantized).int8_ops == weights
    feeds = random_feeds(model, batch=2)
    expected = next(iter(run(build_session(model), feeds).values()))
    there = SessionConfig.for_evaluation(VNNI.target)
    got = next(iter(run(build_session(quantized, there), feeds).values()))
    assert np.abs(expected - got).max() < 0.05 * np.abs(expected).max()


def test_a_gemm_runs_in_int8():
    model = graph(
        "g (float[N, 32] x) => (float[N, 8] y) { y = Gemm <transB = 1> (x, w, b) }",
        w=(8, 32),
        b=(8,),
    )
    assert int8_share(QuantizeDynamic()(model, VNNI)).float_ops == 0


def test_convolutions_stay_float_and_are_listed():
    quantized = QuantizeDynamic()(chain(), VNNI)
    assert int8_share(quantized).int8_ops == 0
    assert len(quantized.lineage[-1].notes["declined"]) == 2


def test_convolutions_become_integer_where_asked():
    quantized = QuantizeDynamic(convs=True)(chain(), VNNI)
    assert int8_share(quantized).ops["ConvInteger"] == 2


def test_seven_bits_without_vnni():
    quantized = QuantizeDynamic()(linear(), Context(target=Target.named("x64-avx2")))
    weight = quantized.graph.initializers["w_quantized"].const_value.numpy()
    assert np.abs(weight.astype(int)).max() == 64


def test_embeddings_shrink_unless_declined():
    model = graph(
        """g (int64[N, S] ids) => (float[N, S, 8] y) {
          e = Gather (table, ids)
          y = MatMul (e, w)
        }""",
        table=(1000, 8),
        w=(8, 8),
    )
    plain, small = QuantizeDynamic(embeddings=False)(model, VNNI), QuantizeDynamic()(model, VNNI)
    assert small.size_bytes < plain.size_bytes / 3


def rows() -> Model:
    return graph(
        """g (float[2, 6, 32] x) => (float[2, 6, 16] y) {
          [flat] a = Reshape (x, into_rows)
          [product] b = Gemm (a, w, c)
          [back] y = Reshape (b, shape)
        }""",
        into_rows=np.array([-1, 32], np.int64),
        shape=np.array([2, 6, 16], np.int64),
        w=(32, 16),
        c=(16,),
    )


def test_reshapes_for_a_gemm_alone_are_removed() -> None:
    made = QuantizeDynamic()(rows(), VNNI)
    assert made.lineage[-1].notes["forms"] == {"matmul-from-rows": 1}
    assert "Reshape" not in {node.op_type for node in made.graph}
    feeds = random_feeds(rows())
    expected = run(build_session(rows()), feeds)["y"]
    got = run(build_session(made, SessionConfig.for_evaluation(VNNI.target)), feeds)["y"]
    np.testing.assert_allclose(got, expected, atol=0.05)


def test_a_gemm_that_is_excluded_by_name_stays_float() -> None:
    model = graph(
        """g (float[2, 6, 32] x) => (float[2, 6, 32] z) {
          a = Reshape (x, into_rows)
          [product] b = Gemm (a, w, c)
          y = Reshape (b, shape)
          z = MatMul (y, v)
        }""",
        into_rows=np.array([-1, 32], np.int64),
        shape=np.array([2, 6, 16], np.int64),
        w=(32, 16),
        c=(16,),
        v=(16, 32),
    )
    made = QuantizeDynamic(exclude=("product",))(model, VNNI)
    assert made.lineage[-1].notes["forms"] == {}
    assert made.lineage[-1].notes["int8_ops"] == 1
    assert any(node.op_type == "Gemm" and node.name == "product" for node in made.graph)


def test_a_spectrum_whose_logarithm_is_taken_stays_float():
    model = graph(
        """g (float[N, 64] x) => (float[N, 64] y) <float low = {0.0001}>
        { p = Mul (x, x)  m = MatMul (p, w)  a = Abs (m)  c = Max (a, low)  y = Log (c) }""",
        w=(64, 64),
    )
    quantized = QuantizeDynamic()(model, VNNI)
    assert int8_share(quantized).int8_ops == 0
    assert "spectrum" in str(quantized.lineage[-1].notes["declined"])
