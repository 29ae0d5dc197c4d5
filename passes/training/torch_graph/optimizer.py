"""SGD and AdamW over the three kinds of parameters, which learn at their own pace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .losses import Loss
from .module import TorchGraph

if TYPE_CHECKING:
    from ..finetune import Finetune

#: For a trained model. AdamW at 2e-4 and above undid a repaired resnet56 that 1.2e-4 brought back.
_RATES = {"adamw": 1e-4, "sgd": 0.01}
#: A step size that fell below this part of its start would round everything to its ends.
_SMALLEST_STEP = 0.01


class Optimizer:
    """A torch optimiser with groups, clipping, and step sizes kept above zero.

    Kernels are decayed (Loshchilov and Hutter, 2017, for adamw), norms and biases are not (He et
    al., "Bag of Tricks", 2018). AdamW moves every number by about the learning rate, so that of a
    step size is multiplied by the step size itself.
    """

    def __init__(self, how: Finetune, module: TorchGraph, loss: Loss) -> None:
        self.highest = how.learning_rate or _RATES[how.optimizer]
        self.clip, self.factor, self.rate = how.clip, 1.0, 0.0
        kernels = list(module.named_weights("kernel").values())
        others = list(module.named_weights("vector").values()) + list(loss.parameters())
        groups: list[dict[str, Any]] = [
            {"params": kernels, "weight_decay": how.weight_decay, "pace": 1.0},
            {"params": others, "weight_decay": 0.0, "pace": 1.0},
        ]
        self.steps = module.named_weights("step") if how.learn_steps else {}
        self.least = {n: _SMALLEST_STEP * t.detach().abs() for n, t in self.steps.items()}
        for name, tensor in module.named_weights("step").items():
            tensor.requires_grad_(name in self.steps)
        for tensor in self.steps.values():
            pace = float(tensor.detach().mean()) if how.optimizer == "adamw" else 1.0
            groups.append({"params": [tensor], "weight_decay": 0.0, "pace": pace})
        groups = [group for group in groups if group["params"]]
        self.parameters: list[nn.Parameter] = [p for g in groups for p in g["params"]]
        self.inner: torch.optim.Optimizer
        if how.optimizer == "adamw":
            self.inner = torch.optim.AdamW(groups, lr=self.highest, fused=True)
        else:
            nesterov = how.momentum > 0
            self.inner = torch.optim.SGD(
                groups, lr=self.highest, momentum=how.momentum, nesterov=nesterov, fused=True
            )

    def zero(self) -> None:
        """Forget the gradients."""
        self.inner.zero_grad()

    def forget(self) -> None:
        """Forget gradients and moments."""
        self.zero()
        self.inner.state.clear()

    def step(self, share: float) -> None:
        """Move all parameters, at a share of the highest learning rate."""
        self.rate = self.highest * share * self.factor
        for group in self.inner.param_groups:
            group["lr"] = self.rate * group["pace"]
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.inner.step()
        with torch.no_grad():
            for name, tensor in self.steps.items():
                torch.maximum(tensor, self.least[name], out=tensor)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"inner": self.inner.state_dict(), "factor": self.factor}

    def load(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.inner.load_state_dict(state["inner"])
        self.factor = state["factor"]
