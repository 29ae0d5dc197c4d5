"""Importance by a first-order expansion of the loss (Molchanov et al. 2019, arXiv 1906.10771).

What zeroing a channel does to the loss is, to first order, the sum of gradient times weight over
the columns that read it; its square, averaged over batches, is the score. With labels the loss is
the cross-entropy of the first output. Without, the outputs themselves are what is to be kept: their
squared change is the mean of (r' dy)^2 over random signs r, so the gradient is that of r' y.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.context import Context
from trimtab.core.data import Batch
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model

from ..dependency.groups import Labels

if TYPE_CHECKING:
    from torch import Tensor

    from ...training.torch_graph import TorchGraph

#: Items whose gradients are summed before they are squared.
ROWS = 16

Slices = list[tuple[str, int, NDArray[np.int64]]]


def taylor(model: Model, labels: Labels, data: Dataset, ctx: Context) -> NDArray[np.float64]:
    """(classes,) mean squared first-order change of the loss; 0 where no trained weight has it.

    Args:
        model: whose graph `labels` were traced on.
        labels: its labels.
        data: with labels where the loss shall be the cross-entropy.
        ctx: for progress and seed.

    Raises:
        MissingExtraError: without PyTorch.
        ModelError: operators that PyTorch cannot differentiate here, all of them named.
    """
    from ...training import torch_graph

    module = torch_graph.to_module(model)
    slices = _slices(labels, module)
    scores, count = np.zeros(labels.count), 0
    rng = np.random.default_rng(ctx.seed)
    for batch in ctx.progress.track(data, "differentiating", data.batches):
        module.zero_grad()
        _loss(module, batch, rng).backward()  # type: ignore[no-untyped-call]
        change = np.zeros(labels.count)
        for name, axis, classes in slices:
            weight = module.weight(name)
            if weight.grad is not None:
                product = (weight.grad * weight.detach()).movedim(axis, 0).flatten(1).sum(1)
                np.add.at(change, classes, product.double().numpy())
        scores += np.square(change)
        count += 1
    return scores / max(count, 1)


def _slices(labels: Labels, module: TorchGraph) -> Slices:
    """Axes of trained weights with the class of each position: those that read a class, if any."""
    found: dict[tuple[str, int], tuple[NDArray[np.int64], bool]] = {}
    for sink in labels.weights:
        name = _initializer(sink.node.inputs[sink.index])
        if name not in module.weights:
            continue
        for axis, classes in labels.axes_of(sink):
            found[str(name), axis] = (classes, axis == sink.into)
    read = np.zeros(labels.count, bool)
    for classes, reads in found.values():
        if reads:
            read[classes] = True
    return [
        (name, axis, classes)
        for (name, axis), (classes, reads) in found.items()
        if reads or not read[classes].any()
    ]


def _initializer(value: ir.Value | None) -> str | None:
    """The name under which a weight is trained, through the pair that quantizes it."""
    maker = None if value is None else value.producer()
    if maker is not None and maker.op_type == "DequantizeLinear":
        value = maker.inputs[0]
    return None if value is None else value.name


def _loss(module: TorchGraph, batch: Batch, rng: np.random.Generator) -> Tensor:
    import torch

    feeds = {n: torch.from_numpy(np.ascontiguousarray(a)) for n, a in batch.feeds.items()}
    made = module.run(feeds)
    outputs = [made[name] for name in module.outputs if made[name].is_floating_point()]
    if _classes(batch.labels, outputs):
        wanted = torch.as_tensor(np.asarray(batch.labels)).long()
        return torch.nn.functional.cross_entropy(outputs[0].float(), wanted)
    total = torch.zeros(())
    for output in outputs:
        signs = torch.from_numpy(rng.choice(np.array([-1.0, 1.0], np.float32), output.shape))
        size = output.detach().square().mean().sqrt().clamp_min(1e-12)
        total = total + (signs * output).sum() / size
    return total


def _classes(labels: object, outputs: Sequence[Tensor]) -> bool:
    """Whether labels are numbers of the classes that the first output tells."""
    if labels is None or not outputs or outputs[0].ndim != 2:
        return False
    given = np.asarray(labels)
    whole = given.ndim == 1 and given.dtype.kind in "iu" and given.size > 0
    return bool(whole and given.min() >= 0 and given.max() < outputs[0].shape[1])
