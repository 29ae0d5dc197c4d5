"""Names of an ONNX graph: each is made once, and before or beside what reads it."""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from ..errors import ModelError

_HINT = "Export it again; `python -m onnx.checker` shows more"


def check_scopes(proto: onnx.ModelProto, where: str) -> None:
    """Refuse names that are read and never made, or made twice.

    The order of the nodes is left to the reader, which sorts them.

    Raises:
        ModelError: names the tensor and a node.
    """
    _check_graph(proto.graph, frozenset(), where)
    for function in proto.functions:
        at = f"{where}, function {function.name!r}"
        made = _made(function.node, function.input, at)
        _check_nodes(function.node, made, at)
        _check_outputs(function.output, made, at)


def _check_graph(graph: onnx.GraphProto, outer: frozenset[str], where: str) -> None:
    given = dict.fromkeys(v.name for v in graph.input)
    if len(given) < len(graph.input):
        raise ModelError("two of its inputs have one name", where=where, hint=_HINT)
    stored = {t.name for t in graph.initializer}  # of two weights of one name the last counts
    stored |= {t.values.name for t in graph.sparse_initializer}
    made = _made(graph.node, {*given, *stored}, where)
    known = outer | made
    _check_nodes(graph.node, known, where)
    _check_outputs([v.name for v in graph.output], known, where)


def _made(nodes: Iterable[onnx.NodeProto], given: Iterable[str], where: str) -> frozenset[str]:
    """Return the names that are given or made in a scope."""
    made = set(given)
    for node in nodes:
        for name in filter(None, node.output):
            if name in made:
                raise ModelError(
                    f"tensor {name!r} is made twice, the second time by node "
                    f"{node.name!r} ({node.op_type})",
                    where=where,
                    hint=_HINT,
                )
            made.add(name)
    return frozenset(made)


def _check_nodes(nodes: Iterable[onnx.NodeProto], known: frozenset[str], where: str) -> None:
    for node in nodes:
        for name in filter(None, node.input):
            if name not in known:
                raise ModelError(
                    f"node {node.name!r} ({node.op_type}) reads {name!r}, which nothing makes",
                    where=where,
                    hint=_HINT,
                )
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _check_graph(inner, known, where)


def _check_outputs(names: Iterable[str], known: frozenset[str], where: str) -> None:
    for name in names:
        if name not in known:
            raise ModelError(f"nothing makes its output {name!r}", where=where, hint=_HINT)


def sorted_nodes(graph: onnx.GraphProto) -> bool:
    """Return whether each node comes after those whose results it, or a subgraph of it, reads."""
    later = {name for node in graph.node for name in node.output if name}
    for node in graph.node:
        if later.intersection(_read(node)):
            return False
        later.difference_update(node.output)
    return all(
        sorted_nodes(inner)
        for node in graph.node
        for attribute in node.attribute
        for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)
    )


def _read(node: onnx.NodeProto) -> set[str]:
    """Return the names that a node reads, those of its subgraphs included."""
    names = set(node.input)
    for attribute in node.attribute:
        for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            names.update(*(_read(n) for n in inner.node), (v.name for v in inner.output))
            names.difference_update(*(n.output for n in inner.node), (v.name for v in inner.input))
    return names
