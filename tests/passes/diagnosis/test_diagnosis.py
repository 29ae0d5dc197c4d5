"""Accuracy diagnosis: faults are planted, and reported first with what fixes them."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from int8_graphs import detector, graph, linear, normal, transformer_block

from trimtab.cli import main
from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import InputError
from trimtab.core.model import Model
from trimtab.core.target import Target
from trimtab.passes.diagnosis import measure as measuring
from trimtab.passes.diagnosis.accuracy import AccuracyDiagnosis, diagnose_accuracy, overflows
from trimtab.passes.diagnosis.constants import unpack_nbits
from trimtab.passes.diagnosis.float_block import float_block
from trimtab.passes.pruning.channels import PruneChannels
from trimtab.passes.quantization.algorithms.bias_correction import CorrectBias
from trimtab.passes.quantization.algorithms.cross_layer_equalization import Equalize
from trimtab.passes.quantization.dynamic import QuantizeDynamic
from trimtab.passes.quantization.static import QuantizeStatic
from trimtab.passes.quantization.weight_only import QuantizeWeights

# Seven bits of weight: this machine's kernels then compute what the file says, VNNI or not.
CONTEXT = Context(target=Target.named("x64-avx2"))


def network(outputs=5, **changed) -> Model:
    weights = {
        "w1": (8, 4, 3, 3),
        "b1": (8,),
        "w2": (8, 8, 3, 3),
        "b2": (8,),
        "w3": (8, 8, 3, 3),
        "b3": (8,),
        "w4": (outputs, 512),
        "b4": (outputs,),
    }
    return graph(
        f"g (float[N, 4, 8, 8] x) => (float[N, {outputs}] y) {{"
        """
          [one] a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
          [one_relu] ar = Relu (a)
          [two] b = Conv <pads = [1, 1, 1, 1]> (ar, w2, b2)
          [two_relu] br = Relu (b)
          [three] c = Conv <pads = [1, 1, 1, 1]> (br, w3, b3)
          [sum] s = Add (c, ar)
          [sum_relu] sr = Relu (s)
          [flat] f = Flatten (sr)
          [head] y = Gemm <transB = 1> (f, w4, b4)
        }""",
        **(weights | changed),
    )


def int8(model: Model, **options) -> Model:
    return QuantizeStatic(data=normal(model), **options)(model, CONTEXT)


def planted(model: Model, name: str, change) -> Model:
    """The model with an initializer changed."""
    copy = model.clone()
    value = copy.graph.initializers[name]
    array = change(np.array(value.const_value.numpy()))
    value.const_value = ir.tensor(array, name=name)
    return copy


def diagnosed(model: Model, baseline: Model | None, data: Dataset | None = None, **options):
    options.setdefault("samples", 8)
    return diagnose_accuracy(model, data or normal(model), Context(), baseline=baseline, **options)


def first(found: AccuracyDiagnosis):
    return found.layers[0]


@pytest.mark.parametrize(("tensor", "layer"), [("ar", "one"), ("br", "two"), ("s", "sum")])
def test_an_activation_scale_ten_times_too_small_is_named_first(tensor, layer):
    model = network()
    quantized = int8(model)
    scale = next(n for n in quantized.graph.initializers if n in {f"{tensor}_scale", "sr_scale"})
    worst = first(diagnosed(planted(quantized, scale, lambda s: s / 10), model))
    assert (worst.name, worst.kind) == (layer, "activation")
    assert worst.range_fit.narrow_bits == pytest.approx(np.log2(10), abs=0.6)
    assert "too narrow" in worst.cause
    assert worst.clipped > 0.1
    assert "calibrate anew" in worst.fix


def test_an_activation_scale_forty_times_too_large_is_named_first():
    model = network()
    worst = first(diagnosed(planted(int8(model), "br_scale", lambda s: s * 40), model))
    assert (worst.name, worst.clipped) == ("two", 0)
    assert worst.range_fit.wide_bits == pytest.approx(np.log2(40), abs=0.6)
    assert "too wide" in worst.cause


def test_a_wrong_weight_scale_is_named_first_with_its_channel():
    model = network()

    def change(scale):
        scale[3] *= 8
        return scale

    worst = first(diagnosed(planted(int8(model), "w2_scale", change), model))
    assert (worst.name, worst.kind) == ("two", "weight")
    assert re.search(r"channel 3 is (8|7\.\d+) times", worst.cause)
    assert worst.weight_error > 1


def test_a_wrong_scale_of_a_whole_weight_is_named_first():
    model = network()
    quantized = int8(model, per_channel=False)
    worst = first(diagnosed(planted(quantized, "w3_scale", lambda s: s * 5), model))
    assert (worst.name, worst.kind) == ("three", "weight")
    assert re.search(r"is (5|4\.[89]\d*) times", worst.cause)


def test_a_wrong_bias_is_named_first():
    model = network()
    quantized = planted(int8(model), "b3_quantized", lambda b: b + 20_000)
    worst = first(diagnosed(quantized, model))
    assert (worst.name, worst.kind) == ("three", "bias")
    assert "correct-bias" in worst.fix


def test_a_float_constant_that_was_changed_is_found_too():
    model = transformer_block()
    quantized = QuantizeDynamic()(model, CONTEXT)
    quantized = planted(quantized, "shift", lambda s: s + 1)
    worst = first(diagnosed(quantized, model, normal(model, N=32)))
    assert worst.name.startswith("LayerNormalization")
    assert worst.kind == "bias"


def test_channels_of_unlike_size_need_a_scale_each():
    rows = np.random.default_rng(0).standard_normal((8, 8, 3, 3)).astype(np.float32) / 8
    rows[0] *= 30
    model = network(w2=rows / 8)
    found = diagnosed(int8(model, per_channel=False), model)
    two = next(v for v in found.layers if v.name == "two")
    assert two.kind == "weight"
    assert "a scale for each" in two.cause
    assert "equalize" in two.fix


def test_scores_that_share_the_scale_of_boxes_are_named_first_and_the_fix_fixes_it():
    model = detector()
    shared = detector(
        end="""[join] j = Concat <axis = 1> (boxes, scores)
          [q] q = QuantizeLinear (j, step, zero)
          [dq] y = DequantizeLinear (q, step, zero)"""
    )
    rows = np.random.default_rng(2).standard_normal((24, 3, 32, 32)).astype(np.float32)
    data = Dataset.of_arrays({"x": rows})
    found = diagnosed(shared, model, data)
    assert found.together > 0.3  # no object is left, though the boxes are good
    worst = first(found)
    assert worst.name == "join"
    assert "share one scale" in worst.cause
    excluded = re.search(r"--exclude (\S+)", worst.fix)[1].split(",")
    better = QuantizeStatic(data=data, exclude=tuple(excluded))(model, CONTEXT)
    assert diagnosed(better, model, data).together < 0.01 * found.together


def test_ranges_that_clip_outliers_are_named_and_the_proposed_command_fixes_them():
    rows = np.random.default_rng(3).standard_normal((64, 4, 8, 8)).astype(np.float32)
    rows[::16, :, 3, 3] *= 12  # what is rare carries most of the answer
    model, data = network(), Dataset.of_arrays({"x": rows})
    narrow = QuantizeStatic(data=data, ranges="percentile", percentile=99.0)
    found = diagnosed(narrow(model, CONTEXT), model, data)
    clipping = [v for v in found.worth_fixing if "clip" in v.cause]
    wanted = [re.search(r"--tensor-ranges (\S+)", v.fix)[1] for v in clipping]
    assert wanted
    wider = narrow.with_fields(tensor_ranges=tuple(wanted))(model, CONTEXT)
    assert diagnosed(wider, model, data).together < 0.8 * found.together


def test_layers_are_left_float_with_what_lies_between_them():
    model = graph(
        """g (float[N, 4, 8, 8] x) => (float[N, 4, 8, 8] y) {
          [one] a = Conv <pads = [1, 1, 1, 1]> (x, w1)
          [gate] b = Sigmoid (a)
          [silu] c = Mul (a, b)
          [two] d = Conv <pads = [1, 1, 1, 1]> (c, w2)
          [relu] e = Relu (d)
          [three] f = Conv <pads = [1, 1, 1, 1]> (e, w3)
          [four] g = Conv <pads = [1, 1, 1, 1]> (f, w3)
          [five] y = Conv <pads = [1, 1, 1, 1]> (g, w3)
        }""",
        **dict.fromkeys(("w1", "w2", "w3"), (4, 4, 3, 3)),
    )
    quantized = QuantizeStatic(data=normal(model, N=16))(model, CONTEXT)
    for form in (model, quantized):
        assert float_block(form.graph, {"one", "two"}) == ["one", "gate", "silu", "two"]
        assert float_block(form.graph, {"one"}) == ["one"]


def test_a_sound_model_has_no_range_to_fix_and_its_sensitivities_add_up():
    model = network(outputs=20)  # a signal: errors of few numbers are relative to their spread
    found = diagnosed(int8(model), model, samples=32)
    assert found.together < 1e-3
    assert sum(v.sensitivity for v in found.layers) == pytest.approx(found.together, rel=0.6)
    assert not found.kernels_differ
    assert all("too narrow" not in v.cause for v in found.worth_fixing)
    assert found.notes == ()
    assert found.samples == 32


def test_a_relu_that_the_quantizer_dropped_is_not_an_error():
    """Its convolution's float output is compared behind the Relu, as the integers are."""
    model = network()
    quantized = int8(model)
    assert "Relu" not in {node.op_type for node in quantized.graph}
    one = next(v for v in diagnosed(quantized, model).layers if v.name == "one")
    assert one.alone < 1e-3


def test_a_clip_that_the_quantizer_dropped_is_not_an_error():
    model = graph(
        """g (float[N, 4, 8, 8] x) => (float[N, 8, 8, 8] y) {
          [one] a = Conv <pads = [1, 1, 1, 1]> (x, w1)
          b = Clip (a, zero, six)
          [two] c = Conv <pads = [1, 1, 1, 1]> (b, w2)
          y = Clip (c, zero, six)
        }""",
        w1=np.random.default_rng(0).standard_normal((8, 4, 3, 3)).astype(np.float32),
        w2=(8, 8, 3, 3),
        zero=np.float32(0),
        six=np.float32(6),
    )
    quantized = int8(model)
    assert "Clip" not in {node.op_type for node in quantized.graph}
    found = diagnosed(quantized, model)
    assert found.notes == ()
    assert found.together < 1e-3


def reader(model: Model):
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = [dict(batch.feeds) for batch in normal(model, rows=16).sized(1)]

        def get_next(self):
            return self.left.pop() if self.left else None

    return Reader()


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize("kind", ["QInt8", "QUInt8"])
def test_files_of_onnxruntimes_own_quantizer(form, kind, tmp_path: Path):
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    model = network()
    model.save(tmp_path / "float.onnx")
    quantize_static(
        tmp_path / "float.onnx",
        tmp_path / "int8.onnx",
        reader(model),
        quant_format=QuantFormat[form],
        activation_type=QuantType[kind],
        weight_type=QuantType.QInt8,
        reduce_range=True,
    )
    quantized = Model.load(tmp_path / "int8.onnx")
    sound = diagnosed(quantized, model)
    assert sound.together < 5e-3
    assert sound.notes == ()
    scale = next(n for n in quantized.graph.initializers if n.startswith("w3") and "scale" in n)
    worst = first(diagnosed(planted(quantized, scale, lambda s: s * 4), model))
    # The integers of a bias count in units of the weight's scale, so it is wrong as well.
    assert worst.name.removesuffix("_quant") == "three"
    assert worst.kind in {"weight", "bias"}


@pytest.mark.parametrize("way", ["static", "dynamic"])
def test_integer_operators_of_an_old_opset_are_diagnosed(way, tmp_path: Path):
    """Their opset has no DequantizeLinear with a scale for each channel."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

    proto = network().to_proto()
    proto.opset_import[0].version, proto.ir_version = 11, 6
    (tmp_path / "float.onnx").write_bytes(proto.SerializeToString())
    model, paths = Model.from_proto(proto), (tmp_path / "float.onnx", tmp_path / "int8.onnx")
    options = {"per_channel": True, "reduce_range": True, "weight_type": QuantType.QInt8}
    if way == "static":
        form = QuantFormat.QOperator
        quantize_static(*paths, reader(model), quant_format=form, **options)
    else:
        quantize_dynamic(*paths, **(options | {"weight_type": QuantType.QUInt8}))
    quantized = Model.load(paths[1])
    assert quantized.opset == 11
    found = diagnosed(quantized, model)
    assert 0 < found.together < 0.05
    assert any(layer.name.startswith("head") for layer in found.layers)
    overflows(quantized, normal(model))


def test_dynamic_models_are_judged_by_product():
    model = transformer_block()
    data = normal(model, N=32)
    quantized = QuantizeDynamic()(model, CONTEXT)
    found = diagnosed(quantized, model, data)
    assert {"query", "key", "out"} <= {v.name for v in found.layers}
    assert 0 < found.together < 1e-2
    assert found.notes == ()
    worst = first(diagnosed(planted(quantized, "wo_scale", lambda s: s * 3), model, data))
    assert (worst.name, worst.kind) == ("out", "weight")


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_in_blocks_are_judged(bits):
    model = linear()
    found = diagnosed(QuantizeWeights(bits=bits, block=16, int8=False)(model, CONTEXT), model)
    (only,) = found.layers
    assert only.kind == "weight"
    assert 0 < only.sensitivity < 0.05
    assert found.together == pytest.approx(found.running, rel=0.2)


def test_blocks_of_four_bits_are_read_low_half_first():
    packed = np.array([[[0x10, 0x32]], [[0x98, 0xBA]]], np.uint8)
    got = unpack_nbits(packed, np.array([1, 2], np.float32), None, shape=(2, 3), bits=4, block=4)
    np.testing.assert_array_equal(got, [[-8, -7, -6], [0, 2, 4]])


def test_without_a_baseline_activations_are_judged_and_a_note_says_so():
    model = network()
    found = diagnosed(planted(int8(model), "br_scale", lambda s: s / 10), None)
    assert first(found).name == "two"
    assert first(found).weight_error is None
    assert "weights and biases are not judged" in found.notes[0]


def test_weights_that_were_equalised_before_are_compared_as_they_were_then():
    model = network()
    quantized = int8(Equalize()(model, CONTEXT))
    quantized = planted(quantized, "br_scale", lambda s: s / 10)
    found = diagnosed(quantized, model)
    assert first(found).name == "two"
    assert "taken through equalize first" in found.notes[0]
    assert max(layer.weight_error or 0 for layer in found.layers) < 1e-3


def unlike() -> Model:
    """The network with channels of very unlike size between two and three."""
    rng, factors = np.random.default_rng(0), np.geomspace(0.1, 10, 8, dtype=np.float32)
    w2, w3 = (rng.standard_normal((8, 8, 3, 3)).astype(np.float32) / 8 for _ in range(2))
    return network(w2=w2 * factors.reshape(-1, 1, 1, 1), w3=w3 / factors.reshape(1, -1, 1, 1))


def corrected(model: Model, folder: Path) -> Model:
    """The model equalised, in int8, with corrected biases."""
    prepared = Equalize()(model, CONTEXT)
    prepared.save(folder / "prepared.onnx")
    fields = {"reference": str(folder / "prepared.onnx"), "data": normal(model)}
    return CorrectBias(**fields)(int8(prepared), CONTEXT)


def test_equalised_and_corrected_models_are_blamed_for_rounding_alone(tmp_path: Path):
    model = unlike()
    quantized = corrected(model, tmp_path)
    found = diagnosed(quantized, model)
    judged = [layer for layer in found.layers if layer.weight_error is not None]
    assert len(judged) == 4
    assert max(layer.weight_error for layer in judged) < 1e-3
    assert not any(layer.kind == "bias" for layer in found.worth_fixing)
    assert not any("correct-bias" in layer.fix or "equalize" in layer.fix for layer in judged)
    assert found.together < 0.01


def test_a_broken_bias_of_a_corrected_model_is_still_named_first(tmp_path: Path):
    model = unlike()
    quantized = corrected(model, tmp_path)
    name = next(n for n in quantized.graph.initializers if n.startswith("b3"))
    worst = first(diagnosed(planted(quantized, name, lambda b: b + 30_000), model))
    assert (worst.name, worst.kind) == ("three", "bias")


def test_equalised_weights_without_a_history_are_not_called_wrong():
    model = unlike()
    quantized = dataclasses.replace(int8(Equalize()(model, CONTEXT)), lineage=())
    found = diagnosed(quantized, model)
    assert all(layer.weight_error is None for layer in found.layers)
    assert "activations alone are judged" in found.notes[0]


def test_a_pruned_model_is_judged_for_its_rounding_and_told_what_pruning_costs():
    model = network()
    data = normal(model)
    pruned = PruneChannels(0.5, block=1, repair="none")(model, CONTEXT)
    found = diagnosed(QuantizeStatic(data=data)(pruned, CONTEXT), model, data)
    assert found.together < 0.01
    assert re.search(r"prune-channels came between .* \d+\.\d+% of its size away", found.notes[0])
    same = diagnosed(QuantizeStatic(data=data)(pruned, CONTEXT), pruned, data)
    assert same.notes == ()
    assert max(layer.weight_error or 0 for layer in same.layers) < 1e-3


def test_without_time_a_part_is_asked_and_the_rest_is_told():
    model = network()
    found = diagnosed(int8(model), model, seconds=0.0)
    assert found.samples > 0
    assert found.together > 0
    assert "for want of time" in found.notes[-1]


@pytest.mark.slow
def test_a_baseline_that_is_another_model_is_refused():
    with pytest.raises(InputError, match="does not compute what"):
        diagnosed(int8(network()), network(w1=np.zeros((8, 4, 3, 3), np.float32)))


def test_a_float_model_is_refused():
    with pytest.raises(InputError, match="is not quantized"):
        diagnosed(network(), network())


def test_a_quantized_baseline_is_refused():
    with pytest.raises(InputError, match="is quantized already"):
        diagnosed(int8(network()), int8(network()))


@pytest.mark.slow
def test_memory_is_bounded_and_the_same_data_give_the_same_words(monkeypatch):
    model = network()
    quantized = int8(model)
    whole = diagnosed(quantized, model).to_json()
    assert diagnosed(quantized, model).to_json() == whole
    monkeypatch.setattr(measuring, "CHUNK_BYTES", 40_000)
    sizes: list[int] = []
    original = measuring.run
    monkeypatch.setattr(
        measuring, "run", lambda s, f, *a, **k: sizes.append(len(f["x"])) or original(s, f, *a, **k)
    )
    cut = diagnosed(quantized, model)
    assert max(sizes[1:]) < 8
    assert cut.together == pytest.approx(whole["answer_error"], rel=0.02)


def test_sums_of_sixteen_bits_are_checked_in_any_format(tmp_path: Path):
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    model = network(w2=np.full((8, 8, 3, 3), 0.1, np.float32))
    model.save(tmp_path / "float.onnx")
    options = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    for form in ("QDQ", "QOperator"):
        file = tmp_path / f"{form}.onnx"
        options["quant_format"] = QuantFormat[form]
        quantize_static(tmp_path / "float.onnx", file, reader(model), **options)
        (only, *_) = overflows(Model.load(file), normal(model))
        assert only.node.removesuffix("_quant") == "two"


def test_the_command_names_the_fault_first(tmp_path: Path, capsys):
    model = network()
    model.save(tmp_path / "float.onnx")
    planted(int8(model), "br_scale", lambda s: s / 10).save(tmp_path / "int8.onnx")
    np.savez(tmp_path / "data.npz", **next(iter(normal(model).sized(32))).feeds)
    paths = [str(tmp_path / name) for name in ("int8.onnx", "float.onnx", "data.npz", "out.json")]
    command = ["doctor", paths[0], "--baseline", paths[1], "--data", paths[2], "--no-profile"]
    assert main([*command, "--json", paths[3]]) == 0
    text = capsys.readouterr().out
    assert "two (activation): its range is 3." in text
    assert "fix: calibrate anew" in text
    assert "No 16-bit sum saturates" in text
    made = json.loads(Path(paths[3]).read_text())
    assert made["accuracy"]["layers"][0]["layer"] == "two"
    assert made["overflow"] == []
    assert made["findings"] is not None


def test_a_model_whose_only_output_is_a_class_is_judged_by_what_the_class_is_chosen_from() -> None:
    model = graph(
        """g (float[N, 32] x) => (int64[N] y) {
          [first] a = MatMul (x, w1)  r = Relu (a)  [last] b = MatMul (r, w2)
          p = Softmax (b)  y = ArgMax <axis = 1, keepdims = 0> (p)
        }""",
        w1=(32, 16),
        w2=(16, 4),
    )
    found = diagnose_accuracy(
        QuantizeDynamic()(model, CONTEXT), normal(model), CONTEXT, baseline=model
    )
    assert 0 < found.running < 0.2
    assert len(found.layers) == 2


def test_the_doctor_says_what_weights_alone_need(tmp_path: Path, capsys):
    model = transformer_block()
    data = normal(model, N=32)
    QuantizeWeights()(model, CONTEXT).save(tmp_path / "int4.onnx")
    model.save(tmp_path / "float.onnx")
    np.savez(tmp_path / "d.npz", **next(iter(data)).feeds)
    command = ["doctor", str(tmp_path / "int4.onnx"), "--data", str(tmp_path / "d.npz")]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "MatMulNBits" in told
    assert "Weights alone are quantized; --baseline FLOAT tells" in told
    assert main([*command, "--baseline", str(tmp_path / "float.onnx")]) == 0
    assert "(weight)" in capsys.readouterr().out
