"""Names for new tensors and nodes that nothing in a model has, in subgraphs or elsewhere."""

from __future__ import annotations

import onnx_ir as ir


class FreeNames:
    """Names of a model, from which new ones differ.

    A tensor inside If, Loop or Scan shares its name space with the graph around it, so the names
    of all graphs count.
    """

    def __init__(self, model: ir.Model) -> None:
        self._values: set[str] = set()
        self._nodes: set[str] = set()
        self._next: dict[str, int] = {}
        for graph in model.graphs():
            self._values.update(value.name or "" for value in graph.inputs)
            self._values.update(graph.initializers)
            for node in graph:
                self._nodes.add(node.name or "")
                self._values.update(value.name or "" for value in node.outputs)

    def value(self, wanted: str) -> str:
        """Return the name for a tensor, with a number where it is taken; it is taken from then."""
        return self._take(wanted, self._values)

    def node(self, wanted: str) -> str:
        """Return the name for a node, with a number where it is taken; it is taken from then."""
        return self._take(wanted, self._nodes)

    def _take(self, wanted: str, taken: set[str]) -> str:
        name = wanted
        while name in taken:
            number = self._next.get(wanted, 0) + 1
            self._next[wanted] = number
            name = f"{wanted}_{number}"
        taken.add(name)
        return name
