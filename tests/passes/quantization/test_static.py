from __future__ import annotations

import dataclasses
import logging

import numpy as np
import onnx_ir as ir
import pytest
from int8_graphs import PATTERNS, chain, graph, normal, residual, transformer_block
from shared_data import shared

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, InputError, ModelError, OptionError
from trimtab.core.metric import evaluate
from trimtab.core.model import Model
from trimtab.core.ort.int8_share import int8_share
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.core.target import Target
from trimtab.passes.check import check_model
from trimtab.passes.quantization.auto import QuantizeAuto
from trimtab.passes.quantization.dynamic import QuantizeDynamic
from trimtab.passes.quantization.qdq.prepare import prepare
from trimtab.passes.quantization.static import QuantizeStatic

VNNI = Context(target=Target.named("x64-avx512-vnni"))


def outputs(model: Model, data: Dataset) -> np.ndarray:
    session = build_session(model, SessionConfig.for_evaluation(VNNI.target))
    return np.concatenate([next(iter(run(session, b.feeds).values())) for b in data])


def signal_to_noise(expected: np.ndarray, got: np.ndarray) -> float:
    noise = np.square(expected - got).mean()
    return float(10 * np.log10(np.square(expected).mean() / noise))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_runs_fully_in_int8(pattern):
    model = PATTERNS[pattern]()
    data = normal(model)
    quantized = QuantizeStatic(data=data)(model, VNNI)
    share = int8_share(quantized)
    assert share.float_ops == 0
    assert share.int8_share == 1.0
    # One Q at the input and one DQ at the output: no island of float between.
    assert share.leftover_qdq <= 2
    assert signal_to_noise(outputs(model, data), outputs(quantized, data)) > 25


def test_in_a_transformer_only_products_with_weights_are_int8():
    model = transformer_block()
    data = normal(model)
    quantized = QuantizeStatic(data=data)(model, VNNI)
    share = int8_share(quantized)
    assert sorted(share.float_nodes) == ["mix", "scores"]
    # Their results are float at once: MatMulIntegerToFloat, no requantization.
    assert share.ops["MatMulIntegerToFloat"] == 3
    # One Q for the two products that read h, one for the third; no DQ at all.
    assert (share.leftover_qdq, share.ops.get("DequantizeLinear", 0)) == (2, 0)
    assert signal_to_noise(outputs(model, data), outputs(quantized, data)) > 30
    declined = [name for name, _ in quantized.lineage[-1].notes["declined"]]
    assert sorted(declined) == ["mix", "scores"]


def test_float_readers_get_the_float_tensor():
    model = transformer_block()
    quantized = QuantizeStatic(data=normal(model))(model, VNNI)
    residual_add = next(node for node in quantized.graph if node.op_type == "Add")
    assert [value.name for value in residual_add.inputs] == ["o", "h"]


def test_a_product_that_is_an_output_is_not_rounded():
    model = graph(
        "g (float[N, 16] x) => (float[N, 4] y) { y = Gemm <transB = 1> (x, w, b) }",
        w=(4, 16),
        b=(4,),
    )
    data = normal(model, rows=400)
    quantized = QuantizeStatic(data=data)(model, VNNI)
    assert int8_share(quantized).leftover_qdq == 1
    # Rounded to 256 levels, 1,600 answers could not all differ.
    assert len(np.unique(outputs(quantized, data))) > 1000


def test_the_report_lists_what_runs():
    model = residual()
    notes = QuantizeStatic(data=normal(model))(model, VNNI).lineage[-1].notes
    assert notes["int8_ops"] == 2
    assert notes["float_ops"] == 0
    assert notes["int8_share"] == 1.0
    assert (notes["activation"], notes["weight"]) == ("uint8", "int8")


@pytest.mark.parametrize(
    ("target", "activation", "least"),
    [("x64-avx512-vnni", "UINT8", 127), ("x64-avx2", "UINT8", 64), ("arm64", "INT8", 127)],
)
def test_types_come_from_the_target(target, activation, least):
    model = chain()
    quantized = QuantizeStatic(data=normal(model))(model, Context(target=Target.named(target)))
    zero_point = quantized.graph.initializers["x_zero_point"].const_value
    weight = quantized.graph.initializers["w1_quantized"].const_value.numpy()
    assert zero_point.dtype.name == activation
    assert weight.dtype == np.int8
    assert least <= np.abs(weight.astype(int)).max() <= 127


def test_weights_are_quantized_per_channel_or_per_tensor():
    model = chain()
    data = normal(model)
    scales = [
        QuantizeStatic(data=data, per_channel=yes)(model, VNNI)
        .graph.initializers["w1_scale"]
        .shape.numpy()
        for yes in (True, False)
    ]
    assert scales == [(16,), ()]


def test_the_models_own_data_are_the_default():
    model = chain()
    context = dataclasses.replace(VNNI, data=normal(model))
    assert int8_share(QuantizeStatic()(model, context)).float_ops == 0


def test_without_data_is_an_error():
    with pytest.raises(DataError, match="needs data"):
        QuantizeStatic()(chain(), VNNI)


def test_samples_are_evenly_spaced():
    model = chain()
    notes = QuantizeStatic(data=normal(model, rows=30), samples=10)(model, VNNI).lineage[-1].notes
    assert notes["samples"] == 10


def test_excluded_nodes_stay_float_and_are_listed():
    model = graph(
        """g (float[N, 8, 12, 12] x) => (float[N, 8, 12, 12] y) {
          [first] a = Conv <pads = [1, 1, 1, 1]> (x, w1)
          [second] y = Conv <pads = [1, 1, 1, 1]> (a, w2)
        }""",
        w1=(8, 8, 3, 3),
        w2=(8, 8, 3, 3),
    )
    quantized = QuantizeStatic(data=normal(model), exclude=("sec*",))(model, VNNI)
    share = int8_share(quantized)
    assert (share.int8_ops, share.float_nodes) == (1, ("second",))
    assert ["second", "excluded by the user"] in quantized.lineage[-1].notes["declined"]


def test_a_pattern_without_match_names_the_nearest():
    model = graph("g (float[N, 4] x) => (float[N, 4] y) { [dense_1] y = MatMul (x, w) }", w=(4, 4))
    with pytest.raises(OptionError, match="Did you mean 'dense_1'"):
        QuantizeStatic(data=normal(model), exclude=("dense1",))(model, VNNI)


@pytest.mark.parametrize("make", [QuantizeStatic, QuantizeDynamic])
def test_a_quantized_model_is_refused(make):
    model = chain()
    data = normal(model)
    quantized = QuantizeStatic(data=data)(model, VNNI)
    with pytest.raises(InputError, match="is quantized already"):
        make()(quantized, dataclasses.replace(VNNI, data=data))


def test_an_operator_that_onnx_cannot_convert_is_named():
    model = graph(
        "g (float[N, 4] x) => (float[N, 4] y) { a = Nonsense (x)  y = MatMul (a, w) }", w=(4, 4)
    )
    model.ir.opset_imports[""] = 11
    with pytest.raises(ModelError, match=r"opset 11.*Nonsense"):
        prepare(model)


def test_a_model_without_products_is_refused():
    model = graph("g (float[N, 4] x) => (float[N, 4] y) { y = Exp (x) }")
    with pytest.raises(DataError, match="nothing to quantize"):
        QuantizeStatic(data=normal(model))(model, VNNI)


def test_a_clip_that_excludes_zero_keeps_its_bounds():
    # The quantizer drops a Clip for the int8 range's sake, and that range always holds zero.
    model = graph(
        """g (float[N, 4, 6, 6] x) => (float[N, 4, 6, 6] y) {
          a = Conv <pads = [1, 1, 1, 1]> (x, w)
          y = Clip (a, low, high)
        }""",
        w=(4, 4, 3, 3),
        low=np.float32(1),
        high=np.float32(2),
    )
    data = normal(model)
    assert outputs(QuantizeStatic(data=data)(model, VNNI), data).min() >= 0.99


def test_weights_in_constant_nodes_are_quantized_per_channel():
    rng = np.random.default_rng(0)
    values = ", ".join(f"{v:.3f}" for v in rng.standard_normal(4 * 4))
    model = graph(
        f"""g (float[N, 4, 6, 6] x) => (float[N, 4, 6, 6] y) {{
          w = Constant <value = float[4, 4, 1, 1] {{{values}}}> ()
          y = Conv (x, w)
        }}"""
    )
    quantized = QuantizeStatic(data=normal(model))(model, VNNI)
    assert tuple(quantized.graph.initializers["w_scale"].shape.numpy()) == (4,)
    assert int8_share(quantized).float_ops == 0


def test_constant_and_dead_tensors_are_quantized():
    model = graph(
        """g (float[N, 4, 6, 6] x) => (float[N, 4, 6, 6] y) {
          a = Conv (x, w1, b1)
          r = Relu (a)
          y = Conv (r, w2, b2)
        }""",
        w1=np.zeros((4, 4, 1, 1), np.float32),
        b1=np.full(4, -1, np.float32),
        w2=(4, 4, 1, 1),
        b2=np.arange(4, dtype=np.float32),
    )
    data = normal(model)
    quantized = QuantizeStatic(data=data)(model, VNNI)
    np.testing.assert_allclose(outputs(quantized, data), outputs(model, data), atol=0.02)


def test_nothing_is_logged(caplog, capfd):
    model = chain()
    with caplog.at_level(logging.DEBUG):
        QuantizeStatic(data=normal(model))(model, VNNI)
        QuantizeDynamic()(model, VNNI)
    assert not [r for r in caplog.records if r.levelno >= logging.INFO]
    assert capfd.readouterr().err == ""


def test_a_tensor_has_a_range_method_of_its_own():
    model = chain()
    rows = np.concatenate([b.feeds["x"] for b in normal(model)])
    rows.flat[0] = 50.0  # which percentiles clip
    data = Dataset.of_arrays({"x": rows})

    def steps(**fields):
        step = QuantizeStatic(data=data, ranges="percentile", percentile=99.0, **fields)
        made = step(model, VNNI).graph.initializers
        return {
            n: float(v.const_value.numpy())
            for n, v in made.items()
            if n.endswith("_scale") and v.const_value.size == 1
        }

    plain, own = steps(), steps(tensor_ranges=("x=minmax",))
    assert own["x_scale"] > 2 * plain["x_scale"]
    assert own | {"x_scale": 0} == plain | {"x_scale": 0}


@pytest.mark.parametrize(
    "given",
    ["x", "=minmax", "x=max", "y.*=minmax"],
    ids=["no method", "no name", "typo", "nothing"],
)
def test_range_methods_of_single_tensors_are_checked(given):
    with pytest.raises(OptionError, match="tensor_ranges"):
        QuantizeStatic(data=normal(chain()), tensor_ranges=(given,))(chain(), VNNI)


@pytest.mark.parametrize("field", [{"samples": 0}, {"percentile": 20.0}])
def test_meaningless_fields_are_refused(field):
    with pytest.raises(OptionError):
        QuantizeStatic(**field)


@pytest.mark.slow
def test_resnet20_runs_fully_in_int8_and_keeps_its_outputs():
    model = Model.load(shared("data/resnet20.onnx"))
    data = normal(model, rows=32)
    quantized = QuantizeStatic(data=data)(model, VNNI)
    share = int8_share(quantized)
    # Its 20 layers, and the two shortcuts that became convolutions.
    assert (share.int8_ops, share.float_ops, share.leftover_qdq) == (22, 0, 1)
    agree = outputs(model, data).argmax(1) == outputs(quantized, data).argmax(1)
    assert agree.mean() > 0.8


def test_products_inside_subgraphs_stay_float_and_are_listed():
    model = graph(
        """g (float[N, 8] x, bool c) => (float[N, 8] y) {
          [outer] a = MatMul (x, w)
          y = If (c) <
            then_branch = t () => (float[N, 8] p) { [inner] p = MatMul (a, v) },
            else_branch = e () => (float[N, 8] q) { q = Identity (a) }
          >
        }""",
        w=(8, 8),
        v=(8, 8),
    )
    rows = np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)
    data = Dataset.of_batches(lambda: [{"x": rows, "c": np.array(True)}])
    quantized = QuantizeStatic(data=data)(model, VNNI)
    assert ["inner", "is inside a subgraph"] in quantized.lineage[-1].notes["declined"]
    assert signal_to_noise(outputs(model, data), outputs(quantized, data)) > 25


def test_weights_that_are_fed_beside_the_rows_are_not_cut_with_them():
    model = graph(
        """g (float[N, 3, 6, 6] x, float[4, 3, 3, 3] k) => (float[N, 2, 4, 4] y) {
          c = Conv (x, k)
          y = Conv (c, w)
        }""",
        w=(2, 4, 1, 1),
    )
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((4, 3, 3, 3), np.float32)
    rows = [{"x": rng.standard_normal((4, 3, 6, 6), np.float32), "k": kernel} for _ in range(4)]
    data = Dataset.of_batches(lambda: iter(rows))
    quantized = QuantizeStatic(data=data)(model, VNNI)
    assert signal_to_noise(outputs(model, data), outputs(quantized, data)) > 25
    with pytest.raises(DataError, match="its first axis has a fixed size"):
        QuantizeStatic(data=Dataset.of_arrays(rows[0]))(model, VNNI)


@pytest.mark.parametrize("way", ["static", "auto", "dynamic"])
@pytest.mark.parametrize("kind", ["float16", "double"])
def test_layers_of_another_float_type_become_int8_and_ends_stay(kind, way):
    rng, dtype = np.random.default_rng(0), {"float16": np.float16, "double": np.float64}[kind]
    model = graph(
        f"""g ({kind}[N, 64] x) => ({kind}[N, 32] y, {kind}[N, 64] a) {{
          a = Relu (x)
          b = MatMul (a, w)
          y = MatMul (b, v)
        }}""",
        w=(rng.standard_normal((64, 64)) / 8).astype(dtype),
        v=(rng.standard_normal((64, 32)) / 8).astype(dtype),
    )
    data = Dataset.of_arrays({"x": rng.standard_normal((64, 64)).astype(dtype)})
    steps = {"static": QuantizeStatic, "auto": QuantizeAuto}
    step = steps[way](data=data) if way in steps else QuantizeDynamic()
    made = step(model, VNNI)
    assert (made.inputs, made.outputs) == (model.inputs, model.outputs)
    assert made.size_bytes < model.size_bytes * 0.75
    assert evaluate(made, data, "fidelity", reference=model).value > 0.97
    check_model(made, way)


def test_double_beside_layers_of_float_stays():
    model = graph(
        """g (float[N, 16] x) => (double[N, 4] y) {
          a = MatMul (x, w)
          d = Cast <to = 11> (a)
          y = Mul (d, s)
        }""",
        w=(16, 4),
        s=np.array([1.0 + 1e-12]),
    )
    made = QuantizeStatic(data=normal(model))(model, VNNI)
    assert made.graph.initializers["s"].dtype == ir.DataType.DOUBLE


def test_tied_weights_stay_one():
    model = graph(
        """g (float[N, 8] x) => (float[N, 8] y) {
          a = MatMul (x, w)
          b = Relu (a)
          y = MatMul (b, w)
        }""",
        w=(8, 8),
    )
    data = normal(model)
    quantized = QuantizeStatic(data=data)(model, VNNI)
    assert sum("w_quantized" in name for name in quantized.graph.initializers) == 1
    assert signal_to_noise(outputs(model, data), outputs(quantized, data)) > 25
