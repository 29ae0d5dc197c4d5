"""Operators that draw random numbers, and models in which they draw the same ones each time."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from ..model import Model

#: Operators that give another result each time, so that two of one input must not be merged.
RANDOM_OPS = frozenset(
    {
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)


def with_fixed_draws(model: Model) -> Model:
    """Return the model with seeds where it draws random numbers, itself where it draws none.

    Runs of it can then be compared with those of a model made from it, which draws in the same
    order. Each session begins anew.
    """
    if not RANDOM_OPS & model.operators or not any(map(_draws, model.nodes())):
        return model
    copy = dataclasses.replace(model, ir=model.ir.clone())
    for number, node in enumerate(filter(_draws, copy.nodes())):
        seed = ir.AttrInt64 if node.op_type == "Dropout" else ir.AttrFloat32
        node.attributes["seed"] = seed("seed", number + 1)
    return copy


def _draws(node: ir.Node) -> bool:
    """Return whether a node draws without a seed; Dropout does where it may train."""
    if node.op_type not in RANDOM_OPS or node.domain not in {"", "ai.onnx"}:
        return False
    if "seed" in node.attributes:
        return False
    return node.op_type != "Dropout" or len(node.inputs) > 2
