"""Weights stored as `sparse_initializer`: dense in memory, sparse in the file.

onnx_ir drops sparse initializers, most tools ignore them, and onnxruntime makes them dense when it
loads. So the graph in memory and in `Model.to_proto` is always dense, and only the bytes that
`Model.save` writes are sparse, where an entry of the model's metadata asks for it; passes keep it.
A tensor is stored sparse where that is smaller: 12 bytes for each non-zero float against 4 for each
element, that is above 67% zeros. A weight that a later pass makes int8 is stored dense.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from .errors import ModelError
from .text import shape_text

STORE_KEY = "trimtab.store"
_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE}
#: Bytes of a sparse tensor beside its numbers: names, dimensions, lengths.
_OVERHEAD_BYTES = 64
#: Limit of protobuf; a file with a larger dense tensor is refused.
_LARGEST_BYTES = 2**31


def store_sparse(model: ir.Model) -> None:
    """Ask for sparse storage of the model's weights, in place."""
    model.metadata_props[STORE_KEY] = "sparse"
    model.ir_version = max(model.ir_version, 5)  # the first version with sparse_initializer


def stores_sparse(model: ir.Model) -> bool:
    """Return whether the model asks for sparse storage of its weights."""
    return model.metadata_props.get(STORE_KEY) == "sparse"


def sparsify(proto: onnx.ModelProto) -> list[str]:
    """Make initializers sparse where that is smaller, in place; return their names."""
    graph = proto.graph
    listed = {value.name for value in graph.input} | {value.name for value in graph.output}
    made = {t.name: _to_sparse(t) for t in graph.initializer if t.name not in listed}
    sparse = {name: tensor for name, tensor in made.items() if tensor is not None}
    if not sparse:
        return []
    dense = [tensor for tensor in graph.initializer if tensor.name not in sparse]
    # The checker infers a sparse type for them and refuses a value_info of another type.
    infos = [info for info in graph.value_info if info.name not in sparse]
    for field, kept in (("initializer", dense), ("value_info", infos)):
        copies = [type(item).FromString(item.SerializeToString()) for item in kept]
        graph.ClearField(field)
        getattr(graph, field).extend(copies)
    graph.sparse_initializer.extend(sparse.values())
    return list(sparse)


def _to_sparse(tensor: onnx.TensorProto) -> onnx.SparseTensorProto | None:
    if tensor.data_type not in _FLOATS or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return None
    array = onnx.numpy_helper.to_array(tensor)
    # By bits: -0.0 equals zero and must not become 0.0.
    indices = np.flatnonzero(array.reshape(-1).view(f"u{array.itemsize}"))
    size = indices.size * (array.itemsize + 8) + _OVERHEAD_BYTES
    if size >= array.nbytes or not indices.size:
        return None
    values = onnx.numpy_helper.from_array(array.reshape(-1)[indices], tensor.name)
    places = onnx.numpy_helper.from_array(indices.astype(np.int64), f"{tensor.name}_indices")
    return onnx.SparseTensorProto(values=values, indices=places, dims=tensor.dims)


def densify(proto: onnx.ModelProto, folder: Path | None = None) -> onnx.ModelProto:
    """Return the model with dense weights; the same object where it has no sparse ones.

    Sparse are initializers, and the `sparse_value` of Constant nodes, which onnx_ir cannot read.

    The model is not changed; `folder` has its external data.

    Raises:
        ModelError: indices and values of a sparse initializer do not fit its dimensions.
    """
    listed = any(graph.sparse_initializer for graph in graphs_of(proto.graph))
    if not listed and not any(True for _ in _sparse_constants(proto)):
        return proto
    dense = onnx.ModelProto()
    dense.CopyFrom(proto)
    for attribute in list(_sparse_constants(dense)):
        array = _to_dense(attribute.sparse_tensor, folder)
        attribute.CopyFrom(onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(array)))
    for graph in graphs_of(dense.graph):
        for tensor in graph.sparse_initializer:
            array = _to_dense(tensor, folder)
            graph.initializer.append(onnx.numpy_helper.from_array(array, tensor.values.name))
        graph.ClearField("sparse_initializer")
    if listed and all(entry.key != STORE_KEY for entry in dense.metadata_props):
        dense.metadata_props.add(key=STORE_KEY, value="sparse")
    return dense


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield the graph and all subgraphs of its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from graphs_of(inner)


def _sparse_constants(proto: onnx.ModelProto) -> Iterator[onnx.AttributeProto]:
    """Yield the attributes of Constant nodes that are sparse, those of functions included."""
    scopes = [graph.node for graph in graphs_of(proto.graph)]
    scopes += [function.node for function in proto.functions]
    for nodes in scopes:
        for node in nodes:
            if node.op_type == "Constant":
                yield from (a for a in node.attribute if a.HasField("sparse_tensor"))


def _to_dense(tensor: onnx.SparseTensorProto, folder: Path | None) -> NDArray[np.generic]:
    base = str(folder or "")
    values = onnx.numpy_helper.to_array(tensor.values, base).reshape(-1)
    indices = onnx.numpy_helper.to_array(tensor.indices, base)
    shape = tuple(tensor.dims)
    size = math.prod(shape)
    where = f"sparse initializer {tensor.values.name!r}"
    if min(shape, default=0) < 0 or size * values.itemsize > _LARGEST_BYTES:
        raise ModelError(f"its dimensions {shape} are not valid", where=where)
    linear = _linear(indices, shape, where)
    fits = linear.shape == values.shape and (not linear.size or linear.min() >= 0)
    if not fits or (linear.size and linear.max() >= size):
        raise ModelError(
            f"its {linear.size} indices do not fit {values.size} values of shape "
            f"{shape_text(shape)}",
            where=where,
            hint="The file is damaged; export or download it again",
        )
    dense = np.zeros(size, values.dtype)
    dense[linear] = values
    return dense.reshape(shape)


def _linear(indices: NDArray[np.generic], shape: tuple[int, ...], where: str) -> NDArray[np.int64]:
    """Return positions in the flat tensor from those, (n,), or from coordinates, (n, rank)."""
    if indices.ndim == 1:
        return indices.astype(np.int64)
    if indices.ndim != 2 or indices.shape[1] != len(shape):
        raise ModelError(f"its indices have shape {shape_text(indices.shape)}", where=where)
    columns = tuple(indices.astype(np.int64).T)
    for column, size in zip(columns, shape, strict=True):
        if column.size and (column.min() < 0 or column.max() >= size):
            raise ModelError("an index is outside of its dimensions", where=where)
    return np.asarray(np.ravel_multi_index(columns, shape), np.int64)
