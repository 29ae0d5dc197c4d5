"""Sites of a rule in a graph, and applying it there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from ..graph.declined import Declined
from ..graph.queries import is_onnx_op, node_label, opset
from ..graph.shapes import infer_shapes
from .rule import CONTRIB, Found, Made, RewriteRule, Writer


@dataclass(frozen=True)
class RewriteSite:
    """Place where a rule applies.

    Attributes:
        rule: name of the rule.
        value: name of the first output of the node that it looks at, which is unique in a graph.
        node: name of the node, for messages.
        shape: operator, types and shapes, equal for sites that are alike.
    """

    rule: str
    value: str
    node: str
    shape: str


def find_sites(rule: RewriteRule, graph: ir.Graph) -> tuple[list[RewriteSite], list[Declined]]:
    """Return the sites where a rule applies, and those that it declines with the reason."""
    sites: list[RewriteSite] = []
    declined: list[Declined] = []
    for node in graph:
        found, name = _look(rule, node), node_label(node)
        if isinstance(found, str):
            declined.append(Declined(name, f"{rule.name}: {found}"))
        elif found is not None:
            sites.append(RewriteSite(rule.name, str(node.outputs[0].name), name, site_shape(node)))
    return sites, declined


def apply_rule(rule: RewriteRule, model: ir.Model, where: Collection[str] | None = None) -> int:
    """Rewrite in place, at the named values or everywhere; return the number of rewritten sites."""
    graph = model.graph
    writer = Writer(graph)
    count = 0
    for node in list(graph):
        if node.graph is not graph or (where is not None and node.outputs[0].name not in where):
            continue
        # Matched again: an earlier rewrite may have changed this node.
        make = _look(rule, node)
        if isinstance(make, str | None):
            continue
        writer.stand_at(node)
        _replace(graph, node, make(writer))
        count += 1
    if count:
        clean_up(model)
    return count


def clean_up(model: ir.Model) -> None:
    """Sort the graph, drop unused nodes and infer the shapes of new values, in place."""
    model.graph.sort()
    common.RemoveUnusedNodesPass()(model)
    infer_shapes(model)


def site_shape(node: ir.Node) -> str:
    """Return the operator, element type and input shapes of a node as text."""
    texts = [
        "?" if v is None or v.shape is None else "x".join(map(str, v.shape)) or "scalar"
        for v in node.inputs
    ]
    kind = node.outputs[0].dtype
    return f"{node.op_type} {kind.name.lower() if kind else '?'} {','.join(texts)}"


def _look(rule: RewriteRule, node: ir.Node) -> Found:
    if node.op_type not in rule.at or not (is_onnx_op(node) or node.domain == CONTRIB):
        return None
    found = rule.look(node)
    if callable(found) and opset(node) < rule.min_opset:
        return f"needs opset {rule.min_opset}, the model has {opset(node)}"
    return found


def _replace(graph: ir.Graph, node: ir.Node, made: Made) -> None:
    replacements = {node.outputs[0]: made} if isinstance(made, ir.Value) else dict(made)
    for old, new in replacements.items():
        if old.is_graph_output():
            new = _named_output(graph, node, old, new)  # noqa: PLW2901
        elif new.shape is None:
            new.type, new.shape = old.type or new.type, old.shape
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def _named_output(graph: ir.Graph, node: ir.Node, old: ir.Value, new: ir.Value) -> ir.Value:
    """Return a value that has taken the name, type and shape of a graph output."""
    if new.producer() is None or new.is_graph_output() or list(new.uses()):
        copy = ir.node("Identity", [new])
        graph.insert_before(node, copy)
        new = copy.outputs[0]
    name = old.name
    old.name = None
    new.name, new.type, new.shape = name, old.type, old.shape
    return new
