"""The rules around every pass: fields are checked, and a broken model is not called a bug."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import trimtab.passes as passes
from trimtab.core.context import Context
from trimtab.core.errors import ModelError, OptionError, PassError
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig
from trimtab.core.target import Target
from trimtab.passes.base import Pass, Rewrite


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("QuantizeStatic", {"ranges": "mze"}),
        ("QuantizeStatic", {"data": 3}),
        ("QuantizeStatic", {"samples": 2.5}),
        ("QuantizeStatic", {"percentile": float("nan")}),
        ("QuantizeDynamic", {"weight": "int7"}),
        ("QuantizeWeights", {"method": "magic"}),
        ("PruneMagnitude", {"scope": "x"}),
        ("PruneChannels", {"ratio": 0.5, "heads": "x"}),
        ("PruneChannels", {"ratio": "0.5"}),
        ("ClusterWeights", {"start": "x"}),
        ("Simplify", {"opset": True}),
        ("Simplify", {"max_growth": "1MB"}),
    ],
)
def test_fields_are_checked_in_python_as_on_the_command_line(
    name: str, fields: dict[str, Any]
) -> None:
    with pytest.raises(OptionError, match=f"field '{list(fields)[-1]}'"):
        getattr(passes, name)(**fields)


def test_numbers_of_numpy_are_numbers() -> None:
    assert passes.PruneChannels(ratio=np.float32(0.5)).ratio == 0.5
    assert passes.Simplify(opset=np.int64(15)).opset == 15


@pytest.mark.parametrize("seed", [-1, 1 << 63])
def test_seeds_are_bounded(seed: int) -> None:
    with pytest.raises(OptionError, match="is not a seed"):
        Context(seed=seed)


@pytest.mark.parametrize("threads", [0, 100_000])
def test_threads_are_bounded(threads: int) -> None:
    for make in (lambda: SessionConfig(threads=threads), lambda: Target("x", threads=threads)):
        with pytest.raises(OptionError, match="threads"):
            make()


@dataclass(frozen=True)
class Nothing(Pass):
    """Change nothing."""

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        return Rewrite(model.ir)


@dataclass(frozen=True)
class Breaks(Pass):
    """Fail as a pass with a bug does."""

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        raise IndexError("list index out of range")


def relu(**attributes: int) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], "r", **attributes)],
        "g",
        [value("x", TensorProto.FLOAT, ["n", 8])],
        [value("y", TensorProto.FLOAT, ["n", 8])],
        [numpy_helper.from_array(np.ones(1, np.float32), "unused")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("step", [Nothing(), Breaks()])
def test_a_broken_model_is_to_blame(step: Pass) -> None:
    with pytest.raises(ModelError, match="a fault of the file") as found:
        step(Model.from_proto(relu(bogus=1), "bad.onnx"))
    assert "bad.onnx" in str(found.value)
    assert "bug" not in str(found.value)


def test_a_pass_that_fails_on_a_good_model_is_to_blame() -> None:
    with pytest.raises(PassError, match="This is a bug of trimtab"):
        Breaks()(Model.from_proto(relu()))


def test_what_the_checker_has_against_the_input_is_not_the_pass_s() -> None:
    """A declared shape that inference contradicts: onnxruntime warns and runs it."""
    proto = relu()
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4
    with pytest.raises(onnx.shape_inference.InferenceError):
        onnx.checker.check_model(proto, full_check=True)
    assert Nothing()(Model.from_proto(proto)).lineage
