"""Importance by a first-order expansion of the loss (Molchanov et al. 2019, arXiv 1906.10771).

Setting a channel to zero changes the loss, to first order, by the sum of gradient times weight over
the columns that read it; its square, averaged over batches, is the score. With labels the loss is
the cross-entropy of the first output. Without, the outputs themselves have to be kept: their
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

from ...graph.queries import producer
from ..dependency.graph import DependencyGraph, WeightAxis

if TYPE_CHECKING:
    from torch import Tensor

    from ...training.torch_graph import TorchGraph

#: Items whose gradients are summed before they are squared.
ROWS = 16

Slices = list[tuple[str, int, NDArray[np.int64]]]


def taylor(
    model: Model, graph: DependencyGraph, data: Dataset, ctx: Context
) -> NDArray[np.float64]:
    """Return the mean squared first-order change of the loss, (units,); 0 without trained weights.

    The loss is the cross-entropy where `data` have labels; `graph` was built on `model`.

    Raises:
        MissingExtraError: without PyTorch.
        ModelError: PyTorch cannot differentiate some operators here; all of them are named.
    """
    from ...training import torch_graph

    module = torch_graph.to_module(model)
    slices = _slices(graph, module)
    scores, count = np.zeros(graph.num_units), 0
    rng = np.random.default_rng(ctx.seed)
    for batch in ctx.progress.track(data, "differentiating", data.batches):
        module.zero_grad()
        _loss(module, batch, rng).backward()  # type: ignore[no-untyped-call]
        change = np.zeros(graph.num_units)
        for name, axis, units in slices:
            weight = module.weight(name)
            if weight.grad is not None:
                product = (weight.grad * weight.detach()).movedim(axis, 0).flatten(1).sum(1)
                np.add.at(change, units, product.double().numpy())
        scores += np.square(change)
        count += 1
    return scores / max(count, 1)


def _slices(graph: DependencyGraph, module: TorchGraph) -> Slices:
    """Return axes of trained weights with the unit of each position: those that read it, if any."""
    found: dict[tuple[str, int], WeightAxis] = {}
    for row in graph.weight_axes:
        name = _initializer(row.operand.value)
        if name in module.weights:
            found[str(name), row.axis] = row
    read = np.zeros(graph.num_units, bool)
    for row in found.values():
        if not row.produces:
            read[row.units] = True
    return [
        (name, axis, row.units)
        for (name, axis), row in found.items()
        if not (row.produces and read[row.units].any())
    ]


def _initializer(value: ir.Value) -> str | None:
    """Return the name under which a weight is trained, through the pair that quantizes it."""
    node = producer(value, "DequantizeLinear")
    source = value if node is None else node.inputs[0]
    return None if source is None else source.name


def _loss(module: TorchGraph, batch: Batch, rng: np.random.Generator) -> Tensor:
    import torch

    feeds = {n: torch.tensor(a) for n, a in batch.feeds.items()}
    tensors = module.run(feeds)
    outputs = [tensors[name] for name in module.outputs if tensors[name].is_floating_point()]
    if _are_class_indices(batch.labels, outputs):
        classes = torch.as_tensor(np.asarray(batch.labels)).long()
        return torch.nn.functional.cross_entropy(outputs[0].float(), classes)
    total = torch.zeros(())
    for output in outputs:
        signs = torch.from_numpy(rng.choice(np.array([-1.0, 1.0], np.float32), output.shape))
        size = output.detach().square().mean().sqrt().clamp_min(1e-12)
        total = total + (signs * output).sum() / size
    return total


def _are_class_indices(targets: object, outputs: Sequence[Tensor]) -> bool:
    """Return whether labels are numbers of the classes that the first output scores."""
    if targets is None or not outputs or outputs[0].ndim != 2:
        return False
    numbers = np.asarray(targets)
    whole = numbers.ndim == 1 and numbers.dtype.kind in "iu" and numbers.size > 0
    return bool(whole and numbers.min() >= 0 and numbers.max() < outputs[0].shape[1])
