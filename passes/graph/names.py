"""Names of tensors and nodes: new ones that nothing has, repair of those that clash.

A graph in memory is joined by objects and a file by names, so two tensors of one name are right in
memory and wrong in the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from weakref import WeakKeyDictionary

import onnx_ir as ir

from trimtab.core.graphs import subgraphs_of, unique_node_names


class FreeNames:
    """Names that are free in a graph and all its subgraphs, each given out once.

    A name of a subgraph counts as taken in the graph around it: it would hide the outer tensor.
    """

    def __init__(self, graph: ir.Graph) -> None:
        graphs = (graph, *graph.subgraphs())
        self._tensors = {str(v.name) for g in graphs for v in _values(g) if v.name}
        self._nodes = {node.name for node in graph.all_nodes() if node.name}
        self._next: dict[str, int] = {}

    def tensor(self, wanted: str) -> str:
        """Return this name for a tensor, with a number behind it where it is taken."""
        return self._free(wanted, self._tensors)

    def node(self, wanted: str) -> str:
        """Return this name for a node, with a number behind it where it is taken."""
        return self._free(wanted, self._nodes)

    def _free(self, wanted: str, taken: set[str]) -> str:
        name = wanted
        while name in taken:
            count = self._next[wanted] = self._next.get(wanted, 0) + 1
            name = f"{wanted}_{count}"
        taken.add(name)
        return name


#: Free names of a graph, read once: a search for each name is quadratic.
_FREE: WeakKeyDictionary[ir.Graph, FreeNames] = WeakKeyDictionary()


def fresh_name(graph: ir.Graph, base: str) -> str:
    """Return a name that no tensor of the graph and its subgraphs has, and reserve it."""
    if graph not in _FREE:
        _FREE[graph] = FreeNames(graph)
    name = _FREE[graph].tensor(base)
    while name in graph.initializers:  # added by other means since
        name = _FREE[graph].tensor(base)
    return name


def share_names(model: ir.Model) -> None:
    """Let all graphs of a model take their new names from one set: no subgraph hides a tensor."""
    _FREE.update(dict.fromkeys(model.graphs(), FreeNames(model.graph)))


def unique_names(model: ir.Model) -> None:
    """Rename tensors and nodes whose name another has; inputs and outputs of the model keep theirs.

    A tensor of a subgraph that has the name of one outside is renamed too: it would hide that.
    """
    unique_node_names(model.graph.all_nodes())
    interface = [*model.graph.inputs, *model.graph.outputs]
    _rename(model.graph, {str(v.name): v for v in interface}, set())


#: Letters from which on a name is worth shortening.
_LONG = 12


def shorten_names(model: ir.Model, least: float) -> bool:
    """Give short names to nodes and inner tensors, where long ones take so many bytes or more.

    Converters join the paths of all that they fused: names can take half of a small file. Inputs
    and outputs of the model keep theirs.
    """
    graph = model.graph
    values = [v for g in (graph, *graph.subgraphs()) for v in _values(g)]
    interface = {*graph.inputs, *graph.outputs}
    inner = [v for v in values if v not in interface and len(v.name or "") >= _LONG]
    nodes = [node for node in graph.all_nodes() if len(node.name or "") >= _LONG]
    taken = sum(len(v.name or "") * (1 + len(v.uses())) for v in inner)
    if not inner or taken + sum(len(node.name or "") for node in nodes) < least:
        return False
    free = FreeNames(graph)
    for node in nodes:
        node.name = free.node(node.op_type)
    for value in inner:
        value.name = free.tensor("t")
    return True


def _rename(graph: ir.Graph, first: dict[str, ir.Value], outside: set[str]) -> None:
    clashes = []
    for value in _values(graph):
        if not value.name:
            continue
        if value.name in outside or first.setdefault(value.name, value) is not value:
            clashes.append(value)
    taken = outside | set(first)
    for value in clashes:
        base, count = value.name, 1
        while (name := f"{base}_{count}") in taken or name in graph.initializers:
            count += 1
        taken.add(name)
        value.name = name
    for node in graph:
        for inner in subgraphs_of(node):
            _rename(inner, {}, taken)


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield the values that a graph itself defines, once each but for initializers that it lists.

    Those of its subgraphs are not among them.
    """
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def drop_suffix(graph: ir.Graph, suffix: str) -> None:
    """Give weights that were replaced their names again, without the suffix, where these are free.

    Args:
        graph: graph to change in place.
        suffix: what replacements added to the names, once or several times.
    """
    taken = {value.name for node in graph.all_nodes() for value in node.outputs}
    for value in list(graph.initializers.values()):
        name = str(value.name)
        while name.endswith(suffix) and name != suffix:
            name = name.removesuffix(suffix)
        if name not in taken and name not in graph.initializers:
            value.name = name
