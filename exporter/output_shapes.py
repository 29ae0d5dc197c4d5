"""Correction of output shapes: torch sometimes gives a dynamic axis the example's size."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from .parity import ParityTrial


def correct_shapes(model: ir.Model, compared: Sequence[ParityTrial]) -> ir.Model:
    """Make declared output sizes symbolic, in place, where those of the compared runs vary.

    Inner sizes are then wrong as well, so all inner shapes are inferred again.
    """
    wrong = False
    for index, value in enumerate(model.graph.outputs):
        if value.shape is None or len(value.shape) != len(compared[0].shapes[index]):
            continue
        for axis, size in enumerate(value.shape):
            found = [trial.shapes[index][axis] for trial in compared]
            if isinstance(size, int) and any(size != f for f in found):
                value.shape[axis] = ir.SymbolicDim(_name_of(found, compared))
                wrong = True
    if not wrong:
        return model
    outputs = set(model.graph.outputs)
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if value not in outputs:
                value.shape = None
    return ShapeInferencePass()(model).model


def _name_of(found: Sequence[int], compared: Sequence[ParityTrial]) -> str | None:
    """Return the named axis that has these sizes in these trials."""
    sizes = {name: [trial.sizes[name] for trial in compared] for name in compared[0].sizes}
    return next((name for name, taken in sizes.items() if taken == list(found)), None)
