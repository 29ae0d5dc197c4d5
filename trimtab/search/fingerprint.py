"""Fingerprint of a model's structure: equal where the same kernels run on the same shapes.

Dense kernels take the same time whatever the values, so of equal structures one is measured. Five
ways to choose ranges make five int8 files and one structure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable

import onnx_ir as ir

from trimtab.core.model import Model

#: Integer constants up to this many elements are shapes, axes and indices: part of the structure.
SHAPE_ELEMENTS = 64


def structure(model: Model) -> str:
    """Hash operators, attributes, wiring, and types and shapes of weights by SHA-256."""
    graph = model.graph
    numbers: dict[str, int] = {}
    values = [*graph.inputs, *graph.initializers.values()]
    values += [v for node in graph for v in node.outputs]
    for value in values:
        numbers.setdefault(value.name or "", len(numbers))
    digest = hashlib.sha256()
    for part in _parts(graph, numbers):
        digest.update(repr(part).encode())
    return digest.hexdigest()


def _parts(graph: ir.Graph, numbers: dict[str, int]) -> Iterable[Hashable]:
    for value in graph.initializers.values():
        yield _weight(value.const_value)
    for node in graph:
        yield (
            node.domain,
            node.op_type,
            tuple(None if v is None else numbers.get(v.name or "") for v in node.inputs),
            tuple(numbers[v.name or ""] for v in node.outputs),
            tuple(sorted((name, str(a.value)) for name, a in node.attributes.items())),
        )
    yield tuple(numbers.get(v.name or "") for v in graph.outputs)


def _weight(tensor: ir.TensorProtocol | None) -> Hashable:
    if tensor is None:
        return None
    plain = (str(tensor.dtype), tuple(map(str, tensor.shape)))
    if tensor.dtype == ir.DataType.INT64 and tensor.size <= SHAPE_ELEMENTS:
        return (*plain, tensor.numpy().tobytes())
    return plain
