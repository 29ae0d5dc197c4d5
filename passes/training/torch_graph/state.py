"""State of a training run: its progress, copies of its weights, and what these must keep."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .module import TorchGraph

Weights = dict[str, Tensor]


@dataclass
class TrainingState:
    """Progress of a training run, in the order in which a checkpoint stores it.

    Attributes:
        step: steps taken.
        best_step: steps taken when validation was best.
        stalled: validations since then.
        best_loss: lowest validation loss.
        initial_loss: validation loss before the first step.
        spent: seconds of training.
        stopped: reason why training ended.
    """

    step: int = 0
    best_step: int = 0
    stalled: int = 0
    best_loss: float = math.inf
    initial_loss: float = math.inf
    spent: float = 0.0
    stopped: str = "done"


def snapshot(module: TorchGraph) -> Weights:
    """Copy all weights and statistics."""
    return {name: t.detach().clone() for name, t in module.named_weights().items()}


def restore(module: TorchGraph, weights: Weights) -> None:
    """Restore all weights and statistics from a copy."""
    with torch.no_grad():
        for name, tensor in module.named_weights().items():
            tensor.copy_(weights[name])


class WeightAverage:
    """Running average of the weights: a += (1 - decay) (w - a), with a faster start."""

    def __init__(self, module: TorchGraph, decay: float) -> None:
        self.module, self.decay = module, decay
        self.weights, self.count = snapshot(module), 0

    def update(self) -> None:
        """Move towards the current weights."""
        self.count += 1
        # Of the first few steps the average follows their mean.
        decay = min(self.decay, self.count / (self.count + 10))
        for name, tensor in self.module.named_weights().items():
            self.weights[name].lerp_(tensor.detach(), 1 - decay)


@contextlib.contextmanager
def swapped(module: TorchGraph, weights: Weights | None) -> Iterator[None]:
    """Swap other weights in within the context."""
    if weights is None:
        yield
        return
    own = snapshot(module)
    restore(module, weights)
    try:
        yield
    finally:
        restore(module, own)


class WeightConstraints:
    """Zeros and shared values that earlier passes made and training must keep.

    Rounding makes zeros and equal values as well, so those of quantized kernels are kept only
    where a pass of the lineage pruned or clustered; equal floats only where one clustered.
    """

    def __init__(self, module: TorchGraph, *, zeros: bool, pruned: bool, clustered: bool) -> None:
        self.module = module
        self.masks: Weights = {}
        self.clusters: dict[str, tuple[Tensor, Tensor]] = {}
        for name, tensor in module.named_weights("kernel").items():
            values = tensor.detach()
            rounded = module.weights[name].qparams is not None
            if zeros and (pruned or not rounded) and bool((values == 0).any()):
                self.masks[name] = (values != 0).to(values.dtype)
            if clustered:
                _, index, counts = torch.unique(values, return_inverse=True, return_counts=True)
                self.clusters[name] = index, counts

    def apply(self) -> None:
        """Make values shared and zero again after a step; a shared value moves by its mean."""
        with torch.no_grad():
            for name, (index, counts) in self.clusters.items():
                tensor = self.module.weight(name)
                sums = torch.zeros(len(counts), dtype=tensor.dtype, device=tensor.device)
                sums.index_add_(0, index.reshape(-1), tensor.reshape(-1))
                tensor.copy_((sums / counts)[index])
            for name, mask in self.masks.items():
                self.module.weight(name).mul_(mask)
