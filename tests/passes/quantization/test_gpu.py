"""Static int8 for GPUs: the graph that TensorRT takes and fuses, and what CUDA makes of it."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from int8_graphs import chain, graph, normal, residual

from trimtab.core.context import Context
from trimtab.core.model import Model
from trimtab.core.ort.int8_share import written_share
from trimtab.core.ort.session import SessionConfig, build_session
from trimtab.core.target import Target
from trimtab.passes import check
from trimtab.passes.quantization.algorithms.bias_correction import CorrectBias
from trimtab.passes.quantization.static import QuantizeStatic

TENSORRT = Context(target=Target.named("tensorrt"))
CUDA = Context(target=Target.named("cuda"))


def quantized(model: Model, ctx: Context = TENSORRT) -> Model:
    return QuantizeStatic(data=normal(model))(model, ctx)


def producer_type(value: ir.Value | None) -> str:
    node = value.producer() if value is not None else None
    return node.op_type if node is not None else ""


def zero_points(model: Model) -> set[tuple[str, bool]]:
    """Type of each zero point and whether all of it is zero."""
    found = set()
    for node in model.graph:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            tensor = node.inputs[2].const_value
            found.add((tensor.dtype.name, not tensor.numpy().any()))
    return found


@pytest.mark.parametrize("make", [chain, residual])
def test_biases_stay_float_and_zero_points_are_zero(make, tmp_path) -> None:
    model = make()
    after = quantized(model)
    assert zero_points(after) == {("INT8", True)}
    path = str(model.save(tmp_path / "f.onnx"))
    corrected = CorrectBias(data=normal(model), reference=path)(after, TENSORRT)
    assert corrected.lineage[-1].notes["corrected"]
    assert zero_points(corrected) == {("INT8", True)}


def test_no_pair_is_between_a_product_and_its_relu_or_residual_sum() -> None:
    after = quantized(residual())
    relus = [producer_type(node.inputs[0]) for node in after.graph if node.op_type == "Relu"]
    assert relus == ["Conv", "Add"]
    (add,) = [node for node in after.graph if node.op_type == "Add"]
    assert sorted(map(producer_type, add.inputs)) == ["Conv", "DequantizeLinear"]


def test_of_two_products_that_are_added_one_is_rounded() -> None:
    model = graph(
        """g (float[N, 8, 6, 6] x) => (float[N, 8, 6, 6] y) {
          a = Conv (x, w1)
          b = Conv (x, w2)
          s = Add (a, b)
          y = Relu (s)
        }""",
        w1=(8, 8, 1, 1),
        w2=(8, 8, 1, 1),
    )
    (add,) = [node for node in quantized(model).graph if node.op_type == "Add"]
    assert sorted(map(producer_type, add.inputs)) == ["Conv", "DequantizeLinear"]


def test_all_products_are_int8_on_tensorrt_and_none_on_cuda() -> None:
    notes = quantized(residual()).lineage[-1].notes
    assert (notes["int8_share"], notes["leftover_qdq"]) == (1.0, 0)
    notes = quantized(residual(), CUDA).lineage[-1].notes
    assert (notes["int8_share"], notes["int8_ops"]) == (0.0, 0)
    assert notes["leftover_qdq"] > 0


def test_max_drop_leaves_layers_float_on_a_gpu_too() -> None:
    model = residual()
    made = QuantizeStatic(data=normal(model, rows=64), samples=32, max_drop=6e-5, metric="cosine")
    after = made(model, TENSORRT)
    assert zero_points(after) <= {("INT8", True)}
    assert after.lineage[-1].notes["mixed"]["float"]


def test_the_share_of_a_float_model_is_none() -> None:
    assert written_share(residual(), fused=True).int8_share == 0


@pytest.mark.parametrize(("target", "loads"), [("x64-avx512-vnni", 0), ("tensorrt", 1)])
def test_a_graph_that_onnxruntime_optimized_is_not_loaded_again(
    monkeypatch: pytest.MonkeyPatch, target: str, loads: int
) -> None:
    """For a GPU that is absent nothing was loaded: the share is read off the graph."""
    asked: list[Model] = []

    def counting(model: Model, config: SessionConfig) -> object:
        asked.append(model)
        return build_session(model, config)

    monkeypatch.setattr(check, "build_session", counting)
    quantized(chain(), Context(target=Target.named(target)))
    assert len(asked) == loads
