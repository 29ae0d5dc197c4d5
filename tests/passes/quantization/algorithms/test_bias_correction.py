from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
import pytest
from int8_graphs import chain, error, graph, normal

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import InputError, OptionError
from trimtab.core.ort.int8_share import int8_share
from trimtab.core.target import Target
from trimtab.passes.quantization.algorithms.bias_correction import CorrectBias
from trimtab.passes.quantization.qdq.bias import Bias, find_bias
from trimtab.passes.quantization.static import QuantizeStatic

VNNI = Context(target=Target.named("x64-avx512-vnni"))


def depthwise():
    """Depthwise, grouped and dense, without a bias and with one that holds a zero."""
    return graph(
        """g (float[N, 8, 9, 9] x) => (float[N, 6] y) {
          [depth] a = Conv <group = 8, pads = [1, 1, 1, 1]> (x, w1)
          b = Relu (a)
          [grouped] c = Conv <group = 2> (b, w2, b2)
          d = Relu (c)
          e = GlobalAveragePool (d)
          f = Flatten (e)
          [head] y = Gemm <transB = 1> (f, w3)
        }""",
        w1=(8, 1, 3, 3),
        w2=(12, 4, 1, 1),
        b2=np.array([0, 1, -1] * 4, np.float32),
        w3=(6, 12),
    )


def planted(model, data, shift=0.4):
    """The int8 model with a wrong bias in its first layer."""
    quantized = QuantizeStatic(data=data)(model, VNNI).clone()
    layer = next(node for node in quantized.graph if node.op_type == "Conv")
    bias = find_bias(quantized.graph, layer)
    assert isinstance(bias, Bias)
    bias.shift(np.full(layer.outputs[0].shape[1], shift))
    return quantized


@pytest.mark.parametrize("judge", ["answer", "layer"])
@pytest.mark.parametrize("make", [chain, depthwise])
def test_a_planted_shift_is_found_and_fixed(make, judge, tmp_path):
    model = make()
    data, fresh = normal(model, rows=128), normal(model, rows=64, seed=7)
    wrong = planted(model, data)
    reference = str(model.save(tmp_path / "f.onnx"))
    mended = CorrectBias(data=data, reference=reference, judge=judge)(wrong, VNNI)
    assert error(model, mended, fresh) < 0.05 * error(model, wrong, fresh)
    assert int8_share(mended).float_ops == 0
    notes = mended.lineage[-1].notes
    assert notes["squared_relative_error_after"] < notes["squared_relative_error_before"]


@pytest.mark.parametrize("judge", ["answer", "layer"])
def test_layers_that_do_not_gain_stay_and_are_listed(judge, tmp_path):
    model = depthwise()
    data = normal(model, rows=128)
    quantized = QuantizeStatic(data=data)(model, VNNI)
    reference = str(model.save(tmp_path / "f.onnx"))
    corrected = CorrectBias(data=data, reference=reference, judge=judge)(quantized, VNNI)
    notes = corrected.lineage[-1].notes
    named = notes["corrected"] + [name for name, _ in notes.get("declined", [])]
    assert sorted(named) == ["depth", "grouped", "head"]
    assert notes["squared_relative_error_after"] <= notes["squared_relative_error_before"]


def test_a_product_followed_by_a_float_bias_is_corrected(tmp_path):
    model = graph(
        """g (float[N, 6, 32] x) => (float[N, 6, 16] y) {
          h = LayerNormalization <axis = -1> (x, gain)
          [dense] a = MatMul (h, w)
          y = Add (a, b)
        }""",
        gain=np.ones(32, np.float32),
        w=(32, 16),
        b=(16,),
    )
    data = normal(model, rows=128)
    wrong = QuantizeStatic(data=data)(model, VNNI).clone()
    bias = find_bias(wrong.graph, next(n for n in wrong.graph if n.op_type == "MatMul"))
    bias.shift(np.full(16, 0.5))
    mended = CorrectBias(data=data, reference=str(model.save(tmp_path / "f.onnx")))(wrong, VNNI)
    # The shift is in the bias alone, which the product's own output does not show.
    assert (
        mended.lineage[-1].notes["squared_relative_error_after"]
        <= mended.lineage[-1].notes["squared_relative_error_before"]
    )


def products():
    """A product whose sum nobody reads but the next product, and one that is the answer."""
    return graph(
        """g (float[N, 6, 32] x) => (float[N, 6, 16] y) {
          h = LayerNormalization <axis = -1> (x, gain)
          [first] a = MatMul (h, w1)
          r = Relu (a)
          [last] y = MatMul (r, w2)
        }""",
        gain=np.ones(32, np.float32),
        w1=(32, 24),
        w2=(24, 16),
    )


@pytest.mark.parametrize("judge", ["answer", "layer"])
def test_a_product_without_a_bias_gets_one_where_it_helps(judge, tmp_path):
    model = products()
    data, fresh = normal(model, rows=128), normal(model, rows=64, seed=7)
    wrong = QuantizeStatic(data=data)(model, VNNI).clone()
    # An input range that is cut short moves the mean of every later channel.
    scale = next(n for n in wrong.graph if n.name == "last").inputs[0].producer().inputs[1]
    scale.const_value = ir.tensor(scale.const_value.numpy() * np.float32(0.3), name=scale.name)
    path = str(model.save(tmp_path / "f.onnx"))
    mended = CorrectBias(data=data, reference=path, judge=judge)(wrong, VNNI)
    corrected = mended.lineage[-1].notes["corrected"]
    assert "last" in corrected
    assert error(model, mended, fresh) < 0.9 * error(model, wrong, fresh)
    assert int8_share(mended).float_ops == 0
    assert [node.op_type for node in mended.graph].count("Add") == len(corrected)


def test_no_operator_is_added_for_a_bias_of_rounding_noise(tmp_path):
    """Zeros go in and zeros come out: a bias that few samples found would stand there instead."""
    model = graph("g (float[N, 6, 32] x) => (float[N, 6, 16] y) { y = MatMul (x, w) }", w=(32, 16))
    data = normal(model, rows=24)
    quantized = QuantizeStatic(data=data)(model, VNNI)
    path = str(model.save(tmp_path / "f.onnx"))
    after = CorrectBias(data=data, reference=path, judge="layer")(quantized, VNNI)
    assert [n.op_type for n in after.graph] == [n.op_type for n in quantized.graph]


def test_added_biases_take_no_name_of_the_model_and_remove_nothing_of_it(tmp_path):
    model = graph(
        """g (float[N, 6, 32] x) => (float[N, 6, 16] y) {
          h = LayerNormalization <axis = -1> (x, dense_bias)
          [dense] a = MatMul (h, w)
          [scaled_added_bias] y = Mul (a, zeros)
        }""",
        dense_bias=np.ones(32, np.float32),
        w=(32, 16),
        zeros=np.zeros(16, np.float32),
    )
    data = normal(model, rows=64)
    quantized = QuantizeStatic(data=data)(model, VNNI)
    path = str(model.save(tmp_path / "f.onnx"))
    after = CorrectBias(data=data, reference=path)(quantized, VNNI)
    assert [n.op_type for n in after.graph] == [n.op_type for n in quantized.graph]
    assert "dense_bias" in after.graph.initializers


def test_a_product_that_gains_nothing_is_unchanged(tmp_path):
    model = products()
    data = normal(model, rows=128)
    exact = QuantizeStatic(data=data)(model, VNNI)
    path = str(model.save(tmp_path / "f.onnx"))
    same = CorrectBias(data=Dataset.of_arrays({"x": np.zeros((32, 6, 32), np.float32)}))
    after = dataclasses.replace(same, reference=path)(exact, VNNI)
    assert after.lineage[-1].notes["corrected"] == []
    assert [n.op_type for n in after.graph] == [n.op_type for n in exact.graph]
    assert [o.name for o in after.graph.outputs] == [o.name for o in exact.graph.outputs]


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_is_corrected(groups, tmp_path):
    model = graph(
        f"""g (float[N, 8, 5, 5] x) => (float[N, C, H, W] y) {{
          [up] a = ConvTranspose <strides = [2, 2], group = {groups}> (x, w)
          y = Relu (a)
        }}""",
        w=(8, 12 // groups, 2, 2),
    )
    data, fresh = normal(model, rows=128), normal(model, rows=64, seed=7)
    target = Context(target=Target.named("cuda"))
    wrong = QuantizeStatic(data=data)(model, target).clone()
    layer = next(node for node in wrong.graph if node.name == "up")
    bias = find_bias(wrong.graph, layer)
    assert isinstance(bias, Bias)
    bias.shift(np.linspace(-0.4, 0.4, 12))
    path = str(model.save(tmp_path / "f.onnx"))
    mended = CorrectBias(data=data, reference=path)(wrong, VNNI)
    assert error(model, mended, fresh) < 0.05 * error(model, wrong, fresh)


def test_without_a_reference_is_an_error():
    with pytest.raises(OptionError, match="--reference"):
        CorrectBias()(chain(), dataclasses.replace(VNNI, data=normal(chain())))


def test_a_foreign_reference_is_refused(tmp_path):
    model, other = chain(), depthwise()
    data = normal(model)
    quantized = QuantizeStatic(data=data)(model, VNNI)
    path = str(other.save(tmp_path / "other.onnx"))
    with pytest.raises(InputError, match="shares no layer"):
        CorrectBias(data=data, reference=path)(quantized, VNNI)


def test_a_model_without_layers_is_not_blamed_on_its_reference(tmp_path):
    model = graph("g (float[N, 8] x) => (float[N, 8] y) { t = Relu (x) y = Softmax (t) }")
    data = normal(model)
    reference = str(model.save(tmp_path / "float.onnx"))
    with pytest.raises(InputError, match="has no Conv, Gemm or MatMul outside of subgraphs"):
        CorrectBias(data=data, reference=reference)(model)


@pytest.mark.parametrize("judge", ["answer", "layer"])
def test_sentences_of_any_length_are_accepted(judge, tmp_path):
    model = graph(
        """g (float[N, L, 16] x) => (float[N, L, 16] y) {
          [query] q = MatMul (x, w1)
          t = Transpose <perm = [0, 2, 1]> (q)
          [scores] s = MatMul (q, t)
          p = Softmax <axis = -1> (s)
          [mix] m = MatMul (p, x)
          [out] o = MatMul (m, w2)
          y = Add (o, b2)
        }""",
        w1=(16, 16),
        w2=(16, 16),
        b2=(16,),
    )
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal((4, n, 16), np.float32)} for n in (3, 5, 9, 4)]
    data = Dataset.of_batches(lambda: feeds)
    path = str(model.save(tmp_path / "f.onnx"))
    quantized = QuantizeStatic(data=data)(model, VNNI)
    after = CorrectBias(reference=path, data=data, judge=judge)(quantized, VNNI)
    declined = dict(after.lineage[-1].notes.get("declined", []))
    assert declined["scores"] == "it is a product of two activations, whose channels are not fixed"
    assert (
        after.lineage[-1].notes["squared_relative_error_after"]
        <= after.lineage[-1].notes["squared_relative_error_before"]
    )


def test_product_with_a_vector_has_no_channels_to_correct(tmp_path):
    model = graph(
        """g (float[N, 8] x) => (float[N] y) {
          [wide] a = MatMul (x, w)
          [narrow] y = MatMul (a, v)
        }""",
        w=(8, 16),
        v=(16,),
    )
    path = str(model.save(tmp_path / "f.onnx"))
    rows = np.random.default_rng(0).standard_normal((64, 8), np.float32)
    data = Dataset.of_arrays({"x": rows})
    quantized = QuantizeStatic(data=data)(model, VNNI)
    after = CorrectBias(reference=path, data=data)(quantized, VNNI)
    declined = dict(after.lineage[-1].notes.get("declined", []))
    assert declined["narrow"] == "it multiplies by a vector, and its outputs have no channels"
