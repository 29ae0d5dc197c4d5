"""Models and data that quantizers stumble over: mended, left float and said so, or refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from heard import Heard
from int8_graphs import chain, graph, linear, normal

from trimtab.cli import main
from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, ModelError
from trimtab.core.metric import evaluate
from trimtab.core.model import Model
from trimtab.core.ort.int8_share import int8_share
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.core.target import Target
from trimtab.passes.quantization.auto import QuantizeAuto
from trimtab.passes.quantization.static import QuantizeStatic

VNNI = Context(target=Target.named("x64-avx512-vnni"))
EXACT = SessionConfig.for_evaluation(VNNI.target)


def first_output(model: Model, data: Dataset) -> np.ndarray:
    session = build_session(model, EXACT)
    return np.concatenate([next(iter(run(session, b.feeds).values())) for b in data])


def error(quantized: Model, model: Model, data: Dataset) -> float:
    """Root of the squared error, relative to the answer's size."""
    expected, got = first_output(model, data), first_output(quantized, data)
    return float(np.sqrt(np.square(got - expected).mean() / np.square(expected).mean()))


def dead() -> tuple[Model, Dataset]:
    """One channel's values are constant, and one branch is always zero."""
    model = graph(
        """g (float[N, 4, 6, 6] x) => (float[N, 4, 6, 6] y) {
          a = Conv <pads = [1, 1, 1, 1]> (x, w1, low)
          b = Relu (a)
          c = Conv <pads = [1, 1, 1, 1]> (b, w2, b2)
          d = Conv <pads = [1, 1, 1, 1]> (x, w3)
          y = Add (c, d)
        }""",
        w1=(4, 4, 3, 3),
        low=np.full(4, -1e3, np.float32),
        w2=(4, 4, 3, 3),
        b2=np.full(4, 0.5, np.float32),
        w3=(4, 4, 3, 3),
    )
    return model, normal(model)


def outlier() -> tuple[Model, Dataset]:
    """One value is a thousand times as large as all the others."""
    model = chain()
    x = np.concatenate([b.feeds["x"] for b in normal(model, rows=64)])
    x[5, 3, 2, 1] = 3000
    return model, Dataset.of_arrays({"x": x})


def tied() -> tuple[Model, Dataset]:
    """Two products share a weight."""
    model = graph(
        """g (float[N, 16] x) => (float[N, 16] y) {
          a = MatMul (x, w)
          b = Relu (a)
          y = MatMul (b, w)
        }""",
        w=(16, 16),
    )
    return model, normal(model)


def empty_weight() -> tuple[Model, Dataset]:
    """A product with no outputs, joined to another one."""
    model = graph(
        """g (float[N, 8] x) => (float[N, 6] y) {
          a = MatMul (x, none)
          b = MatMul (x, w)
          y = Concat <axis = 1> (a, b)
        }""",
        none=np.zeros((8, 0), np.float32),
        w=(8, 6),
    )
    return model, normal(model)


def branches() -> tuple[Model, Dataset]:
    """Products before an If and one in each of its branches."""
    model = graph(
        """g (float[N, 8] x) => (float[N, 8] y) {
          [before] b = MatMul (x, w)
          [again] a = MatMul (b, w)
          s = ReduceSum <keepdims = 0> (a)
          c = Greater (s, zero)
          y = If (c) <then_branch = t () => (float[N, 8] p) { [yes] p = MatMul (a, w2) },
                      else_branch = e () => (float[N, 8] q) { [no] q = MatMul (a, w3) }>
        }""",
        w=(8, 8),
        w2=(8, 8),
        w3=(8, 8),
        zero=np.array(0, np.float32),
    )
    return model, normal(model).sized(1)


@pytest.mark.parametrize(
    ("make", "allowed"), [(dead, 0.1), (tied, 0.05), (empty_weight, 0.05), (branches, 0.1)]
)
def test_is_quantized_with_outputs_close_to_float(make, allowed):
    model, data = make()
    quantized = QuantizeStatic(data=data)(model, VNNI)
    assert int8_share(quantized).int8_ops
    assert error(quantized, model, data) < allowed


def test_products_inside_subgraphs_stay_float_and_are_listed():
    model, data = branches()
    declined = dict(QuantizeStatic(data=data)(model, VNNI).lineage[-1].notes["declined"])
    assert declined["yes"] == declined["no"] == "is inside a subgraph"


@pytest.mark.slow
def test_one_enormous_value_does_not_take_the_levels_of_all_others():
    model, data = outlier()
    usual = normal(model, rows=32, seed=3)
    spoilt = error(QuantizeStatic(data=data, ranges="minmax")(model, VNNI), model, usual)
    searched = QuantizeAuto(data=data, samples=48)(model, VNNI)
    assert error(searched, model, usual) < 0.3 * spoilt


@pytest.mark.parametrize(("rows", "warns"), [(7, True), (8, False)])
def test_fewer_than_eight_samples_are_reported(rows, warns):
    heard = Heard()
    model = linear()
    ctx = dataclasses.replace(VNNI, progress=heard, data=normal(model, rows=rows))
    QuantizeStatic()(model, ctx)
    assert any("Only 7 samples" in text for text in heard.said) is warns


def test_no_samples_are_refused():
    with pytest.raises(DataError, match="no rows"):
        QuantizeStatic(data=normal(linear(), rows=8).select(np.arange(0), "none"))(linear(), VNNI)


def test_a_batch_of_another_shape_is_named_by_its_position():
    def batches() -> Iterator[dict[str, np.ndarray]]:
        for index in range(4):
            width = 11 if index == 2 else 12
            yield {"x": np.ones((2, 8, 12, width), np.float32)}

    model = graph(  # which needs its width, unlike a convolution
        """g (float[N, 8, 12, W] x) => (float[N, 8, 12, 4] y) {
          a = MatMul (x, w)
          y = MatMul (a, v)
        }""",
        w=(12, 4),
        v=(4, 4),
    )
    with pytest.raises(DataError, match=r"batch 2: the model refuses it .*11\]"):
        QuantizeStatic(data=Dataset.of_batches(batches))(model, VNNI)


def halves(opset: int) -> Model:
    proto = chain().to_proto()
    for tensor in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    del proto.graph.value_info[:]
    proto.opset_import[0].version = opset
    return Model.from_proto(proto, "halves")


def test_a_float16_model_of_an_old_opset_is_quantized_in_float32():
    x = np.random.default_rng(0).normal(size=(8, 8, 12, 12)).astype(np.float16)
    data, model = Dataset.of_arrays({"x": x}), halves(17)
    made = QuantizeStatic(data=data)(model, VNNI)
    assert int8_share(made).int8_share == 1.0
    assert (made.inputs, made.outputs) == (model.inputs, model.outputs)
    quality = evaluate(made, data, "fidelity", reference=model)
    assert quality.value > 0.98
    assert quality.outputs[0].loss < 1e-2


def test_float16_in_a_sequence_is_refused_with_a_hint():
    proto = halves(17).to_proto()
    end = proto.graph.output[0].name
    proto.graph.node.append(onnx.helper.make_node("SequenceConstruct", [end], ["s"], "parts"))
    kind = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT16, None)
    kind = onnx.helper.make_sequence_type_proto(kind)
    proto.graph.output.append(onnx.helper.make_value_info("s", kind))
    x = np.zeros((8, 8, 12, 12), np.float16)
    with pytest.raises(ModelError, match=r"float16.*Quantize the float32 model"):
        QuantizeStatic(data=Dataset.of_arrays({"x": x}))(Model.from_proto(proto), VNNI)


def test_an_old_opset_is_raised_by_the_command_and_by_the_pass(tmp_path):
    proto = chain().to_proto()
    proto.opset_import[0].version = 11
    old = Model.from_proto(proto, "old")
    made = QuantizeStatic(data=normal(old))(old, VNNI)
    assert (made.opset, int8_share(made).int8_share) == (13, 1.0)
    np.savez(tmp_path / "d.npz", **next(iter(normal(old))).feeds)
    source, out = str(old.save(tmp_path / "old.onnx")), tmp_path / "o.onnx"
    options = ["--data", str(tmp_path / "d.npz"), "--mode", "static"]
    assert main(["quantize", source, "-o", str(out), *options]) == 0
    assert int8_share(Model.load(out)).int8_share == 1.0


def test_a_model_too_large_for_one_proto_goes_through_files_with_equal_outputs(
    tmp_path, monkeypatch
):
    model = tied()[0]
    data = normal(model)
    usual = QuantizeStatic(data=data)(model, VNNI)
    limit = (model.weight_bytes + usual.weight_bytes) // 2  # the int8 model is a small one again
    for module in ("core.model", "core.ort.session"):
        monkeypatch.setattr(f"trimtab.{module}.EXTERNAL_DATA_BYTES", limit)
    source = model.save(tmp_path / "float.onnx")
    assert (tmp_path / "float.onnx.data").stat().st_size > limit
    large = QuantizeStatic(data=data)(Model.load(source), VNNI)
    np.testing.assert_array_equal(first_output(large, data), first_output(usual, data))
