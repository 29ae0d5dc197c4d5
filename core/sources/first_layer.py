"""Statistics that the first layer of a network saw in training, beside those of a picture."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..data import Array, Floats
from ..graphs import constant_array
from ..model import Model
from ..ort.feed_values import values_of

#: Factor between spreads, or distance of means in spreads, from which a picture does not fit.
APART = 4.0
#: Largest value of a picture that was scaled to about 1.
SCALED = 10.0


def misfit(model: Model, name: str, pictures: Array) -> str:
    """Return how a picture's statistics differ from those of the first layer; "" where they fit.

    Where BatchNormalization tells, its statistics count; else whether the first arithmetic is that
    on values of 0 to 255.

    Args:
        model: model.
        name: input that takes the pictures.
        pictures: (N, C, H, W) or (N, H, W, C), as they are fed.
    """
    value = next((v for v in model.graph.inputs if v.name == name), None)
    if value is None or pictures.ndim != 4 or pictures.dtype.kind != "f":
        return ""
    fed = f"{pictures.min():.3g} to {pictures.max():.3g}"
    for use in value.uses():
        seen = _seen(use.node, pictures.astype(np.float64))
        if seen is not None:
            return _compared(*seen, fed)
    if values_of(model)[name].kind == "pixels" and np.abs(pictures).max() <= SCALED:
        return f"the first picture is fed as {fed}, and the first layer expects 0 to 255: --scale 1"
    return ""


def _seen(node: ir.Node, pictures: Floats) -> tuple[Floats, Floats, Floats, Floats] | None:
    """Return mean and spread of each channel, as seen in training and now."""
    if node.op_type == "Conv":
        following = [use.node for use in node.outputs[0].uses()]
        found = _convolved(node, pictures)
        if found is None or len(following) != 1:
            return None
        node, pictures = following[0], found
    if node.op_type != "BatchNormalization":
        return None
    mean, variance = (constant_array(value) for value in node.inputs[3:5])
    if mean is None or variance is None or len(mean) != pictures.shape[1]:
        return None
    axes = (0, 2, 3)
    spread = np.sqrt(np.abs(variance.astype(np.float64))) + 1e-12
    return mean.astype(np.float64), spread, pictures.mean(axes), pictures.std(axes)


def _convolved(node: ir.Node, pictures: Floats) -> Floats | None:
    """Return what a convolution makes of pictures, without their margin; None of other kinds."""
    weight = constant_array(node.inputs[1])
    if weight is None or weight.ndim != 4 or weight.shape[1] != pictures.shape[1]:
        return None
    if any(d != 1 for d in node.attributes.get_ints("dilations", [1])):
        return None
    sizes = weight.shape[2:]
    if any(have < size for have, size in zip(pictures.shape[2:], sizes, strict=True)):
        return None
    down, right = node.attributes.get_ints("strides", [1, 1])
    windows = np.lib.stride_tricks.sliding_window_view(pictures[:1], sizes, axis=(2, 3))
    found: Floats = np.einsum("nchwij,ocij->nohw", windows[:, :, ::down, ::right], weight)
    bias = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    return found if bias is None else found + bias.reshape(1, -1, 1, 1)


def _compared(mean: Floats, spread: Floats, mean2: Floats, spread2: Floats, fed: str) -> str:
    ratio = float(np.median(np.maximum(spread2, 1e-12) / spread))
    away = float(np.median(np.abs(mean2 - mean) / spread))
    if 1 / APART <= ratio <= APART and away <= APART:
        return ""
    return (
        f"the first picture, fed as {fed}, has {ratio:.2g} times the spread that the first layer "
        f"saw in training, its mean is {away:.2g} spreads away: check --scale, --mean and --std"
    )
