"""Stand-ins for large weights: the quantizer shall write what it writes for the weights."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.target import Target
from trimtab.passes import QuantizeDynamic, QuantizeStatic
from trimtab.passes.quantization.qdq import weight_placeholders as placeholders

RNG = np.random.default_rng(0)


def weight(name: str, *shape: int) -> ir.Value:
    array = RNG.standard_normal(shape).astype(np.float32)
    return ir.val(name, const_value=ir.tensor(array, name=name))


def network() -> Model:
    """Embeddings, two products of which one shares its weight, a Gemm turned around, a Conv."""
    ids = ir.val("ids", ir.DataType.INT64, ["N", 5])
    table, first, head, kernel = (
        weight("table", 19, 8),
        weight("first", 8, 8),
        weight("head", 6, 40),
        weight("kernel", 12, 5, 3),
    )
    constants = [table, first, head, kernel]
    words = ir.node("Gather", [table, ids], name="words")
    one = ir.node("MatMul", [words.outputs[0], first], name="one")
    act = ir.node("Relu", [one.outputs[0]], name="act")
    two = ir.node("MatMul", [act.outputs[0], first], name="two")
    conv = ir.node("Conv", [two.outputs[0], kernel], {"pads": [1, 1]}, name="conv")
    flat = ir.node("Flatten", [two.outputs[0]], name="flat")
    gemm = ir.node("Gemm", [flat.outputs[0], head], {"transB": 1}, name="gemm")
    nodes = [words, one, act, two, conv, flat, gemm]
    for node in nodes:
        node.outputs[0].name = f"{node.name}_out"
    outputs = [conv.outputs[0], gemm.outputs[0]]
    for value, shape in zip(outputs, (["N", 12, 8], ["N", 6]), strict=True):
        value.dtype, value.shape = ir.DataType.FLOAT, ir.Shape(shape)
    graph = ir.Graph(
        [ids], outputs, nodes=nodes, initializers=constants, opset_imports={"": 17}, name="g"
    )
    return Model.from_proto(ir.to_proto(ir.Model(graph, ir_version=8)), "network")


@pytest.fixture
def tiny(monkeypatch):
    """Every weight counts as large."""
    monkeypatch.setattr(placeholders, "LARGE", 1)
    monkeypatch.setattr(placeholders, "LARGE_MODEL", 0)


@pytest.mark.parametrize(
    ("make", "data"),
    [
        (QuantizeDynamic, False),
        (lambda: QuantizeDynamic(per_channel=False, convs=True), False),
        (lambda: QuantizeDynamic(weight="uint8"), False),
        (QuantizeStatic, True),
        (lambda: QuantizeStatic(per_channel=False, scales="mse"), True),
        (lambda: QuantizeStatic(exclude=("two",)), True),
    ],
    ids=["dynamic", "dynamic-tensor", "dynamic-uint8", "static", "static-tensor", "static-but-one"],
)
@pytest.mark.parametrize("target", ["x64-avx2", "x64-avx512-vnni", "arm64"])
def test_writes_the_same_model(request, make, data, target):
    model, ctx = network(), Context(target=Target.named(target))
    if data:
        ids = RNG.integers(0, 19, (16, 5))
        ctx = Context(target=ctx.target, data=Dataset.of_arrays({"ids": ids}))
    plain = make()(model, ctx)
    request.getfixturevalue("tiny")
    made = make()(model, ctx)
    assert made.digest == plain.digest
    assert made.lineage[-1].notes == plain.lineage[-1].notes


@pytest.mark.usefixtures("tiny")
def test_placeholders_have_the_extremes_of_each_channel():
    model = network()
    small, axes = placeholders.add_placeholders(model, gemms=True)
    assert axes == {"table": 1, "first": 1, "head": 0, "kernel": 0}
    weights = model.graph.initializers["kernel"].const_value.numpy()
    placeholder = small.graph.initializers["kernel"].const_value.numpy()
    assert placeholder.shape == (12, 2, 1)
    np.testing.assert_array_equal(placeholder[:, 0, 0], weights.min((1, 2)))
    np.testing.assert_array_equal(placeholder[:, 1, 0], weights.max((1, 2)))
    assert weights.shape == (12, 5, 3)


@pytest.mark.usefixtures("tiny")
def test_a_weight_with_another_reader_gets_no_placeholder():
    model = network()
    first = model.graph.initializers["first"]
    model.graph.append(ir.node("Identity", [first], name="other"))
    assert "first" not in placeholders.add_placeholders(model, gemms=True)[1]
    assert "head" not in placeholders.add_placeholders(model, gemms=False)[1]


def test_small_models_get_no_placeholders():
    model = network()
    assert placeholders.add_placeholders(model, gemms=True) == (model, {})
