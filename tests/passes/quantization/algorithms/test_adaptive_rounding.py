from __future__ import annotations

import numpy as np
import pytest
from int8_graphs import chain, error, graph, normal

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import InputError, OptionError
from trimtab.core.ort.int8_share import int8_share
from trimtab.core.target import Target
from trimtab.passes.quantization.algorithms.adaptive_rounding import RoundWeights
from trimtab.passes.quantization.static import QuantizeStatic

VNNI = Context(target=Target.named("x64-avx512-vnni"))
NPU = QuantizeStatic(per_channel=False)


def correlated(rows, seed):
    """Inputs that lie near a plane, as activations do: there rounding errors can cancel."""
    rng = np.random.default_rng(seed)
    basis = np.random.default_rng(9).standard_normal((6, 48))
    x = rng.standard_normal((rows, 6)) @ basis + 0.1 * rng.standard_normal((rows, 48))
    return Dataset.of_arrays({"x": x.astype(np.float32)})


PLAIN = "[up] a = Gemm <transB = 1> (x, w1, b1)"
TURNED = """t = Transpose <perm = [1, 0]> (x)
            [up] a = Gemm <transA = 1, transB = 1> (t, w1, b1)"""


def products(first=PLAIN):
    return graph(
        f"""g (float[N, 48] x) => (float[N, 12] y) {{
          {first}
          b = Relu (a)
          [down] y = MatMul (b, w2)
        }}""",
        w1=(32, 48),
        b1=(32,),
        w2=(32, 12),
    )


def mixed_convs():
    """Dense with a stride, depthwise with a dilation, grouped."""
    return graph(
        """g (float[N, 6, 12, 12] x) => (float[N, 8, 6, 6] y) {
          [dense] a = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w1, b1)
          b = Relu (a)
          [depth] c = Conv <group = 8, dilations = [2, 2], pads = [2, 2, 2, 2]> (b, w2)
          d = Relu (c)
          [grouped] y = Conv <group = 2> (d, w3)
        }""",
        w1=(8, 6, 3, 3),
        b1=(8,),
        w2=(8, 1, 3, 3),
        w3=(8, 4, 1, 1),
    )


@pytest.mark.parametrize("first", [PLAIN, TURNED])
def test_rounding_errors_cancel_on_unseen_samples(first, tmp_path):
    model = products(first)
    quantized = NPU.with_fields(data=correlated(256, 0))(model, VNNI)
    reference = str(model.save(tmp_path / "f.onnx"))
    after = RoundWeights(data=correlated(256, 1), reference=reference)(quantized, VNNI)
    fresh = correlated(128, 2)
    assert error(model, after, fresh) < 0.8 * error(model, quantized, fresh)
    assert after.lineage[-1].notes["rounded"] == ["up", "down"]
    assert int8_share(after).int8_share == 1.0


@pytest.mark.parametrize("make", [chain, mixed_convs])
def test_all_kinds_of_convolutions_never_get_worse_on_held_out_samples(make, tmp_path):
    model = make()
    data = normal(model, rows=128)
    quantized = NPU.with_fields(data=data)(model, VNNI)
    reference = str(model.save(tmp_path / "f.onnx"))
    after = RoundWeights(data=data, reference=reference)(quantized, VNNI)
    notes = after.lineage[-1].notes
    assert notes["rounded"]
    assert notes["squared_relative_error_after"] < notes["squared_relative_error_before"]
    assert error(model, after, normal(model, rows=64, seed=5)) < error(
        model, quantized, normal(model, rows=64, seed=5)
    )


def test_integers_stay_within_one_of_the_nearest(tmp_path):
    model = products()
    quantized = NPU.with_fields(data=correlated(64, 0))(model, VNNI)
    reference = str(model.save(tmp_path / "f.onnx"))
    after = RoundWeights(data=correlated(64, 1), reference=reference)(quantized, VNNI)
    for name, value in quantized.graph.initializers.items():
        if value.const_value.numpy().dtype == np.int8:
            a = value.const_value.numpy().astype(int)
            b = after.graph.initializers[name].const_value.numpy().astype(int)
            assert np.abs(a - b).max() <= 1
            assert np.abs(b).max() <= 127


def test_the_reference_must_be_given_and_fit(tmp_path):
    model = chain()
    data = normal(model)
    quantized = NPU.with_fields(data=data)(model, VNNI)
    with pytest.raises(OptionError, match="--reference"):
        RoundWeights(data=data)(quantized, VNNI)
    other = str(products().save(tmp_path / "f.onnx"))
    with pytest.raises(InputError, match="shares no layer"):
        RoundWeights(data=data, reference=other)(quantized, VNNI)
