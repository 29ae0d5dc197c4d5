"""Advice of the accuracy diagnosis: each command works on the files that it is given for."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graphs import mlp

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.passes import QuantizeDynamic, QuantizeStatic, QuantizeWeights, find
from trimtab.passes.diagnosis.accuracy import diagnose_accuracy
from trimtab.passes.diagnosis.remaking import OF_PAIRS, STATIC, Remaking

X = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)


def data() -> Dataset:
    (name,) = (spec.name for spec in mlp().inputs)
    return Dataset.of_arrays({name: X[:, : mlp().inputs[0].shape[1]]})


MADE = {
    "quantize-static": lambda: QuantizeStatic(data=data())(mlp()),
    "quantize-dynamic": lambda: QuantizeDynamic()(mlp()),
    "quantize-weights": lambda: QuantizeWeights(block=16)(mlp()),
}


@pytest.mark.parametrize("name", MADE)
def test_advice_makes_the_model_again_as_it_was_made_and_names_layers_of_the_float_one(name):
    found = diagnose_accuracy(MADE[name](), data(), Context(), baseline=mlp())
    assert found.again.split()[1] == name
    names = {node.name for node in mlp().graph}
    assert set(found.float_block) <= names
    for layer in found.layers:
        _, *commands = layer.fix.split("trimtab ")
        for command in commands:
            find(command.split()[0])  # it exists
            if "--exclude " in command:
                assert command.split("--exclude ")[1].split()[0].strip(";,") in names
        if name == "quantize-weights":
            assert not any(c.startswith(("quantize-static", "round-weights")) for c in commands)
        if name == "quantize-dynamic":
            assert not any(c.startswith(("round-weights", "correct-bias")) for c in commands)


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_of_4_bits_may_be_compensated_or_take_8(bits: int) -> None:
    model = QuantizeWeights(block=16, bits=bits)(mlp())
    fix = Remaking.of(model).fix("anything")
    assert ("--method gptq" in fix) == ("--bits 8" in fix) == (bits == 4)
    assert "quantize-weights FLOAT -o OUT --exclude" in fix


def test_weights_that_are_only_stored_are_stored_again() -> None:
    node = ir.node("DequantizeLinear", [ir.val("w"), ir.val("s")])
    graph = ir.Graph([], node.outputs, nodes=[node], opset_imports={"": 18})
    assert "compress-weights" in Remaking.of(Model(ir.Model(graph, ir_version=9))).fix("anything")


def test_passes_of_pairs_are_not_advised_for_other_forms() -> None:
    fix = "trimtab round-weights INT8 -o OUT; or trimtab correct-bias INT8 -o OUT"
    kept = Remaking(unusable=OF_PAIRS).fix(fix)
    assert kept == f"leave it float: {STATIC} --exclude {{name}}"
    assert Remaking().fix(fix) == fix
