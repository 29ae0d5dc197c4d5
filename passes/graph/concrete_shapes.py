"""Concrete shapes of all tensors, by which channels are traced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir import serde

from trimtab.core.errors import RunError
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.inner_outputs import with_only_outputs
from trimtab.core.ort.session import Feeds, SessionConfig, build_session, run

from .queries import is_onnx_op

Shape = tuple[int, ...]
#: Constants of at most so many elements may be shapes, whose values inference needs.
SHAPE_SIZE = 64


@dataclass(frozen=True)
class Shapes:
    """Concrete shapes of the tensors of the main graph, for a few samples.

    Attributes:
        sizes: shapes by name.
        varies: names and axes whose length depends on that of an input.
        samples: number of samples that the sizes are for.
    """

    sizes: Mapping[str, Shape]
    varies: frozenset[tuple[str, int]]
    samples: int


def concrete_shapes(model: Model) -> Shapes:
    """Return the shapes of all tensors, for the sizes that `random_feeds` gives to free dimensions.

    They come from shape inference where it succeeds, else from a run of the model. Two batch sizes
    are compared, to distinguish an axis of channels from one that a batch of one was merged into.
    """
    bones = skeleton(model.ir)
    feeds = [random_feeds(model, batch=batch) for batch in (2, 3)]
    first, second = (_shapes_for(model, bones, each) for each in feeds)
    varies = {
        (name, axis)
        for name, shape in first.items()
        for axis, size in enumerate(shape)
        if len(second.get(name, ())) == len(shape) and second[name][axis] != size
    }
    return Shapes(first, frozenset(varies), _samples(model, feeds[0]))


def _samples(model: Model, feeds: Feeds) -> int:
    """Return the rows of feeds: the size of a free first axis, or else of a fixed one."""
    leading = [(spec.shape[0], feeds[spec.name].shape[0]) for spec in model.inputs if spec.shape]
    free = [size for declared, size in leading if not isinstance(declared, int)]
    return next(iter([*free, *(size for _, size in leading)]), 1)


def _shapes_for(model: Model, bones: onnx.ModelProto, feeds: Feeds) -> dict[str, Shape]:
    known = {name: array.shape for name, array in feeds.items()}
    for value in bones.graph.input:
        if value.name in feeds:
            value.type.tensor_type.shape.CopyFrom(_dims(known[value.name]))
    for name, kind in inferred(bones).items():
        dims = kind.shape.dim
        if kind.HasField("shape") and all(d.HasField("dim_value") for d in dims):
            known.setdefault(name, tuple(d.dim_value for d in dims))
    values = [v for node in model.graph for v in node.outputs if v.name]
    missing = [str(v.name) for v in values if v.name not in known]
    if missing:
        try:
            session = build_session(with_only_outputs(model, missing), SessionConfig(level="off"))
            known |= {n: np.shape(a) for n, a in run(session, feeds, missing).items()}
        except RunError:
            return known  # tensors of unknown shape are pinned, and reported
    return known


def skeleton(model: ir.Model) -> onnx.ModelProto:
    """Return the model for shape inference alone: no weights, no shapes but those of inputs.

    Serializing a graph takes longer than inferring its shapes, and reading it back longer still:
    here weights are reduced to their shapes, and results are read from the protobuf.
    """
    graph = model.graph
    made = onnx.ModelProto(ir_version=max(model.ir_version, 4))
    made.opset_import.extend(
        onnx.OperatorSetIdProto(domain=d, version=v) for d, v in model.opset_imports.items()
    )
    made.graph.name = "skeleton"
    for node in graph:
        proto = serde.serialize_node(node)
        _strip(proto)
        made.graph.node.append(proto)
        if not is_onnx_op(node):  # inference does not know its results
            known = [v for v in node.outputs if v.name and v.dtype]
            made.graph.value_info.extend(map(serde.serialize_value, known))
    for value in graph.inputs:
        if value.name not in graph.initializers:
            made.graph.input.append(serde.serialize_value(value))
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.size > SHAPE_SIZE:
            kind = int(tensor.dtype)
            made.graph.input.add(name=name).type.tensor_type.elem_type = kind
            made.graph.input[-1].type.tensor_type.shape.CopyFrom(_dims(tuple(tensor.shape.numpy())))
        elif tensor is not None:
            made.graph.initializer.append(serde.serialize_tensor(tensor))
            made.graph.initializer[-1].name = name
    for value in graph.outputs:
        given = made.graph.output.add(name=value.name)
        if value.dtype is not None:
            given.type.tensor_type.elem_type = int(value.dtype)
    return made


def _strip(node: onnx.NodeProto) -> None:
    """Drop the shapes inside the subgraphs of a node."""
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            del graph.value_info[:]
            for inner in graph.node:
                _strip(inner)


def _dims(shape: Shape) -> onnx.TensorShapeProto:
    dims = [onnx.TensorShapeProto.Dimension(dim_value=int(d)) for d in shape]
    return onnx.TensorShapeProto(dim=dims)


def inferred(bones: onnx.ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    """Return the element types and shapes that inference finds, by name of tensor."""
    try:
        made = onnx.shape_inference.infer_shapes(bones, data_prop=True)
    except onnx.shape_inference.InferenceError:
        return {}
    values = (*made.graph.value_info, *made.graph.output)
    return {v.name: v.type.tensor_type for v in values if v.type.HasField("tensor_type")}


def infer_again(model: ir.Model) -> None:
    """Infer the shapes of inner tensors again after channels were removed, in place."""
    found = inferred(skeleton(model))
    for node in model.graph:
        for value in node.outputs:
            if value.is_graph_output():
                continue
            kind = found.get(str(value.name))
            value.shape = None
            if kind is not None and kind.HasField("shape"):
                value.shape = ir.Shape([_dim(d) for d in kind.shape.dim])
            if kind is not None and kind.elem_type and value.dtype is None:
                value.dtype = ir.DataType(kind.elem_type)


def _dim(proto: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if proto.HasField("dim_value"):
        return int(proto.dim_value)
    return proto.dim_param or None
