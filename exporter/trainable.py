"""Graphs that keep what training needs: BatchNormalization as it is, and Dropout.

By default torch folds the first into the layers before it and leaves the second out, both right for
inference and wrong for a network that has yet to learn.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import onnx_ir as ir
from onnx_ir.passes import common
from torch import nn

#: Layers that become ONNX's Dropout; those that drop whole channels have no counterpart.
DROPOUTS = (nn.Dropout,)


@contextlib.contextmanager
def dropping(module: nn.Module) -> Iterator[None]:
    """Dropout layers as in training, so that torch's exporter writes them; all else as it is."""
    layers = [m for m in module.modules() if isinstance(m, DROPOUTS)]
    before = [layer.training for layer in layers]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer, flag in zip(layers, before, strict=True):
            layer.training = flag


def settle(program: Any) -> None:
    """Tidy an unoptimised program without fusing, and let Dropout pass everything on.

    ONNX's Dropout drops where its third input is true; without it a runtime passes on what comes,
    and a trainer decides for itself.
    """
    from onnxscript import optimizer

    model: ir.Model = program.model
    common.InlinePass()(model)
    optimizer.fold_constants(model, onnx_shape_inference=True)
    for node in model.graph.all_nodes():
        if node.op_type == "Dropout" and node.domain in {"", "ai.onnx"}:
            node.resize_inputs(min(len(node.inputs), 2))
    # Equal weights stay apart: in a fresh network scales, shifts and statistics are all ones or
    # zeros, and merging them would make one weight of many.
    for tidy in (
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    ):
        tidy(model)
