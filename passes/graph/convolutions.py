"""Weights and attributes of convolutions, which several rules ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Array

from .queries import attr, const, input_at


def conv_weights(node: ir.Node) -> tuple[Array, Array | None] | None:
    """Return (weight, bias) of a convolution with constant ones."""
    weight, bias = const(node.inputs[1]), input_at(node, 2)
    if weight is None or (bias is not None and const(bias) is None):
        return None
    return weight, const(bias)


def conv_attrs(node: ir.Node) -> dict[str, Any]:
    """Return the attributes of a convolution or pooling over two axes, defaults filled in.

    `pads` is None where `auto_pad` decides.
    """
    auto = attr(node, "auto_pad", "NOTSET")
    return {
        "strides": attr(node, "strides", (1, 1)),
        "dilations": attr(node, "dilations", (1, 1)),
        "group": attr(node, "group", 1),
        "pads": attr(node, "pads", (0, 0, 0, 0)) if auto == "NOTSET" else None,
    }


def written_attrs(conv: ir.Node) -> dict[str, Any]:
    """Return all attributes of a convolution, `auto_pad` as it is written."""
    kinds = conv_attrs(conv)
    if kinds["pads"] is None:
        kinds |= {"pads": None, "auto_pad": attr(conv, "auto_pad")}
    return kinds


def stacked(layers: Sequence[tuple[Array, Array | None]]) -> tuple[Array, Array]:
    """Return (weight, bias) of several convolutions as one; a missing bias is zeros."""
    biases = [np.zeros(len(w), w.dtype) if b is None else b for w, b in layers]
    return np.concatenate([w for w, _ in layers]), np.concatenate(biases)
