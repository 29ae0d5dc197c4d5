"""What the image networks have in common: example inputs and the first weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class ImageClassifier(nn.Module):
    """Base of the networks that map images (N, C, H, W) to logits (N, classes).

    Subclasses call their parameter of `forward` `input`, as torch's own layers do: the exported
    graph and the data files name it so.

    Args:
        example_shape: (C, H, W) of an image as the paper has it. Other sizes work as well.
    """

    def __init__(self, example_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.example_shape = example_shape

    def example_inputs(self) -> tuple[Tensor, ...]:
        """One image of noise (1, C, H, W), the same at each call, where the weights are."""
        generator = torch.Generator().manual_seed(0)
        image = torch.randn((1, *self.example_shape), generator=generator, device="cpu")
        return (image.to(next(self.parameters()).device),)


def initialise(network: nn.Module, linear_std: float | None = None) -> None:
    """Draw the first weights: He's normal law for convolutions, from torch's global generator.

    He et al., "Delving Deep into Rectifiers", 2015, eq. 14 with the fan of the outputs. BatchNorm
    keeps torch's scale 1 and shift 0.

    Args:
        network: changed in place.
        linear_std: standard deviation of linear layers, whose biases become 0; None leaves
            torch's own initialisation.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            # By hand, because torch's own forgets the groups: a depthwise kernel, which feeds
            # one channel only, would start so small that a deep network passes nothing on.
            fan_out = module.weight[:, 0].numel() / module.groups  # out / groups * kh * kw
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear) and linear_std is not None:
            nn.init.normal_(module.weight, std=linear_std)
            nn.init.zeros_(module.bias)
