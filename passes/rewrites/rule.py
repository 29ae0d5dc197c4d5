"""Rewrite rules: functions that look at one node and say how else its result can be computed.

    @rewrite_rule("sum-before-norm", at="Add", back="add-before-norm")
    def sum_before_norm(add: ir.Node) -> Found:
        '''One line that says what it writes and why that may be faster.'''
        if not feeds_norm(add):
            return None                                # not this pattern
        if add.outputs[0].is_graph_output():
            return "its sum is an output"              # the pattern, declined, with the reason
        return lambda w: w.op("Sum", *add.inputs)      # what to write in its place

A rule never changes the graph itself, so looking for sites is free of effects.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..graph.names import FreeNames

#: New values for old ones; a single value stands for the first output of the node looked at.
Made = ir.Value | Mapping[ir.Value, ir.Value]
Make = Callable[["Writer"], Made]
Found = Make | str | None
Look = Callable[[ir.Node], Found]

#: Domain of onnxruntime's own operators.
CONTRIB = "com.microsoft"


@dataclass(frozen=True)
class RewriteRule:
    """Exact rewrite of one pattern of operators.

    Attributes:
        name: in recipes, tables and on the command line.
        at: types of the operators that it looks at.
        look: finds the pattern at a node.
        back: name of the inverse rule, where there is one.
        min_opset: lowest operator set that has the operators that it writes.
        runtime_only: true where it writes operators that only onnxruntime has.
    """

    name: str
    at: frozenset[str]
    look: Look
    back: str | None = None
    min_opset: int = 7
    runtime_only: bool = False

    @property
    def summary(self) -> str:
        """First line of its documentation."""
        return (inspect.getdoc(self.look) or "").splitlines()[0]


def rewrite_rule(
    name: str, *, at: str, back: str | None = None, min_opset: int = 7, runtime_only: bool = False
) -> Callable[[Look], RewriteRule]:
    """Turn a function into a rule; `at` lists operator types, separated by blanks."""
    return lambda look: RewriteRule(
        name, frozenset(at.split()), look, back, min_opset, runtime_only
    )


class Writer:
    """Writer of new nodes and weights in a graph, beside those that they replace."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._names = FreeNames(graph)
        self._at: ir.Node | None = None

    def stand_at(self, node: ir.Node) -> None:
        """Put new nodes before this one, and derive their names from its output."""
        self._at = node

    def op(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        like: ir.Value | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> ir.Value:
        """Add a node and return its one output, of the type and shape of `like` where given."""
        return self.ops(op_type, inputs, [like], domain=domain, **attributes)[0]

    def ops(
        self,
        op_type: str,
        inputs: tuple[ir.Value | None, ...],
        likes: list[ir.Value | None],
        *,
        domain: str = "",
        **attributes: Any,
    ) -> list[ir.Value]:
        """Add a node with as many outputs as `likes` and return them."""
        assert self._at is not None
        results = [self._value(op_type, like) for like in likes]
        known = {k: v for k, v in attributes.items() if v is not None}
        node = ir.node(op_type, inputs, known, domain=domain, outputs=results)
        node.name = f"{results[0].name}/node"
        self._graph.insert_before(self._at, node)
        if domain:
            self._graph.opset_imports.setdefault(domain, 1)
        return results

    def weight(self, array: NDArray[Any], hint: str = "weight") -> ir.Value:
        """Add an initializer and return it."""
        name = self._name(hint)
        value = ir.val(name, const_value=ir.tensor(np.asarray(array, order="C"), name=name))
        self._graph.register_initializer(value)
        return value

    def weights(self, weight: NDArray[Any], bias: NDArray[Any] | None) -> list[ir.Value]:
        """Add a weight and, where there is one, its bias, and return them."""
        return [self.weight(weight), *([] if bias is None else [self.weight(bias, "bias")])]

    def _value(self, hint: str, like: ir.Value | None) -> ir.Value:
        value = ir.val(self._name(hint.lower()))
        if like is not None:
            value.type, value.shape = like.type, like.shape and like.shape.copy()
        return value

    def _name(self, hint: str) -> str:
        assert self._at is not None
        return self._names.tensor(f"{self._at.outputs[0].name}/{hint}")
