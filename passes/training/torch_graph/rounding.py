"""Weights rounded up or down by gradient: AdaRound's soft rounding in a part of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.core.model import Model

from .module import to_module

#: h = clip(sigmoid(V) (ZETA - GAMMA) + GAMMA, 0, 1) reaches 0 and 1 with gradients left over.
ZETA, GAMMA = 1.1, -0.1
#: Weight of the term that drives h to 0 or 1, against an error that starts at 1.
REGULARIZATION = 1.0
#: First and last exponent of that term, after a fifth of the steps without it.
SHARPNESS = (20.0, 2.0)
WARM_UP = 0.2
#: Learning rate of Adam on V, and batch size.
RATE = 1e-2
BATCH = 32

#: Name of a float weight, the weight, its scale, zero points, smallest and largest integer.
WeightGrid = tuple[str, NDArray[Any], NDArray[Any], NDArray[Any], int, int]


def round_softly(
    model: Model,
    grids: Mapping[str, WeightGrid],
    inputs: NDArray[Any],
    target: NDArray[Any],
    *,
    seed: int,
    steps: int,
) -> dict[str, NDArray[np.float64]]:
    """Find the integers of each weight that bring the outputs closest to the target.

    Args:
        model: part of a model with one input, one output and float weights.
        grids: weight and quantization parameters, by layer.
        inputs: inputs (N, ...).
        target: wanted outputs (N, ...).
        seed: random seed of the order of samples.
        steps: steps of gradient descent.
    """
    module = to_module(model).requires_grad_(requires_grad=False)
    soft = {layer: _SoftRounding(grid) for layer, grid in grids.items()}
    optimizer = torch.optim.Adam([s.v for s in soft.values()], lr=RATE)
    rng = np.random.default_rng(seed)
    x, y = torch.from_numpy(inputs), torch.from_numpy(target)
    size = float(_error(module, x[:BATCH], y[:BATCH], {})) + 1e-12
    for number in range(steps):
        rows = rng.permutation(len(x))[:BATCH]
        weights = {module.key(s.name): s.weight() for s in soft.values()}
        loss = _error(module, x[rows], y[rows], weights) / size
        progress = number / max(steps, 1)
        if progress > WARM_UP:
            done = (progress - WARM_UP) / (1 - WARM_UP)
            beta = SHARPNESS[1] + (SHARPNESS[0] - SHARPNESS[1]) * 0.5 * (1 + np.cos(done * np.pi))
            loss = loss + REGULARIZATION * sum(s.undecided(beta) for s in soft.values())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {layer: s.integers() for layer, s in soft.items()}


def _error(module: Any, x: Tensor, y: Tensor, weights: dict[str, Tensor]) -> Tensor:
    made: Tensor = torch.func.functional_call(module, weights, (x,))
    return (made - y).square().mean()


class _SoftRounding:
    """Weight between its two nearest integers.

    Attributes:
        name: name of the float weight.
        v: trained variable V, in the weight's shape.
    """

    def __init__(self, grid: WeightGrid) -> None:
        self.name, original, scale, zero, self.low, self.high = grid
        self.scale, self.zero = torch.from_numpy(scale), torch.from_numpy(zero)
        ratio = torch.from_numpy(original) / self.scale + self.zero
        self.floor = torch.floor(ratio)
        part = torch.clamp(ratio - self.floor, 1e-3, 1 - 1e-3)
        self.v = -torch.log((ZETA - GAMMA) / (part - GAMMA) - 1)
        self.v.requires_grad_()

    def up(self) -> Tensor:
        """Return h, the share rounded up, 0 to 1."""
        return torch.clamp(torch.sigmoid(self.v) * (ZETA - GAMMA) + GAMMA, 0, 1)

    def weight(self) -> Tensor:
        """Return the float weight of the soft integers."""
        whole = torch.clamp(self.floor + self.up(), self.low, self.high)
        return ((whole - self.zero) * self.scale).float()

    def undecided(self, beta: float) -> Tensor:
        """Return the mean over the weight of 1 - |2 h - 1|^beta."""
        return (1 - (2 * self.up() - 1).abs().pow(beta)).mean()

    def integers(self) -> NDArray[np.float64]:
        """Return the nearer of both integers."""
        hard = self.floor + (self.up().detach() >= 0.5)
        result: NDArray[np.float64] = torch.clamp(hard, self.low, self.high).numpy()
        return result
