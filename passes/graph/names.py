"""Names for new tensors and nodes that nothing else in the model has, subgraphs included."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir


class FreeNames:
    """Names that are free in a graph and all its subgraphs, each given out once.

    A name of a subgraph counts as taken in the graph around it: it would hide the outer tensor.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self._tensors = set(_tensor_names(graph))
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


def _tensor_names(graph: ir.Graph) -> Iterator[str]:
    for part in (graph, *graph.subgraphs()):
        values = [*part.inputs, *part.initializers.values()]
        values += [value for node in part for value in node.outputs]
        yield from (value.name for value in values if value.name)
