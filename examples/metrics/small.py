"""Small models out of weights that are known, and the report of a metric on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from trimtab import Dataset, Metric, Model, evaluate
from trimtab.core.data import Array
from trimtab.passes import QuantizeStatic


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    weights: Mapping[str, Array],
    **metadata: str,
) -> Model:
    """Return the model of float inputs and outputs of these shapes; N is the batch."""

    def values(shapes: Mapping[str, Sequence[int | str]]) -> list[onnx.ValueInfoProto]:
        kind = onnx.TensorProto.FLOAT
        return [helper.make_tensor_value_info(name, kind, s) for name, s in shapes.items()]

    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "example", values(inputs), values(outputs), tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(made, metadata)
    return Model.from_proto(made)


def shown(metric: Metric, model: Model, data: Dataset, calibration: Dataset) -> dict[str, float]:
    """Evaluate a model and its int8 form by a metric, print both, and return them."""
    small = QuantizeStatic(data=calibration, all_int8=True)(model)
    found: dict[str, float] = {}
    qualities: dict[str, Any] = {
        name: evaluate(m, data, metric, reference=model)
        for name, m in (("float", model), ("int8", small))
    }
    for name, quality in qualities.items():
        error = quality.standard_error
        spread = "" if error is None else f" +- {error:.4f}"
        print(f"{name:6} {quality.metric} {quality.value:.4f}{spread} on {quality.count} items")
        found[name] = quality.value
    lost, error = qualities["int8"].drop_from(qualities["float"])
    print(f"lost   {lost:+.4f}" + ("" if error is None else f" +- {error:.4f} (paired)"))
    return found


def rng() -> np.random.Generator:
    """Return the same random numbers each time."""
    return np.random.default_rng(0)
