"""Base of the image networks: example inputs and initial weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class ImageClassifier(nn.Module):
    """Base of the networks that map images (N, C, H, W) to logits (N, classes).

    Subclasses call their parameter of `forward` `input`, as torch's own layers do: the exported
    graph and the data files name it so.

    Args:
        example_shape: shape (C, H, W) of an image in the paper. Other sizes work as well.
    """

    def __init__(self, example_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.example_shape = example_shape

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return an image of noise (1, C, H, W), the same each time, on the weights' device."""
        generator = torch.Generator().manual_seed(0)
        image = torch.randn((1, *self.example_shape), generator=generator, device="cpu")
        return (image.to(next(self.parameters()).device),)


def initialise(network: nn.Module, linear_std: float | None = None) -> None:
    """Draw initial weights: He's normal law for convolutions, from torch's global generator.

    He et al., "Delving Deep into Rectifiers", 2015, eq. 14 with the fan of the outputs. BatchNorm
    keeps torch's scale 1 and shift 0.

    Args:
        network: changed in place.
        linear_std: standard deviation of linear layers, whose biases become 0; None leaves
            torch's own initialisation.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            # torch's own ignores groups: a depthwise kernel, which feeds one channel only, would
            # start so small that the signal fades in a deep network.
            fan_out = module.weight[:, 0].numel() / module.groups  # out / groups * kh * kw
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear) and linear_std is not None:
            nn.init.normal_(module.weight, std=linear_std)
            nn.init.zeros_(module.bias)
