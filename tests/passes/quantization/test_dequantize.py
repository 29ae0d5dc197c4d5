from __future__ import annotations

import numpy as np
import pytest
from graphs import model_of
from int8_graphs import PATTERNS, graph, normal, transformer_block

from trimtab.cli import main
from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import InputError
from trimtab.core.model import Model
from trimtab.core.ort.int8_share import QDQ_OPS, int8_share
from trimtab.core.ort.session import build_session, run
from trimtab.core.target import Target
from trimtab.passes.quantization.dequantize import Dequantize
from trimtab.passes.quantization.dynamic import QuantizeDynamic
from trimtab.passes.quantization.static import QuantizeStatic

VNNI = Context(target=Target.named("x64-avx512-vnni"))


def first_output(model, data):
    return np.concatenate([next(iter(run(build_session(model), b.feeds).values())) for b in data])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_pair_remains_and_outputs_equal_the_float_model_up_to_rounding(pattern):
    model = PATTERNS[pattern]()
    data = normal(model)
    quantized = QuantizeStatic(data=data)(model, VNNI)
    back = Dequantize()(quantized, VNNI)
    assert [n.op_type for n in back.nodes() if n.op_type in QDQ_OPS] == []
    expected = first_output(model, data)
    # Weights stay rounded and values outside of a range that begins at zero stay clipped.
    assert np.abs(first_output(back, data) - expected).max() < 0.1 * np.abs(expected).max()


def test_a_relu_fused_into_a_pair_is_restored():
    model = PATTERNS["chain"]()
    quantized = QuantizeStatic(data=normal(model))(model, VNNI)
    assert not any(node.op_type == "Relu" for node in quantized.graph)
    back = Dequantize()(quantized, VNNI)
    clips = [node for node in back.graph if node.op_type == "Clip"]
    assert len(clips) == 1
    assert float(clips[0].inputs[1].const_value.numpy()) == 0


def test_pairs_in_half_precision_become_half_precision_again():
    proto = model_of(
        """(float16[N,8] x) => (float16[N,4] y) <float16[8,16] w, float16[16] b, float16[16,4] v> {
            a = Gemm (x, w, b)  r = Relu (a)  y = MatMul (r, v) }""",
        opset=21,
    )
    rows = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float16)
    data = Dataset.of_arrays({"x": rows})
    back = Dequantize()(QuantizeStatic(data=data)(proto, VNNI), VNNI)
    assert [n.op_type for n in back.nodes() if n.op_type in QDQ_OPS] == []
    expected = first_output(proto, data)
    assert np.abs(first_output(back, data) - expected).max() < 0.1 * np.abs(expected).max()


@pytest.mark.parametrize(("low", "high"), [(-0.5, 0.5), (-1.0, 0.0), (0.0, 6.0), (-0.5, 100.0)])
def test_a_clip_fused_into_a_pair_is_restored(low, high, tmp_path):
    model = model_of(
        f"""(float[N,8] x) => (float[N,4] y) <float[8,16] w, float[16,4] v,
            float l = {{{low}}}, float h = {{{high}}}> {{
            a = MatMul (x, w)  c = Clip (a, l, h)  y = MatMul (c, v) }}"""
    )
    rows = np.random.default_rng(0).standard_normal((64, 8), np.float32)
    quantized = QuantizeStatic(data=Dataset.of_arrays({"x": rows}))(model, VNNI)
    assert not any(node.op_type == "Clip" for node in quantized.graph)
    read = Model.load(quantized.save(tmp_path / "int8.onnx"))
    feeds = {"x": 3 * rows}
    expected = run(build_session(model), feeds)["y"]
    got = run(build_session(Dequantize()(read, VNNI)), feeds)["y"]
    assert np.abs(got - expected).max() < 0.2 * np.abs(expected).max()


def test_a_rounded_output_keeps_its_name():
    model = PATTERNS["residual"]()
    quantized = QuantizeStatic(data=normal(model))(model, VNNI)
    assert Dequantize()(quantized, VNNI).outputs == model.outputs


def test_integer_operators_are_refused_with_the_node():
    model = transformer_block()
    dynamic = QuantizeDynamic()(model, VNNI)
    with pytest.raises(InputError, match=r"computes with integers in node .*MatMulInteger|Dynamic"):
        Dequantize()(dynamic, VNNI)


def test_half_of_a_pair_is_refused():
    model = graph(
        """g (float[N, 4] x) => (uint8[N, 4] y) {
          y = QuantizeLinear (x, s, z)
        }""",
        s=np.array(0.1, np.float32),
        z=np.array(3, np.uint8),
    )
    with pytest.raises(InputError, match="without its partner"):
        Dequantize()(model, VNNI)


@pytest.mark.slow
def test_the_command_quantizes_anew_on_request(tmp_path):
    model = PATTERNS["residual"]()
    data = normal(model, rows=32)
    np.savez(tmp_path / "d.npz", **next(iter(data)).feeds)
    old = QuantizeStatic(data=data, ranges="minmax")(model, VNNI).save(tmp_path / "old.onnx")
    out = tmp_path / "new.onnx"
    arguments = ["quantize", str(old), "-o", str(out), "--data", str(tmp_path / "d.npz")]
    assert main(arguments) == 2
    assert not out.exists()
    assert main([*arguments, "--requantize", "--all-int8"]) == 0
    assert int8_share(Model.load(out)).int8_share == 1.0
