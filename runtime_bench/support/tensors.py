"""Graph that a provider is asked about, with the types and shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx_ir as ir

from trimtab.core.errors import RunError
from trimtab.core.graphs import unique_node_names
from trimtab.core.model import Model
from trimtab.core.ort.inner_outputs import with_untyped_outputs
from trimtab.core.ort.session import Feeds, SessionConfig, build_session, optimized_graph, run

Shape = tuple[int, ...]


@dataclass(frozen=True)
class PlacedGraph:
    """Graph as a provider sees it: onnxruntime's basic optimizations are done before it is asked.

    Attributes:
        model: the graph, with the sizes of the feeds and a name for each node.
        types: element types by name of tensor.
        shapes: shapes by name of tensor; those that are not known are left out.
        free: inputs with free dimensions in the file, as "x: batch, width".
    """

    model: Model
    types: Mapping[str, ir.DataType]
    shapes: Mapping[str, Shape]
    free: tuple[str, ...]


def placed_graph(model: Model, feeds: Feeds) -> PlacedGraph:
    """Return the graph that providers are asked about, for inputs of the sizes of the feeds.

    Raises:
        RunError: onnxruntime refuses the model.
    """
    fixed = model.clone()
    free = []
    for value in fixed.graph.inputs:
        sizes = value.shape
        open_ends = [str(d) for d in sizes if not isinstance(d, int)] if sizes is not None else []
        if open_ends or sizes is None:
            free.append(f"{value.name}: {', '.join(open_ends) or 'all'}")
        if value.name is not None and value.name in feeds:
            value.shape = ir.Shape(feeds[value.name].shape)
    for value in fixed.graph.outputs:
        value.shape = None  # sizes of the file may be those of other inputs
    unique_node_names(fixed.graph.all_nodes(), empty=True)
    try:
        basic = replace(fixed, ir=optimized_graph(fixed, SessionConfig(level="basic")))
    except RunError:  # a branch that never runs at these sizes may not have them
        basic = replace(model, ir=optimized_graph(model, SessionConfig(level="basic")))
    unique_node_names(basic.graph.all_nodes(), empty=True)
    types, shapes = _known(basic, feeds)
    return PlacedGraph(basic, types, shapes, tuple(free))


def _known(basic: Model, feeds: Feeds) -> tuple[dict[str, ir.DataType], dict[str, Shape]]:
    """Return types and shapes by inference, and by a run where it finds none."""
    types: dict[str, ir.DataType] = {}
    shapes: dict[str, Shape] = {}
    for name, value in basic.graph.initializers.items():
        if value.const_value is not None:
            types[name] = value.const_value.dtype
            shapes[name] = tuple(value.const_value.shape.numpy())
    for name, kind in _inferred(basic).items():
        types[name] = ir.DataType(kind.elem_type)
        dims = kind.shape.dim
        if kind.HasField("shape") and all(d.HasField("dim_value") for d in dims):
            shapes[name] = tuple(d.dim_value for d in dims)
    made = [v.name for node in basic.graph for v in node.outputs if v.name]
    missing = [name for name in made if name not in types or name not in shapes]
    try:
        asked = with_untyped_outputs(basic, missing)
        session = build_session(asked, SessionConfig(level="off").for_one_run(basic))
        arrays = run(session, feeds, missing)
    except RunError:
        return types, shapes  # rules that need them then count as met
    for name, array in arrays.items():
        if isinstance(array, np.ndarray):
            types[name], shapes[name] = ir.DataType.from_numpy(array.dtype), array.shape
    return types, shapes


def _inferred(basic: Model) -> dict[str, onnx.TypeProto.Tensor]:
    try:
        made = onnx.shape_inference.infer_shapes(ir.to_proto(basic.ir), data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError):  # above 2 GB
        return {}
    values = (*made.graph.input, *made.graph.value_info, *made.graph.output)
    return {v.name: v.type.tensor_type for v in values if v.type.HasField("tensor_type")}
