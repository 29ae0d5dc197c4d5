"""Nodes that a provider takes, by its table, and by its own answer where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import onnx_ir as ir

from trimtab.core.model import Model
from trimtab.core.ort.int8_share import FLOAT_OPS, INT8_OPS, QDQ_OPS, macs_of
from trimtab.core.ort.session import Feeds

from .ask import Answer, ask
from .rules import NodeFacts, refusal
from .table import SupportTable, support_table
from .tensors import PlacedGraph, placed_graph

State = Literal["runs there", "falls back", "not known"]
#: Asks the provider of a table about a graph: its answer, else the reason why there is none.
Asker = Callable[[Model, SupportTable], tuple[Answer | None, str]]


@dataclass(frozen=True)
class NodeSupport:
    """State of a node on a provider.

    Attributes:
        name: name of the node.
        op: operator type.
        state: whether it runs there, falls back to the CPU, or is not known.
        why: reason, where it does not run there.
        source: address of the fact.
    """

    name: str
    op: str
    state: State
    why: str = ""
    source: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class Support:
    """Nodes of a model that a provider takes, and the others with the reason.

    Attributes:
        model: name of the model.
        table: the table.
        sizes: sizes of the inputs that were looked at.
        free: inputs with free dimensions in the file.
        nodes: its nodes in order, by the provider's answer where it was asked, else by the table.
        inside: nodes inside of branches and loops, each of which counts as one node.
        parts: pieces of the graph that the provider gets; each costs a way there and back.
        macs_share: share of the multiply-accumulates that run there; None without any.
        answer: answer of the installed provider; None where it was not asked.
        not_asked: reason why it was not asked.
        differ: nodes on which the table and the answer differ.
    """

    model: str
    table: SupportTable
    sizes: Mapping[str, tuple[int, ...]]
    free: tuple[str, ...]
    nodes: tuple[NodeSupport, ...]
    inside: int
    parts: int
    macs_share: float | None
    answer: Answer | None = None
    not_asked: str = ""
    differ: tuple[str, ...] = ()

    def count(self, state: State) -> int:
        """Return the number of nodes in a state."""
        return sum(node.state == state for node in self.nodes)


def support(model: Model, feeds: Feeds, target: str, *, asked: Asker | None = ask) -> Support:
    """Return what the provider of a target takes of a model, for inputs of the feeds' sizes.

    Where the provider can be asked here, by default where it is installed, its answer counts.

    Raises:
        OptionError: the target has no table.
        RunError: onnxruntime refuses the model.
    """
    table = support_table(target)
    graph = placed_graph(model, feeds)
    nodes = by_table(graph, table)
    answer, why = asked(graph.model, table) if asked is not None else (None, "")
    differ: tuple[str, ...] = ()
    if answer is not None:
        told = answer.taken
        known = [n for n in nodes if n.name in told and n.state != "not known"]
        differ = tuple(n.name for n in known if told[n.name] != (n.state == "runs there"))
        nodes = [_as_told(node, told, answer.package) for node in nodes]
    there = {node.name for node in nodes if node.state == "runs there"}
    sizes = {name: tuple(getattr(array, "shape", ())) for name, array in feeds.items()}
    return Support(
        model.name,
        table,
        sizes,
        graph.free,
        tuple(nodes),
        sum(1 for _ in graph.model.graph.all_nodes()) - len(nodes),
        _parts(graph.model.graph, there),
        _macs_share(graph, there),
        answer,
        why,
        differ,
    )


def by_table(graph: PlacedGraph, table: SupportTable) -> list[NodeSupport]:
    """Return what a table says of each node of a graph, in order."""
    in_units = table.pairs in {"units", "both"}
    facts = {node: NodeFacts(node, graph, units=in_units) for node in graph.model.graph}
    found: dict[ir.Node, NodeSupport] = {}
    for node, known in facts.items():
        if node.op_type not in QDQ_OPS:
            found[node] = _fused(node, found, table) or _judged(known, table)
    for node, known in facts.items():
        if node not in found:
            found[node] = _pair_judged(known, facts, found, table)
    return [found[node] for node in facts]


def _judged(facts: NodeFacts, table: SupportTable) -> NodeSupport:
    node, rule = facts.node, table.by_operator.get(facts.key)
    name = node.name or ""
    if rule is None and facts.key in table.not_read:
        return NodeSupport(name, facts.key, "not known", "the sources say nothing of it")
    if rule is None:
        first = next(iter(table.sources.values()))
        return NodeSupport(name, facts.key, "falls back", "is not in its list of operators", first)
    if facts.is_unit and table.units and facts.key not in table.units:
        why: str | None = "has no int8 form there"
    else:
        why = refusal(facts, rule, table)
    source = table.sources[rule.source]
    if why is None:
        return NodeSupport(name, facts.key, "runs there", source=source)
    return NodeSupport(name, facts.key, "falls back", why, source)


def _fused(
    node: ir.Node, found: Mapping[ir.Node, NodeSupport], table: SupportTable
) -> NodeSupport | None:
    """Return the state of an operator that goes with the one before it; None for any other."""
    before = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    host = found.get(before) if before is not None else None
    if host is None or host.op not in table.fused.get(node.op_type, ()):
        return None
    alone = len(before.outputs[0].uses()) == 1 if before is not None else False
    if not alone or host.state != "runs there":
        return None
    return NodeSupport(node.name or "", node.op_type, host.state, source=host.source)


def _pair_judged(
    facts: NodeFacts,
    all_facts: Mapping[ir.Node, NodeFacts],
    found: Mapping[ir.Node, NodeSupport],
    table: SupportTable,
) -> NodeSupport:
    """Judge a Q or DQ: inside a unit it goes with it."""
    node = facts.node
    around = [user for value in node.outputs for user in value.consumers()]
    if node.op_type == "QuantizeLinear":
        producer = node.inputs[0].producer() if node.inputs[0] is not None else None
        around = [producer] if producer is not None else []
    units = [found[n] for n in around if n in found and all_facts[n].is_unit]
    if not units and table.pairs == "units":
        why = "stands alone; taken in a unit with an operator between the pairs"
        first = next(iter(table.sources.values()))
        return NodeSupport(node.name or "", facts.key, "falls back", why, first)
    if not units:
        return _judged(facts, table)
    best = next((unit for unit in units if unit.state == "runs there"), units[0])
    why = "" if best.state == "runs there" else f"goes with {best.op} {best.name}, which falls back"
    return NodeSupport(node.name or "", facts.key, best.state, why, best.source)


def _as_told(node: NodeSupport, told: Mapping[str, bool], package: str) -> NodeSupport:
    """Return a node as the provider itself answered, with the table's reason where both agree."""
    taken = told.get(node.name)
    if taken is None or taken == (node.state == "runs there"):
        return node
    if taken:
        return NodeSupport(node.name, node.op, "runs there", source=package)
    return NodeSupport(node.name, node.op, "falls back", f"{package} refuses it", package)


def _parts(graph: ir.Graph, there: set[str]) -> int:
    """Return the fewest pieces in which the provider can run its nodes, none around another's."""
    level: dict[ir.Node, int] = {}
    for node in graph:
        mine = node.name in there
        before = [v.producer() for v in node.inputs if v is not None]
        levels = [
            level[p] + ((p.name in there) != mine) for p in before if p is not None and p in level
        ]
        level[node] = max(levels, default=0 if mine else 1)
    return len({level[node] for node in graph if node.name in there})


def _macs_share(graph: PlacedGraph, there: set[str]) -> float | None:
    products = [n for n in graph.model.graph if n.op_type in FLOAT_OPS | INT8_OPS]
    counts = [(node.name, macs_of(node, graph.shapes)) for node in products]
    total = sum(macs for _, macs in counts)
    mine = sum(macs for name, macs in counts if name in there)
    return mine / total if total else None
