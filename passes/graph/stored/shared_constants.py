"""Equal constants of a model stored once, whichever graphs read them.

Folding writes a constant where it is read: the branches of an If each get their own copy of what
they share, and exporters write tied weights twice.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Array
from trimtab.core.graphs import subgraphs_of

from ..names import FreeNames

#: Bytes of a constant from which on a copy costs more than it is worth.
SMALLEST_COPY = 256


def share_equal_constants(model: ir.Model) -> int:
    """Store equal initializers once, in the innermost graph around all that read them; in place.

    Initializers that a caller may feed, and those that are outputs, stay.

    Returns:
        The bytes that the copies took.
    """
    paths = dict(_paths(model.graph, ()))
    names, saved = FreeNames(model.graph), 0
    for copies in _equal(paths):
        home = _around([paths[value.graph] for value in copies if value.graph is not None])
        kept = next((v for v in copies if v.graph is home), copies[0])
        if kept.graph is not home:
            _move(kept, home, names)
        for value in copies:
            if value is not kept:
                value.replace_all_uses_with(kept)
                _drop(value)
                saved += _bytes(value)
    return saved


def _paths(
    graph: ir.Graph, around: tuple[ir.Graph, ...]
) -> Iterator[tuple[ir.Graph, tuple[ir.Graph, ...]]]:
    """Yield each graph with the graphs around it, the outermost first, itself last."""
    path = (*around, graph)
    yield graph, path
    for node in graph:
        for inner in subgraphs_of(node):
            yield from _paths(inner, path)


def _around(paths: Sequence[tuple[ir.Graph, ...]]) -> ir.Graph:
    """Return the innermost graph that all paths go through."""
    common: list[ir.Graph] = [g[0] for g in zip(*paths, strict=False) if len(set(g)) == 1]
    return common[-1]


def _equal(graphs: dict[ir.Graph, tuple[ir.Graph, ...]]) -> Iterator[list[ir.Value]]:
    """Yield the lists of two or more constants of one type, shape and content."""
    alike: dict[tuple[object, ...], list[ir.Value]] = defaultdict(list)
    for graph in graphs:
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and _is_free(value) and _bytes(value) >= SMALLEST_COPY:
                alike[tensor.dtype, tuple(tensor.shape)].append(value)
    for values in alike.values():
        if len(values) < 2:
            continue
        contents: dict[bytes, list[ir.Value]] = defaultdict(list)
        for value in values:
            contents[_digest(value)].append(value)
        yield from (copies for copies in contents.values() if len(copies) > 1)


def _is_free(value: ir.Value) -> bool:
    return not value.is_graph_input() and not value.is_graph_output()


def _bytes(value: ir.Value) -> int:
    tensor = value.const_value
    return 0 if tensor is None or tensor.dtype == ir.DataType.STRING else tensor.nbytes


def _digest(value: ir.Value) -> bytes:
    assert value.const_value is not None
    array: Array = np.ascontiguousarray(value.const_value.numpy())
    return hashlib.sha256(array.view(np.uint8).data).digest()


def _move(value: ir.Value, home: ir.Graph, names: FreeNames) -> None:
    _drop(value)
    value.name = names.tensor(str(value.name))
    home.register_initializer(value)


def _drop(value: ir.Value) -> None:
    assert value.graph is not None
    del value.graph.initializers[str(value.name)]
