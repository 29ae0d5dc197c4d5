"""One layer of a network at given widths, described before any weight of it exists."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from trimtab.core.model import Model
from trimtab.core.target import IntType

from ...graph.constants import is_constant

#: Operator sets of models that are made from nothing.
OPSETS = {"": 17}


@dataclass(frozen=True)
class LayerSpec:
    """Operator at given widths, before its weights exist.

    Attributes:
        shapes: of its inputs, constants among them.
        changed: attributes that depend on the widths.
        opsets: operator sets of the model that it comes from, which has this `ir_version`.
        macs: multiply-accumulates of one run.
        integers: types of activations and weights where it runs in int8; None for float.
    """

    node: ir.Node
    shapes: list[list[int]]
    changed: dict[str, int]
    opsets: Mapping[str, int]
    ir_version: int
    macs: int
    integers: tuple[IntType, IntType] | None = None

    def is_weight(self, number: int) -> bool:
        """Return whether the input of that number is a constant."""
        value = self.node.inputs[number]
        return number > 0 and value is not None and is_constant(value)

    @property
    def attributes(self) -> list[ir.Attr]:
        """Attributes of the operator, changed ones among them."""
        kept = [a for a in self.node.attributes.values() if a.name not in self.changed]
        return [*kept, *(ir.AttrInt64(name, value) for name, value in self.changed.items())]

    @property
    def reads(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the inputs that are not constants."""
        return tuple(tuple(s) for n, s in enumerate(self.shapes) if not self.is_weight(n))

    @property
    def nbytes(self) -> int:
        """Bytes of its weights."""
        return 4 * sum(math.prod(s) for n, s in enumerate(self.shapes) if self.is_weight(n))

    @property
    def key(self) -> str:
        """Text that is equal for layers of equal work."""
        shown = sorted((a.name, repr(a.value)) for a in self.attributes)
        kinds = "".join("xw"[self.is_weight(n)] for n, _ in enumerate(self.node.inputs))
        whole = f"{self.node.op_type} {kinds} {self.shapes} {shown}"
        return f"{'/'.join(self.integers)} {whole}" if self.integers else whole


def one_node_model(
    node: ir.Node,
    inputs: Sequence[ir.Value],
    constants: Sequence[ir.Value],
    dtype: ir.DataType = ir.DataType.FLOAT,
    opsets: Mapping[str, int] = OPSETS,
    ir_version: int = 8,
) -> Model:
    """Return a model of one node, whose output is `y`."""
    node.outputs[0].name, node.outputs[0].dtype = "y", dtype
    sets = dict(opsets)
    graph = ir.Graph(
        inputs, node.outputs, nodes=[node], initializers=constants, opset_imports=sets, name="l"
    )
    return Model(ir.Model(graph, ir_version=ir_version), name=str(node.name))
