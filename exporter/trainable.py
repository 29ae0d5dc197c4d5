"""Trainable graphs: BatchNormalization and Dropout stay nodes.

By default torch folds the first into the layers before it and removes the second: right for
inference, wrong for a network that is to be trained.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import onnx_ir as ir
from onnx_ir.passes import common
from torch import nn


@contextlib.contextmanager
def dropout_in_training(module: nn.Module) -> Iterator[None]:
    """Put the Dropout layers alone in training mode, so that torch's exporter writes them.

    Layers that drop whole channels have no equivalent in ONNX.
    """
    before = [(m, m.training) for m in module.modules() if isinstance(m, nn.Dropout)]
    for layer, _ in before:
        layer.training = True
    try:
        yield
    finally:
        for layer, flag in before:
            layer.training = flag


def tidy_trainable(program: Any) -> None:
    """Clean up an unoptimized program without fusing, and switch Dropout to inference.

    ONNX's Dropout drops only where its third input is true; without that input it is the identity
    at inference, and a trainer may switch it on.
    """
    from onnxscript import optimizer

    model: ir.Model = program.model
    common.InlinePass()(model)
    optimizer.fold_constants(model, onnx_shape_inference=True)
    for node in model.graph.all_nodes():
        if node.op_type == "Dropout" and node.domain in {"", "ai.onnx"}:
            node.resize_inputs(min(len(node.inputs), 2))
    # Equal weights are not merged: in a new network all scales, shifts and statistics are ones or
    # zeros, and would become a single weight.
    for tidy in (
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    ):
        tidy(model)
