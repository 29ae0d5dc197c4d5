"""Protobuf messages of graphs: what belongs into them, and what may stay outside."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir
from numpy.typing import NDArray

from .maps import with_maps

#: A message without the contents of its large initializers, and these by name.
Shell = tuple[bytes, dict[str, NDArray[Any]]]
#: Types of weights that a session can be given as arrays.
_PLAIN_TYPES = frozenset(
    onnx_ir.DataType[name]
    for name in ("FLOAT", "DOUBLE", "FLOAT16", "INT8", "UINT8", "INT16", "UINT16", "INT32", "INT64")
)


def shell_of(model: onnx_ir.Model, least: int) -> Shell:
    """Return a message without what initializers of so many bytes hold, and that by name.

    The message says of them that they lie in a file, which is never read: who loads it has to give
    the arrays as well. Only types that numpy has; weights of subgraphs stay inside.
    """
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, onnx_ir.TensorProtoTensor) and _is_large(tensor, least):
            # It makes a new array at each question: one serves all sessions, and all clones.
            value.const_value = onnx_ir.Tensor(
                tensor.numpy(),
                tensor.dtype,
                shape=onnx_ir.Shape(tensor.shape.numpy()),
                name=tensor.name,
                doc_string=tensor.doc_string,
            )
    shell = model.clone()
    apart = weights_apart(shell, least)
    for name in apart:
        shell.graph.initializers[name].const_value = None
    with_weights_in_memory(shell)
    for name, tensor in apart.items():
        shell.graph.initializers[name].const_value = onnx_ir.ExternalTensor(
            "given",
            0,
            tensor.nbytes,
            tensor.dtype,
            shape=onnx_ir.Shape(tensor.shape.numpy()),
            name=name,
        )
    made = bytes(as_stored(onnx_ir.to_proto(shell)).SerializeToString())
    return made, {name: np.ascontiguousarray(t.numpy()) for name, t in apart.items()}


def weights_apart(model: onnx_ir.Model, least: int) -> dict[str, onnx_ir.TensorProtocol]:
    """Return the weights of so many bytes that a message can do without, by name."""
    apart = {}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        # onnxruntime misses what nothing reads.
        inside = value.is_graph_input() or value.is_graph_output() or not value.uses()
        if tensor is not None and not inside and _is_large(tensor, least):
            apart[name] = tensor
    return apart


def _is_large(tensor: onnx_ir.TensorProtocol, least: int) -> bool:
    """Return whether a weight is of so many bytes, and of a type that numpy has."""
    return tensor.dtype in _PLAIN_TYPES and tensor.nbytes >= least


def has_external_weights(model: onnx_ir.Model) -> bool:
    """Return whether any weight is read from a separate file."""
    return any(
        isinstance(value.const_value, onnx_ir.ExternalTensor)
        for graph in model.graphs()
        for value in graph.initializers.values()
    )


def with_weights_in_memory(model: onnx_ir.Model) -> onnx_ir.Model:
    """Copy weights of separate files into a model, in place; others may be reading these files."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            weight = value.const_value
            if isinstance(weight, onnx_ir.ExternalTensor):
                array = weight.numpy().copy()
                value.const_value = onnx_ir.Tensor(array, weight.dtype, name=weight.name)
    return model


def as_stored(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Restore the types of maps, and remove those of weights, which onnx_ir adds to the file."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    kept = [value for value in proto.graph.value_info if value.name not in weights]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    return with_maps(proto)
