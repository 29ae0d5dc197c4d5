"""Runs of a model that give its inner tensors part by part, so that few are in memory at a time.

The inner tensors of one row of a picture take hundreds of megabytes. So the graph is cut where what
is wanted of it exceeds a limit, and each part runs on what the parts before it left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from trimtab.core.graphs import subgraphs_of
from trimtab.core.model import Model
from trimtab.core.ort.inner_outputs import with_only_outputs
from trimtab.core.ort.repeated_runs import RepeatedRuns
from trimtab.core.ort.session import Feeds, Level, Outputs, SessionConfig, build_session, run

from .constants import captured
from .partial_run import constant_nodes, part_between

#: Bytes of the wanted tensors of a part.
PART_BYTES = 32 << 20


@dataclass(eq=False)
class _Part:
    """A stretch of the graph.

    Attributes:
        nodes: its nodes.
        wanted: tensors of it that are asked for.
        made: tensors of it that later parts read.
        kept: names of all tensors that later parts read, `made` among them.
        run: function that runs it, from the first run on.
    """

    nodes: list[ir.Node] = field(default_factory=list)
    wanted: list[str] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)
    run: Callable[[Feeds], Outputs] | None = None


class RunsInParts:
    """Runs of a model on one batch after the other.

    Args:
        model: model whose nodes are in topological order; it must not change.
        tensors: names of the inner tensors that are wanted.
        sizes: their bytes in a run, as `inner_bytes` tells them.
        level: graph optimization level.
    """

    def __init__(
        self, model: Model, tensors: Sequence[str], sizes: Mapping[str, int], level: Level
    ) -> None:
        self._model, self._config = model, SessionConfig.for_inner_tensors(level)
        self._small = sum(sizes.values()) <= PART_BYTES
        self._parts = [_Part(wanted=list(tensors))]
        if not self._small and _divisible(model.graph):
            self._parts = _parts(model.graph, set(tensors), sizes)

    def run(self, feeds: Feeds) -> Iterator[Outputs]:
        """Yield the wanted tensors of each part, in a dictionary that is emptied after its turn.

        The arrays are valid while their batch is run, and the next.

        Raises:
            RunError: onnxruntime refuses the feeds, or fails.
        """
        known = dict(feeds)
        for part in self._parts:
            part.run = part.run or self._opened(part, known)
            arrays = part.run(known)
            known = {name: arrays[name] if name in arrays else known[name] for name in part.kept}
            found = {name: arrays[name] for name in part.wanted}
            del arrays
            yield found
            found.clear()

    def _opened(self, part: _Part, known: Feeds) -> Callable[[Feeds], Outputs]:
        """Return the function that runs a part on the tensors that are known, or more of them."""
        names = [*part.wanted, *(name for name in part.made if name not in part.wanted)]
        alone = len(self._parts) == 1
        model = up_to(self._model, names) if alone else part_between(self._model, known, names)
        session = build_session(model, self._config)
        fed = [spec.name for spec in session.get_inputs()]
        again = RepeatedRuns(session, names).run if self._small else None

        def runs(feeds: Feeds) -> Outputs:
            needed = {name: feeds[name] for name in fed}
            return run(session, needed, names) if again is None else again(needed)

        return runs


def _divisible(graph: ir.Graph) -> bool:
    """Return whether what crosses any cut is a tensor that is not empty by design."""
    return not any(
        "Sequence" in node.op_type or "Optional" in node.op_type or any(subgraphs_of(node))
        for node in graph
    )


def _parts(graph: ir.Graph, wanted: set[str], sizes: Mapping[str, int]) -> list[_Part]:
    """Return parts whose wanted tensors take at most `PART_BYTES`, or are those of one node."""
    parts, size = [_Part()], 0
    for node in graph:
        names = [str(value.name) for value in node.outputs if value.name in wanted]
        needed = sum(sizes[name] for name in names)
        if needed and size and size + needed > PART_BYTES:
            parts.append(_Part())
            size = 0
        size += needed
        parts[-1].nodes.append(node)
        parts[-1].wanted += names
    _mark_crossing(graph, parts)
    return parts


def _mark_crossing(graph: ir.Graph, parts: Sequence[_Part]) -> None:
    """Find what later parts read; what is the same in every run is computed in each part anew."""
    fixed = constant_nodes(graph)
    made = {v: part for part in parts for n in part.nodes if n not in fixed for v in n.outputs}
    fed = {value for value in graph.inputs if not value.is_initializer()}
    later: set[ir.Value] = set()
    for part in reversed(parts):
        part.kept = {str(value.name) for value in later if value in fed or value in made}
        part.made = [str(v.name) for n in part.nodes for v in n.outputs if v in later and v in made]
        later |= set(_read(part.nodes))
        later -= {value for node in part.nodes for value in node.outputs}


def _read(nodes: Iterable[ir.Node]) -> Iterator[ir.Value]:
    """Yield the values that nodes read."""
    return (v for node in nodes for v in (*node.inputs, *captured(node)) if v is not None)


def up_to(model: Model, tensors: Sequence[str]) -> Model:
    """Return a copy that ends where the tensors are made."""
    part = with_only_outputs(model, tensors)
    needed: set[ir.Node] = set()
    waiting = [value.producer() for value in part.graph.outputs]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in needed:
            needed.add(node)
            waiting += [value.producer() for value in node.inputs if value is not None]
    whole = any(node.graph is not part.graph for node in part.graph.all_nodes())
    if not whole:  # subgraphs read outer tensors, so all nodes are kept
        for node in reversed([node for node in part.graph if node not in needed]):
            part.graph.remove(node, safe=True)
    return part
