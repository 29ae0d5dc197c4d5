from __future__ import annotations

import numpy as np
import pytest
from graphs import model_of
from int8_graphs import attention, chain, graph, linear, normal

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, OptionError
from trimtab.core.metric import evaluate
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import build_session, run
from trimtab.core.target import Target
from trimtab.passes.quantization.weight_only import QuantizeWeights

VNNI = Context(target=Target.named("x64-avx512-vnni"))


def wide():
    return graph(
        """g (float[N, 128] x) => (float[N, 64] y) {
          [up] a = MatMul (x, w1)
          b = Relu (a)
          [down] y = Gemm <transB = 1> (b, w2, c)
        }""",
        w1=(128, 256),
        w2=(64, 256),
        c=(64,),
    )


def lost(model, after, data):
    return 1 - evaluate(after, data, "cosine", reference=model).value


def ops(model):
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize(("bits", "part", "most"), [(4, 0.2, 2e-2), (8, 0.35, 1e-4)])
def test_weights_shrink_and_outputs_stay_close(bits, part, most):
    model = wide()
    after = QuantizeWeights(bits=bits)(model, VNNI)
    assert ops(after).count("MatMulNBits") == 2
    assert after.weight_bytes < part * model.weight_bytes
    assert lost(model, after, normal(model)) < most


def test_a_gemm_becomes_a_product_and_its_bias_stays():
    model = wide()
    after = QuantizeWeights(bits=8)(model, VNNI)
    assert ops(after) == ["MatMulNBits", "Relu", "MatMulNBits", "Add"]
    names = [node.name for node in after.graph if node.op_type == "MatMulNBits"]
    assert [name.split("_")[0] for name in names] == ["up", "down"]


def test_gptq_is_better_than_rounding_on_correlated_inputs():
    model = graph("g (float[N, 64] x) => (float[N, 32] y) { y = MatMul (x, w) }", w=(64, 32))
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((512, 8)) @ rng.standard_normal((8, 64))).astype(np.float32)
    data = Dataset.of_arrays({"x": x + 0.05 * rng.standard_normal(x.shape).astype(np.float32)})
    plain = QuantizeWeights(int8=False)(model, VNNI)
    after = QuantizeWeights(method="gptq", data=data, int8=False)(model, VNNI)
    assert lost(model, after, data) < 0.6 * lost(model, plain, data)
    assert after.lineage[-1].notes["compensated"] == 1


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("depth", [64, 200])
def test_gptq_writes_what_the_kernel_reads(bits, symmetric, depth):
    model = graph(
        f"g (float[N, {depth}] x) => (float[N, 8] y) {{ y = MatMul (x, w) }}", w=(depth, 8)
    )
    how = {"bits": bits, "symmetric": symmetric, "int8": False}
    data = normal(model, rows=600)
    plain = lost(model, QuantizeWeights(**how)(model, VNNI), data)
    after = lost(
        model, QuantizeWeights(method="gptq", data=data, samples=600, **how)(model, VNNI), data
    )
    assert after < 1.3 * plain


def test_hqq():
    pytest.importorskip("torch")
    model = wide()
    after = QuantizeWeights(method="hqq")(model, VNNI)
    assert ops(after).count("MatMulNBits") == 2
    assert lost(model, after, normal(model)) < 2e-2


def test_a_gemm_of_factors_and_transposed_inputs():
    model = graph(
        """g (float[40, 5] x, float[16] c) => (float[5, 16] y) {
          y = Gemm <transA = 1, transB = 1, alpha = -2.0, beta = 0.5> (x, w, c)
        }""",
        w=(16, 40),
    )
    after = QuantizeWeights(bits=8)(model, VNNI)
    assert ops(after).count("MatMulNBits") == 1
    feeds = random_feeds(model)
    a, b = (run(build_session(m), feeds)["y"] for m in (model, after))
    np.testing.assert_allclose(a, b, atol=0.03 * np.abs(a).max())


def test_a_weight_of_two_products_is_stored_once_in_subgraphs_too():
    model = graph(
        """g (float[4, 64] x, bool f) => (float[4, 64] z) {
          y = MatMul (x, w)
          z = If <then_branch = th () => (float[4, 64] t) {
            m = MatMul (y, w)
            t = Tanh (m)
          }, else_branch = el () => (float[4, 64] e) {
            e = Gemm <transB = 1> (y, w)
          }> (f)
        }""",
        w=(64, 64),
    )
    after = QuantizeWeights(bits=8)(model, VNNI)
    products = [node for node in after.nodes() if node.op_type == "MatMulNBits"]
    assert len(products) == 3
    assert len({node.inputs[1].name for node in products}) == 2  # as stored, and transposed
    for flag in (True, False):
        feeds = {**random_feeds(model), "f": np.array(flag)}
        a, b = (run(build_session(m), feeds)["z"] for m in (model, after))
        np.testing.assert_allclose(a, b, atol=0.03 * np.abs(a).max())


def test_a_weight_that_is_looked_up_as_well_stays_float_with_the_reason():
    model = graph(
        """g (int64[3] ids) => (float[3, 500] y) {
          e = Gather (table, ids)
          h = MatMul (e, w)
          t = Transpose <perm = [1, 0]> (table)
          [head] y = MatMul (h, t)
        }""",
        table=(500, 32),
        w=(32, 32),
    )
    after = QuantizeWeights()(model, VNNI)
    reason = dict(after.lineage[-1].notes["declined"])["head"]
    assert "read in float by Gather" in reason
    assert after.size_bytes < 1.02 * model.size_bytes


def test_tensors_that_have_the_names_of_helpers():
    model = graph(
        """g (float[5, 64] x) => (float[5, 64] y, float[5, 64] z) {
          y = MatMul (x, w)
          z = Gemm <transB = 1> (x, w_Q8)
        }""",
        w=(64, 64),
        w_Q8=(64, 64),
    )
    after, feeds = QuantizeWeights(bits=8)(model, VNNI), random_feeds(model)
    expected, got = (run(build_session(m), feeds) for m in (model, after))
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, atol=0.03 * np.abs(array).max())


@pytest.mark.parametrize("block", [16, 128])
def test_blocks_that_do_not_divide_the_depth(block):
    model = linear()
    after = QuantizeWeights(bits=8, block=block)(model, VNNI)
    feeds = random_feeds(model, batch=2)
    a, b = (next(iter(run(build_session(m), feeds).values())) for m in (model, after))
    np.testing.assert_allclose(a, b, atol=0.05)


def test_products_of_activations_and_excluded_ones_stay():
    model = attention()
    name = next(node.name for node in QuantizeWeights()(model, VNNI).graph if node.name)
    first = name.removesuffix("_Q4")
    after = QuantizeWeights(exclude=(first,))(model, VNNI)
    declined = dict(after.lineage[-1].notes["declined"])
    assert declined[first] == "excluded by the user"
    assert list(declined.values()).count("its weight is computed while the model runs") == 2
    assert ops(after).count("MatMulNBits") == 2


def test_convolutions_alone_are_refused_with_the_pass_to_use():
    with pytest.raises(DataError, match="quantize-static"):
        QuantizeWeights()(chain(), VNNI)


@pytest.mark.parametrize(
    "fields", [{"bits": 3}, {"block": 20}, {"method": "hqq", "bits": 8}, {"samples": 0}]
)
def test_invalid_fields_are_refused(fields):
    with pytest.raises(OptionError):
        QuantizeWeights(**fields)(wide(), VNNI)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        (
            "(float[N,3,6,6] x) => (float[N,4,4,4] y) <float[4,3,3,3] w> { y = Conv (x, w) }",
            "static",
        ),
        ("(float[N,4] x) => (float[N,4] y) { y = Relu (x) }", "half"),
    ],
)
def test_a_model_without_products_is_sent_to_the_pass_for_what_it_has(text, advice):
    with pytest.raises(DataError, match="no matrix product") as refused:
        QuantizeWeights()(model_of(text))
    assert advice in str(refused.value.hint)


def test_refusal_says_why_the_first_product_with_a_weight_stays_float():
    model = model_of(
        """(float[N,8] x) => (float[N,8] y, float[8,8] w) <float[8,8] w> {
            [only] y = MatMul (x, w) }"""
    )
    with pytest.raises(DataError) as caught:
        QuantizeWeights()(model)
    assert "'only' stays float: its weight is an output of the model" in str(caught.value)
