"""Insertion of nodes and constants into a graph and its subgraphs, under names that are free."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Array

from .constant_reader import ConstantReader, Folded
from .names import FreeNames

#: Types of weights that int8 kernels with float32 activations take.
FLOAT32 = frozenset({np.dtype(np.float32)})
#: Why a product without a constant weight stays float.
COMPUTED = "its weight is computed while the model runs"


class GraphWriter:
    """Edits of a graph; equal constants are written once.

    Attributes:
        graph: main graph.
        names: names that are still free.
        constants: reader of constants.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.graph, self.names, self.constants = graph, FreeNames(graph), ConstantReader(graph)
        self._written: dict[tuple[ir.Graph, str], ir.Value] = {}

    def float_weight(
        self, value: ir.Value | None, dtypes: Collection[np.dtype[np.generic]] = FLOAT32
    ) -> tuple[Folded | None, str]:
        """Return the constant that a weight holds, or the reason why it cannot become integers."""
        found = self.constants.fold(value)
        if found is None:
            return None, COMPUTED
        if found.array.dtype not in dtypes:
            return None, f"its weight is {found.array.dtype}, not float32"
        if not found.array.size:
            return None, "its weight is empty"
        if not np.isfinite(found.array).all():
            return None, "its weight has values that are not finite"
        return found, ""

    def constant(self, owner: ir.Graph, array: Array, name: str) -> ir.Value:
        """Return an initializer of a graph with this value; equal ones are the same."""
        array = np.asarray(array, order="C")
        mark = hashlib.blake2b(array.reshape(-1).view(np.uint8).data, digest_size=16)
        key = (owner, f"{array.dtype} {array.shape} {mark.hexdigest()}")
        if key not in self._written:
            free = self.names.tensor(name)
            value = ir.val(free, const_value=ir.tensor(array, name=free))
            owner.register_initializer(value)
            self._written[key] = value
        return self._written[key]

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        before: ir.Node,
        name: str,
        *,
        attributes: Sequence[ir.Attr] = (),
        domain: str = "",
        outputs: int = 1,
        label: str = "",
    ) -> ir.Node:
        """Insert a node before another, named `label` or after `name` and its type."""
        graph = before.graph
        assert graph is not None
        made = ir.Node(
            domain,
            op_type,
            inputs,
            attributes,
            num_outputs=outputs,
            name=self.names.node(label or f"{name}_{op_type}"),
        )
        made.outputs[0].name = self.names.tensor(f"{made.name}_output")
        graph.insert_before(before, made)
        return made

    def result(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        before: ir.Node,
        name: str,
        *attributes: ir.Attr,
    ) -> ir.Value:
        """Insert a node before another and return its output."""
        return self.node(op_type, inputs, before, name, attributes=attributes).outputs[0]


def copied_attributes(node: ir.Node) -> list[ir.Attr]:
    """Return the attributes of a node, for another one."""
    return [a for a in node.attributes.values() if isinstance(a, ir.Attr)]
