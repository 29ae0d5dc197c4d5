"""SGD and AdamW over kernels, vectors and step sizes, each with its own learning rate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .losses import Loss
from .module import TorchGraph
from .options import FinetuneOptions
from .roles import QuantizationParameters

#: Default rates for a trained model: AdamW at 2e-4 and above spoils a repaired resnet56 that 1.2e-4
#: restores.
_RATES = {"adamw": 1e-4, "sgd": 0.01}
#: Magnitude of weights that the rates are for; of smaller ones a step of a rate is a larger share.
_USUAL = 0.1
#: Least magnitude of a channel relative to its tensor's that its pace follows.
_SMALLEST_CHANNEL = 0.1
#: Smallest step size relative to its start; a smaller one would clip nearly every value.
_SMALLEST_STEP = 0.01


class Optimizer:
    """Torch optimizer with parameter groups, gradient clipping, and step sizes kept above zero.

    Kernels are decayed (Loshchilov and Hutter, 2017, for adamw), norms and biases are not (He et
    al., "Bag of Tricks", 2018). AdamW moves every number by about the learning rate, so
    that of a step size is multiplied by the step size itself, and that of a kernel that is rounded
    by the magnitude of its channel: a first layer that reads pixels of 0 to 255 has weights of
    0.005, of which the plain rate crosses several steps at once.
    """

    def __init__(self, options: FinetuneOptions, module: TorchGraph, loss: Loss) -> None:
        self.highest = options.learning_rate or _RATES[options.optimizer]
        self.clip, self.factor, self.rate = options.clip, 1.0, 0.0
        kernels = list(module.named_weights("kernel").values())
        others = list(module.named_weights("vector").values()) + list(loss.parameters())
        groups = [_group(kernels, 1.0, options.weight_decay), _group(others, 1.0)]
        self.steps = module.named_weights("step") if options.learn_steps else {}
        self.least = {n: _SMALLEST_STEP * t.detach().abs() for n, t in self.steps.items()}
        for name, tensor in module.named_weights("step").items():
            tensor.requires_grad_(name in self.steps)
        for tensor in self.steps.values():
            pace = float(tensor.detach().mean()) if options.optimizer == "adamw" else 1.0
            groups.append(_group([tensor], pace))
        self.rounded: list[tuple[Tensor, Tensor]] = []
        if options.optimizer == "adamw":
            self.rounded = [(t, _paces(t, q)) for t, q in _rounded_kernels(module)]
        groups = [group for group in groups if group["params"]]
        self.parameters: list[nn.Parameter] = [p for g in groups for p in g["params"]]
        self.inner: torch.optim.Optimizer
        if options.optimizer == "adamw":
            self.inner = torch.optim.AdamW(groups, lr=self.highest, fused=True)
        else:
            nesterov = options.momentum > 0
            self.inner = torch.optim.SGD(
                groups, lr=self.highest, momentum=options.momentum, nesterov=nesterov, fused=True
            )

    def zero_grad(self) -> None:
        """Clear the gradients."""
        self.inner.zero_grad()

    def reset(self) -> None:
        """Clear gradients and moments."""
        self.zero_grad()
        self.inner.state.clear()

    def step(self, share: float) -> None:
        """Update all parameters, at a share of the highest learning rate."""
        self.rate = self.highest * share * self.factor
        for group in self.inner.param_groups:
            group["lr"] = self.rate * group["pace"]
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        with torch.no_grad():
            before = [tensor.clone() for tensor, _ in self.rounded]
            self.inner.step()
            for old, (tensor, paces) in zip(before, self.rounded, strict=True):
                torch.lerp(old, tensor, paces, out=tensor)
            for name, tensor in self.steps.items():
                torch.maximum(tensor, self.least[name], out=tensor)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"inner": self.inner.state_dict(), "factor": self.factor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the state of a checkpoint."""
        self.inner.load_state_dict(state["inner"])
        self.factor = state["factor"]


def _rounded_kernels(module: TorchGraph) -> Iterator[tuple[Tensor, QuantizationParameters]]:
    for name, tensor in module.named_weights("kernel").items():
        qparams = module.weights[name].qparams
        if qparams is not None:
            yield tensor, qparams


def _paces(kernel: Tensor, qparams: QuantizationParameters) -> Tensor:
    """Return the magnitude of each channel that has a scale, relative to the usual one."""
    size = kernel.detach().abs()
    axes = [axis for axis in range(kernel.ndim) if axis != qparams.axis % kernel.ndim]
    channels = size.mean(axes, keepdim=True) if axes else size.mean()
    return torch.maximum(channels, _SMALLEST_CHANNEL * size.mean()) / _USUAL


def _group(tensors: list[Any], pace: float, decay: float = 0.0) -> dict[str, Any]:
    return {"params": tensors, "weight_decay": decay, "pace": pace}
