"""Graph under dynamic quantization: integer weights and activations, each written once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Array
from trimtab.core.target import IntType

from ...graph.folded import ConstantReader, Folded
from ...graph.names import FreeNames
from .integer_weights import IntegerWeight, between_extremes, symmetric

#: Factor of a product that is not scaled.
ONE = np.float32(1)


@dataclass(frozen=True)
class StoredWeight:
    """Initializers of a weight in integers.

    Attributes:
        values: the integers.
        scale: float32, one number or one for each channel.
        zero: integer that stands for zero; None where it is 0.
    """

    values: ir.Value
    scale: ir.Value
    zero: ir.Value | None


@dataclass(frozen=True)
class RoundedInput:
    """Activation in uint8 with its scale and zero point, all computed while the model runs."""

    values: ir.Value
    scale: ir.Value
    zero: ir.Value


class DynamicGraph:
    """Edits that operators of dynamic int8 have in common.

    Attributes:
        kind: integer type of weights.
        per_channel: one scale for each output channel.
        reduce_range: weights have 7 bits.
        names: names that are still free.
        constants: reader of constants.
    """

    def __init__(
        self, graph: ir.Graph, *, kind: IntType, per_channel: bool, reduce_range: bool
    ) -> None:
        self.kind, self.per_channel, self.reduce_range = kind, per_channel, reduce_range
        self.names, self.constants = FreeNames(graph), ConstantReader(graph)
        self._written: dict[tuple[ir.Graph, str], ir.Value] = {}
        self._inputs: dict[tuple[ir.Graph, ir.Value], RoundedInput] = {}

    def float_weight(self, value: ir.Value | None) -> tuple[Folded | None, str]:
        """Return the constant that a weight holds, or the reason why it cannot become integers."""
        found = self.constants.fold(value)
        if found is None:
            return None, "its weight is computed while the model runs"
        if found.array.dtype != np.float32:
            return None, f"its weight is {found.array.dtype}, int8 is made of float32"
        if not found.array.size:
            return None, "its weight is empty"
        if not np.isfinite(found.array).all():
            return None, "its weight has values that are not finite"
        return found, ""

    def constant(self, owner: ir.Graph, array: Array, name: str) -> ir.Value:
        """Return an initializer of a graph with this value; equal ones are the same."""
        array = np.ascontiguousarray(array)
        mark = hashlib.blake2b(array.reshape(-1).view(np.uint8).data, digest_size=16)
        key = (owner, f"{array.dtype} {array.shape} {mark.hexdigest()}")
        if key not in self._written:
            free = self.names.tensor(name)
            value = ir.val(free, const_value=ir.tensor(array, name=free))
            owner.register_initializer(value)
            self._written[key] = value
        return self._written[key]

    def weight(
        self,
        source: ir.Value,
        folded: Folded,
        channels: Sequence[int],
        *,
        shape: Sequence[int],
        factor: np.float32 = ONE,
    ) -> StoredWeight:
        """Store a weight symmetrically, with a scale for each index along `channels`.

        Args:
            source: the float tensor, after which the integers are named.
            folded: its value, as the operator wants it.
            channels: axes of the output channels; ignored without `per_channel`.
            shape: shape of the scales with `per_channel`.
            factor: number that the product is multiplied by, with the scales.
        """
        kept = channels if self.per_channel else ()
        made = symmetric(folded.array, kept, self.kind, reduce_range=self.reduce_range)
        scale = made.scale.reshape(tuple(shape) if self.per_channel else ())
        return self.store(source, folded.graph, made, scale * factor)

    def table(self, source: ir.Value, folded: Folded) -> StoredWeight:
        """Store a table that is looked up, with one scale and zero point."""
        made = between_extremes(folded.array)
        return self.store(source, folded.graph, made, made.scale)

    def store(
        self, source: ir.Value, owner: ir.Graph, made: IntegerWeight, scale: Array
    ) -> StoredWeight:
        """Store integers in the graph that holds the float weight."""
        zero = None
        if made.zero:
            number = np.asarray(made.zero, made.values.dtype)
            zero = self.constant(owner, number, f"{source.name}_zero_point")
        values = self.constant(owner, made.values, f"{source.name}_quantized")
        return StoredWeight(values, self.constant(owner, scale, f"{source.name}_scale"), zero)

    def rounded(self, value: ir.Value, before: ir.Node) -> RoundedInput:
        """Return an activation in uint8, written before its first reader in a graph."""
        graph = before.graph
        assert isinstance(graph, ir.Graph)
        key = (graph, value)
        if key not in self._inputs:
            node = self.node("DynamicQuantizeLinear", [value], before, value.name or "", outputs=3)
            parts = ("_quantized", "_scale", "_zero_point")
            types = (ir.DataType.UINT8, ir.DataType.FLOAT, ir.DataType.UINT8)
            shapes = (value.shape, ir.Shape([]), ir.Shape([]))
            for output, part, dtype, shape in zip(node.outputs, parts, types, shapes, strict=True):
                output.name = self.names.tensor(f"{value.name}{part}")
                output.dtype, output.shape = dtype, shape
            self._inputs[key] = RoundedInput(*node.outputs)
        return self._inputs[key]

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
    ) -> ir.Node:
        """Insert a node before another; its first output has a free name."""
        graph = before.graph
        assert graph is not None
        made = ir.Node(
            domain,
            op_type,
            inputs,
            attributes,
            num_outputs=outputs,
            name=self.names.node(f"{name}_{op_type}"),
        )
        made.outputs[0].name = self.names.tensor(f"{made.name}_output")
        graph.insert_before(before, made)
        return made

    def result(
        self, op_type: str, inputs: Sequence[ir.Value], before: ir.Node, name: str
    ) -> ir.Value:
        """Insert a node before another and return its float output."""
        made = self.node(op_type, inputs, before, name).outputs[0]
        made.dtype = ir.DataType.FLOAT
        return made


def replace_output(old: ir.Value, new: ir.Value) -> None:
    """Let readers read another value, which takes the old one's name, type and shape."""
    name = old.name
    new.type, new.shape = old.type or new.type, old.shape
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    old.name, new.name = None, name
