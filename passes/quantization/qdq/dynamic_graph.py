"""Graph under dynamic quantization: integer weights and activations, each written once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Array
from trimtab.core.target import IntType

from ...graph.constant_reader import Folded
from ...graph.graph_writer import GraphWriter
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


class DynamicGraph(GraphWriter):
    """Edits that operators of dynamic int8 have in common.

    Attributes:
        kind: integer type of weights.
        per_channel: one scale for each output channel.
        reduce_range: weights have 7 bits.
    """

    def __init__(
        self, graph: ir.Graph, *, kind: IntType, per_channel: bool, reduce_range: bool
    ) -> None:
        super().__init__(graph)
        self.kind, self.per_channel, self.reduce_range = kind, per_channel, reduce_range
        self._inputs: dict[tuple[ir.Graph, ir.Value], RoundedInput] = {}

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
            for output, part in zip(
                node.outputs, ("quantized", "scale", "zero_point"), strict=True
            ):
                output.name = self.names.tensor(f"{value.name}_{part}")
            self._inputs[key] = RoundedInput(*node.outputs)
        return self._inputs[key]
