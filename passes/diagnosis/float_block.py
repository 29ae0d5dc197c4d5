"""Layers to leave float together: the harmful ones, with what lies between them.

A single float layer between two quantizers gains little where its neighbours round the same values.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable

import onnx_ir as ir

from .attribution import QUANTIZERS

#: Operators on a path between two chosen layers that are left float as well, as those of a SiLU.
BETWEEN = 3


def float_block(graph: ir.Graph, names: Collection[str]) -> list[str]:
    """Return these nodes and those on short paths from one of them to another, in graph order."""
    after = _distances(graph, names, lambda n: (user for v in n.outputs for user, _ in v.uses()))
    before = _distances(graph, names, lambda n: (v.producer() for v in n.inputs if v is not None))
    far = BETWEEN + 1
    chosen = {n for n in graph if after.get(n, far) + before.get(n, far) <= far}
    return [
        str(node.name)
        for node in graph
        if node.op_type not in QUANTIZERS and (node in chosen or node.name in names)
    ]


def _distances(
    graph: ir.Graph,
    names: Collection[str],
    following: Callable[[ir.Node], Iterable[ir.Node | None]],
) -> dict[ir.Node, int]:
    """Return the number of operators from a chosen node to each; quantizers are none."""
    found: dict[ir.Node, int] = {}
    queue = deque((node, 0) for node in graph if node.name in names)
    while queue:
        node, distance = queue.popleft()
        for other in following(node):
            if other is None or other.graph is not graph:
                continue
            length = distance + (other.op_type not in QUANTIZERS)
            if length <= BETWEEN and length < found.get(other, BETWEEN + 1):
                found[other] = length
                queue.append((other, length))
    return found
