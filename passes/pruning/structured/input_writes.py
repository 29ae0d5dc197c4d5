"""Constants that replace inputs of nodes, and can be taken back together."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Array

from ...graph.edit import set_input
from ...graph.queries import input_at


@dataclass(frozen=True, eq=False)
class _Write:
    """Input of a node that was replaced, before and after, or added."""

    node: ir.Node
    index: int
    before: ir.Value | None
    after: ir.Value | None
    added: bool


@dataclass(eq=False)
class InputWrites:
    """Inputs of nodes of a model that were replaced by float constants.

    Attributes:
        model: the model, which is changed in place.
    """

    model: ir.Model
    _writes: list[_Write] = field(default_factory=list)

    @property
    def nodes(self) -> int:
        """Number of nodes with an input that was replaced."""
        return len({write.node for write in self._writes})

    def replace(self, node: ir.Node, index: int, array: Array) -> None:
        """Put a constant in the place of an input of a node, or add it."""
        before, added = input_at(node, index), index >= len(node.inputs)
        set_input(self.model, node, index, array.astype(np.float32))
        self._writes.append(_Write(node, index, before, node.inputs[index], added))

    def undo(self) -> None:
        """Take all back."""
        for write in reversed(self._writes):
            write.node.replace_input_with(write.index, write.before)
            if write.added:
                write.node.resize_inputs(write.index)

    def redo(self) -> None:
        """Write everything again."""
        for write in self._writes:
            write.node.resize_inputs(max(write.index + 1, len(write.node.inputs)))
            write.node.replace_input_with(write.index, write.after)
