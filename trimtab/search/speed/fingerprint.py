"""Fingerprint of a model's structure: equal where the same kernels run on the same shapes.

Dense kernels take the same time whatever the values, so of equal structures one is measured. Five
ways to choose ranges make five int8 files and one structure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable
from dataclasses import replace

import onnx_ir as ir

from trimtab.core.model import Model
from trimtab.core.ort.inventory import package_of
from trimtab.core.ort.session import SessionConfig, optimized_graph
from trimtab.runtime_bench.measure.subject import OnEngine, in_memory

#: Integer constants up to this many elements are shapes, axes and indices: part of the structure.
SHAPE_ELEMENTS = 64


def structure(model: Model) -> str:
    """Hash operators, attributes, wiring, and types and shapes of weights by SHA-256.

    Neither names nor the order in which a file lists nodes and weights make a difference.
    """
    graph = model.graph
    nodes = _in_order_of_use(graph)
    read = [v for node in nodes for v in node.inputs if v is not None]
    weights = [v for v in (*read, *graph.outputs) if v.name in graph.initializers]
    weights += graph.initializers.values()
    numbers: dict[str, int] = {}
    for value in (*graph.inputs, *weights, *(v for node in nodes for v in node.outputs)):
        numbers.setdefault(value.name or "", len(numbers))
    digest = hashlib.sha256()
    for part in _parts(graph, nodes, numbers):
        digest.update(repr(part).encode())
    return digest.hexdigest()


def kernels(subject: Model | OnEngine) -> str:
    """Return a key of the kernels that run: the structure, and the engine with its version."""
    if isinstance(subject, Model):
        return structure(subject)
    package = package_of(subject.engine.provider)
    return f"{structure(in_memory(subject))} on {subject.engine}, {package}"


def running_structure(model: Model, config: SessionConfig) -> str:
    """Hash the structure of the graph that onnxruntime makes of a model when it loads it."""
    return structure(replace(model, ir=optimized_graph(model, config)))


def _in_order_of_use(graph: ir.Graph) -> list[ir.Node]:
    """Return the nodes, each behind its makers, as the outputs reach them; unread ones last."""
    ordered: dict[ir.Node, None] = {}
    makers = [value.producer() for value in graph.outputs]
    for start in (*makers, *graph):
        waiting = [(start, False)]
        while waiting:
            node, seen = waiting.pop()
            if node is None or node in ordered or node.graph is not graph:
                continue
            if seen:
                ordered[node] = None
                continue
            waiting.append((node, True))
            waiting += [(v.producer(), False) for v in reversed(node.inputs) if v is not None]
    return list(ordered)


def _parts(
    graph: ir.Graph, nodes: Iterable[ir.Node], numbers: dict[str, int]
) -> Iterable[Hashable]:
    for name in sorted(graph.initializers, key=numbers.__getitem__):
        yield _weight(graph.initializers[name].const_value)
    for node in nodes:
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
