"""Bias correction: the shift of a layer's mean output by rounding is taken out of its bias.

    b += E[y_float] - E[y_int8]

Empirical and sequential (Nagel et al. 2019, Finkelstein et al. 2019): layer by layer from the input
on, each with inputs from the layers before it, corrected already. A correction is kept only where
an error falls on held-out samples: that of the model's output, or that of the layer's own output,
which needs one run of the model in all instead of two for each layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from trimtab.core.batches import fitting
from trimtab.core.context import Context
from trimtab.core.data import Array, Batch, Floats
from trimtab.core.dataset import Dataset
from trimtab.core.fields import File
from trimtab.core.model import Model

from ...base import Pass, Rewrite
from ...graph.declined import Declined
from ...graph.partial_run import Walk, channel_mean, channel_rows
from ..output_error import LayerChanges
from ..qdq.bias import Bias, find_bias, remove_unused_biases
from ..qdq.float_reference import load_reference, shared_layers
from .layer_outputs import outputs_in_parts

#: Share of an output's mean square that a bias must take away for an operator to be added for it.
_WORTH_A_NODE = 1e-4


@dataclass(frozen=True)
class CorrectBias(Pass):
    """Move the mean error of each int8 layer into its bias, where that improves the output.

    Attributes:
        data: samples; that of the run if not given.
        samples: number of samples, half of them held out.
        reference: file of the float model that the int8 model was made from.
        judge: error that must fall for a correction to be kept: that of the model's output
            (answer), or of the layer's output, channel by channel, which is many times faster;
            the model's output then decides about all corrections together.
    """

    needs_data: ClassVar[bool] = True

    data: Dataset | None = None
    samples: int = 128
    reference: File = ""
    judge: Literal["answer", "layer"] = "answer"

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        """Correct layer by layer and keep the corrections that help."""
        reference = load_reference(self.reference, self.name())
        data = ctx.dataset(self.data, model, purpose="bias correction").take(self.samples)
        batches = list(fitting(model, data, rows=32))
        if self.judge == "answer":
            return correct_biases(model, reference, batches, ctx)
        return correct_by_layer(model, reference, batches, ctx)


def correct_biases(
    model: Model, reference: Model, batches: Sequence[Batch], ctx: Context
) -> Rewrite:
    """Correct the biases of a clone of a Q/DQ model in place; every second batch is held out.

    The nodes of `reference`, the prepared float model, are named like the model's.

    Raises:
        InputError: no layer of the model bears the name of one in the reference.
    """
    layers, names, declined = _correctable(model, reference)
    fit, held_out = list(batches[::2]), list(batches[1::2]) or list(batches)
    axes = [_channels(layer) for layer in layers]
    fit_means = _means(reference, names, axes, fit)
    changes = LayerChanges(model, reference, held_out, ctx.target)
    changes.declined += declined
    tracked = ctx.progress.track(layers, "correcting biases", len(layers))
    for layer, axis, fit_mean in zip(tracked, axes, fit_means, strict=True):
        bias = find_bias(model.graph, layer, integer=ctx.target.isa != "gpu")
        if not isinstance(bias, Bias):
            changes.decline(layer, bias)
            continue
        bias.shift(fit_mean - _means(model, [layer.outputs[0].name or ""], [axis], fit)[0])
        changes.keep_or(bias.undo, layer)
    remove_unused_biases(model.graph)
    return changes.result("corrected")


def correct_by_layer(
    model: Model, reference: Model, batches: Sequence[Batch], ctx: Context
) -> Rewrite:
    """Correct the biases of a Q/DQ model in place, evaluating each channel at its layer's output.

    A shift s changes a channel's mean squared error by s (2 m + s), m its mean error: so means of
    held-out samples decide, and no layer is run twice. Arguments and errors as in `correct_biases`.
    """
    layers, names, declined = _correctable(model, reference)
    fit, held_out = list(batches[::2]), list(batches[1::2]) or list(batches)
    axes = [_channels(layer) for layer in layers]
    fit_means, held_out_means = (_means(reference, names, axes, part) for part in (fit, held_out))
    changes, untouched = LayerChanges(model, reference, held_out, ctx.target), model.clone()
    changes.declined += declined
    walk = Walk(model, [batch.feeds for batch in (*fit, *held_out)])
    tracked = ctx.progress.track(layers, "correcting biases", len(layers))
    for layer, axis, fit_mean, held_out_mean in zip(
        tracked, axes, fit_means, held_out_means, strict=True
    ):
        outputs = walk.to(layer.outputs[0])
        bias = find_bias(model.graph, layer, integer=ctx.target.isa != "gpu")
        if not isinstance(bias, Bias):
            changes.decline(layer, bias)
            continue
        shift = fit_mean - channel_mean(outputs[: len(fit)], axis)
        gap = channel_mean(outputs[len(fit) :], axis) - held_out_mean
        gain = np.maximum(-shift * (2 * gap + shift), 0.0)
        shift = np.where(gain > 0, shift, 0.0)
        if bias.costs_a_node and gain.mean() < _WORTH_A_NODE * _power(outputs[len(fit) :]):
            shift = np.zeros_like(shift)
        if not shift.any():
            changes.decline(layer, "its output's error would not fall")
            continue
        bias.shift(shift)
        changes.kept.append(layer.name or "")
        if layer.op_type != "MatMul":  # its bias is added after it, in the next step
            walk.add(layer.outputs[0], shift, axis)
    changes.keep_all_or(untouched)
    remove_unused_biases(changes.model.graph)
    return changes.result("corrected")


def _correctable(model: Model, reference: Model) -> tuple[list[ir.Node], list[str], list[Declined]]:
    """Return layers that may have a bias, their outputs in the reference, and layers without one.

    A product of two activations has none, and no channels either: its axes may vary in length.
    Products that add nothing get zeros here, before nodes are counted and tensors observed.
    """
    layers, reference_nodes = shared_layers(model, reference, also=frozenset({"ConvTranspose"}))
    found, declined = [], []
    for layer in layers:
        place = find_bias(model.graph, layer) if layer.op_type == "MatMul" else None
        if isinstance(place, str):
            declined.append(Declined(layer.name or "", place))
        else:
            found.append(layer)
    return found, [reference_nodes[n.name].outputs[0].name or "" for n in found], declined


def _power(outputs: Sequence[Array]) -> float:
    """Return the mean square of a layer's outputs."""
    return float(np.mean([np.square(array, dtype=np.float64).mean() for array in outputs]))


def _channels(layer: ir.Node) -> int:
    """Return the channel axis of a layer's output."""
    return 1 if layer.op_type in {"Conv", "ConvTranspose"} else -1


def _means(
    model: Model, tensors: Sequence[str], axes: Sequence[int], batches: Sequence[Batch]
) -> list[Floats]:
    """Return the mean of each tensor over all but its channel axis."""
    if not tensors:
        return []
    sums: list[Floats] = [np.zeros(()) for _ in tensors]
    counts = [0] * len(tensors)
    for arrays in outputs_in_parts(model, tensors, batches):
        for i, (name, axis) in enumerate(zip(tensors, axes, strict=True)):
            if name not in arrays:
                continue
            flat = channel_rows(arrays[name], axis)
            sums[i] = sums[i] + flat.sum(axis=0, dtype=np.float64)
            counts[i] += len(flat)
    return [total / max(count, 1) for total, count in zip(sums, counts, strict=True)]
