"""One-node models, computed by onnxruntime and by the executor."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.passes.base import relative_error
from trimtab.passes.training.torch_graph import to_module


def one_node(
    op: str,
    feeds: dict[str, np.ndarray],
    constants: dict[str, np.ndarray] | None = None,
    *,
    inputs: list[str] | None = None,
    outputs: int = 1,
    opset: int = 18,
    kind: int | None = None,
    **attributes: Any,
) -> Model:
    """A model of one node; `inputs` in the operator's order, "" for one that is left out."""
    constants = constants or {}
    names = inputs if inputs is not None else [*feeds, *constants]
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, results, name="node", **attributes)
    first = next(iter([*feeds.values(), *constants.values()]))
    kind = kind or helper.np_dtype_to_tensor_dtype(first.dtype)
    graph = helper.make_graph(
        [node],
        "one",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in feeds.items()
        ],
        [helper.make_tensor_value_info(n, kind, None) for n in results],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return Model.from_proto(onnx.shape_inference.infer_shapes(proto), op)


def torch_outputs(model: Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    with torch.no_grad():
        made = to_module(model).run({n: torch.from_numpy(a) for n, a in feeds.items()})
    return {name: tensor.numpy() for name, tensor in made.items()}


def agrees(model: Model, feeds: dict[str, np.ndarray], tolerance: float = 1e-4) -> None:
    """The executor gives what onnxruntime gives, in values, shapes and types."""
    expected = run(build_session(model, SessionConfig(level="off")), feeds)
    got = torch_outputs(model, feeds)
    for name, array in expected.items():
        assert got[name].dtype == array.dtype
        assert relative_error(array, got[name]) <= tolerance


def same(op: str, *args: Any, tolerance: float = 1e-4, **kwargs: Any) -> None:
    model = one_node(op, *args, **kwargs)
    agrees(model, args[0], tolerance)


def floats(*shape: int, seed: int = 0, low: float | None = None) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if low is not None:
        return rng.uniform(low, low + 2, shape).astype(np.float32)
    return rng.standard_normal(shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
