"""Rounding by its effect on a layer's output, not to the nearest integer.

    min over integers q   || y_float - (s (q - z) x_int8 + b) ||^2

Layer by layer from the input on, with x from the int8 layers before it and y from the float model:
the objective of AdaRound (Nagel et al. 2020, arXiv 2004.10568, formula 21 without its activation).
It is quadratic, so instead of relaxing it, each integer in turn takes its best value given the
others (coordinate descent, as in CDQuant, Nair and Suggala 2024, arXiv 2406.17542), which needs no
learning rate and no PyTorch. An integer stays within one of the nearest. A layer's rounding is
kept only where the error of the model's output falls on held-out samples.

With unit=block whole residual blocks are rounded at once, by gradient: see `round_blocks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.batches import fitting
from trimtab.core.context import Context
from trimtab.core.data import Batch, Floats
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError
from trimtab.core.fields import File
from trimtab.core.model import Model

from ...base import Pass, Rewrite
from ..output_error import LayerChanges
from ..qdq.float_reference import load_reference, shared_layers
from .block_rounding import round_blocks
from .int8_layer import Int8Weight, float_weight, int8_weight
from .layer_outputs import inner_outputs
from .layer_regression import as_columns, from_columns, regression_rows

#: Pull towards the float weight, as a part of the mean square of the inputs.
DAMPING = 0.02
#: Most sweeps over all integers of a layer; few change after the second.
SWEEPS = 4


@dataclass(frozen=True)
class RoundWeights(Pass):
    """Round each int8 weight up or down by the effect on its layer's output.

    Run it on the int8 model, after CorrectBias or instead of it.

    Attributes:
        data: samples; that of the run if not given.
        samples: number of samples, one of four held out.
        reference: file of the float model that the int8 model was made from.
        unit: part that is rounded at once; block takes whole residual blocks and needs PyTorch.
        steps: gradient steps for each block.
    """

    needs_data: ClassVar[bool] = True

    data: Dataset | None = None
    samples: int = 256
    reference: File = ""
    unit: Literal["layer", "block"] = "layer"
    steps: int = 300

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise OptionError("must be at least 2", where=f"samples={self.samples}")
        if self.steps < 1:
            raise OptionError("must be at least 1", where=f"steps={self.steps}")

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        """Round layer by layer and keep the roundings that help."""
        reference = load_reference(self.reference, self.name())
        data = ctx.dataset(self.data, model, purpose="rounding weights").take(self.samples)
        batches = list(fitting(model, data, rows=32))
        if self.unit == "block":
            return round_blocks(model, reference, batches, ctx, steps=self.steps)
        return round_weights(model, reference, batches, ctx)


def round_weights(
    model: Model, reference: Model, batches: Sequence[Batch], ctx: Context
) -> Rewrite:
    """Round the weights of a clone of a Q/DQ model in place; every fourth batch is held out.

    The nodes of `reference`, the prepared float model, are named like the model's.

    Raises:
        InputError: no layer of the model bears the name of one in the reference.
    """
    layers, reference_nodes = shared_layers(model, reference)
    held_out = list(batches[3::4]) or list(batches[-1:])
    fit = [batch for i, batch in enumerate(batches) if i % 4 != 3]
    changes = LayerChanges(model, reference, held_out, ctx.target)
    for layer in ctx.progress.track(layers, "rounding weights", len(layers)):
        weight = int8_weight(layer)
        if isinstance(weight, str):
            changes.decline(layer, weight)
            continue
        sums = _sums(model, reference, layer, weight, fit, seed=ctx.seed)
        before = weight.values()
        original = float_weight(reference_nodes[layer.name], weight.shape)
        weight.assign(_descend(weight, layer, original, *sums))
        changes.keep_or(partial(weight.assign, before), layer)
    return changes.result("rounded")


def _sums(
    model: Model,
    reference: Model,
    layer: ir.Node,
    weight: Int8Weight,
    batches: Sequence[Batch],
    *,
    seed: int,
) -> tuple[Floats, Floats]:
    """Return X^T X and X^T (Y - b) per row: (groups, depth, depth), (groups, depth, outputs)."""
    twin = next(node for node in reference.graph if node.name == layer.name)
    source, wanted = layer.inputs[0], twin.outputs[0].name or ""
    assert source is not None
    output = layer.outputs[0].name or ""
    rng = np.random.default_rng(seed)
    columns, scale, zero = weight.columns(layer)
    current = (columns - zero) * scale
    moments: Any = 0.0
    cross: Any = 0.0
    count = 0
    xs = inner_outputs(model, [source.name or "", output], batches)
    for got, expected in zip(xs, inner_outputs(reference, [wanted], batches), strict=True):
        state = rng.bit_generator.state
        x, y = regression_rows(layer, weight.shape, got[source.name or ""], expected[wanted], rng)
        rng.bit_generator.state = state
        _, now = regression_rows(layer, weight.shape, got[source.name or ""], got[output], rng)
        # The bias, the rest of the output beyond the product, is not fitted.
        bias = now - x @ current
        moments = moments + x.transpose(0, 2, 1).astype(np.float64) @ x
        cross = cross + x.transpose(0, 2, 1).astype(np.float64) @ (y - bias)
        count += x.shape[1]
    return moments / max(count, 1), cross / max(count, 1)


def _descend(
    weight: Int8Weight, layer: ir.Node, original: Floats | None, moments: Floats, cross: Floats
) -> NDArray[Any]:
    """Give each integer in turn its best value given the others, by coordinate descent."""
    integers, scale, zero = weight.columns(layer)
    near = integers
    target = (integers - zero) * scale
    if original is not None and original.shape == weight.shape:
        target = as_columns(layer, original)
        near = np.round(target / scale) + zero
    low = np.clip(near - 1, integers.min(), integers.max())
    high = np.clip(near + 1, integers.min(), integers.max())
    depth = moments.shape[1]
    pull = DAMPING * np.trace(moments, axis1=1, axis2=2)[:, None] / depth + 1e-12  # (groups, 1)
    gram = moments + pull[:, :, None] * np.eye(depth)
    now = np.clip(integers, low, high)
    slope = gram @ ((now - zero) * scale) - cross - pull[:, :, None] * target
    for _ in range(SWEEPS):
        changed = 0
        for j in range(depth):
            step = slope[:, j] / (gram[:, j, j, None] * scale[:, j])
            new = np.clip(np.round(now[:, j] - step), low[:, j], high[:, j])
            moved = (new - now[:, j]) * scale[:, j]  # (groups, outputs)
            count = int(np.count_nonzero(moved))
            if count:
                slope += gram[:, :, j, None] * moved[:, None, :]
                now[:, j] = new
                changed += count
        if not changed:
            break
    return from_columns(layer, now, weight.shape)
