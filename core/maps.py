"""Outputs that are maps, as scikit-learn's classifiers give: a list of {class: probability}.

ZipMap makes them, which converters put behind a classifier unless told otherwise. onnx_ir has no
such type and refuses the whole model: here it reads such a value as one of unknown type. While a
model is in memory, the type lies as text beside the value, and a file gets it back. What
onnxruntime returns becomes an array, a column for each key in the order of the keys.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

#: Key of a value's metadata with its type, in base64 of the message.
_KEY = "trimtab.map_type"


def from_proto(proto: onnx.ModelProto) -> ir.Model:
    """Return the graph of a message, as `onnx_ir.from_proto` does, whose outputs may be maps."""
    if any(_has_map(value.type) for value in _values(proto.graph)):
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        proto = copy
        for value in (v for v in _values(proto.graph) if _has_map(v.type)):
            entry = value.metadata_props.add(key=_KEY)
            entry.value = base64.b64encode(value.type.SerializeToString()).decode("ascii")
            value.ClearField("type")
    model: ir.Model = ir.from_proto(proto)
    return model


def with_maps(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a message, changed in place, whose values have the types that `from_proto` kept."""
    for value in _values(proto.graph):
        for at, entry in enumerate(value.metadata_props):
            if entry.key == _KEY:
                value.type.ParseFromString(base64.b64decode(entry.value))
                del value.metadata_props[at]
                break
    return proto


def is_map(value: ir.Value) -> bool:
    """Return whether a value is a map, or a list of maps."""
    return _KEY in value.metadata_props


def as_array(output: Any, *, own: bool = False) -> Any:
    """Return an output of onnxruntime's; of maps an array (N, keys), or (keys,) of one alone.

    With `own` it lies in memory of its own.
    """
    if own and getattr(output, "base", None) is not None:
        return output.copy()
    if isinstance(output, dict):
        return _rows([output])[0]
    if isinstance(output, list) and output and all(isinstance(row, dict) for row in output):
        return _rows(output)
    return output


def _rows(maps: list[dict[Any, Any]]) -> Any:
    keys = sorted(set().union(*maps))
    array = np.array([[row.get(key, 0) for key in keys] for row in maps])
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _has_map(kind: onnx.TypeProto) -> bool:
    while (held := kind.WhichOneof("value")) in {"sequence_type", "optional_type"}:
        kind = getattr(kind, held).elem_type
    return bool(held == "map_type")


def _values(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    yield from (*graph.input, *graph.output, *graph.value_info)
