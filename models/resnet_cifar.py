"""Residual networks for 32 x 32 images.

He et al., "Deep Residual Learning for Image Recognition", 2015, section 4.2: 6n + 2 layers, three
stages of n blocks with 16, 32 and 64 channels, and shortcuts without parameters (option A).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .blocks import ImageClassifier, initialise


class CifarBlock(nn.Module):
    """Two 3 x 3 convolutions, the first of which strides, and a shortcut: relu(x + f(x))."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.added = channels - channels_in

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block: (N, channels_in, H, W) -> (N, channels, H / stride, W / stride)."""
        out = torch.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return torch.relu(out + self.shortcut(x))

    def shortcut(self, x: Tensor) -> Tensor:
        """Return the shortcut of option A: every stride-th pixel, zeros for added channels."""
        if self.stride == 1 and self.added == 0:
            return x
        before = self.added // 2
        thinned = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(thinned, (0, 0, 0, 0, before, self.added - before))


class CifarResNet(ImageClassifier):
    """Network of 6 `depth` + 2 layers; `width` is the number of channels of the first stage."""

    def __init__(self, depth: int, num_classes: int = 10, width: int = 16) -> None:
        super().__init__((3, 32, 32))
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, depth, stride=1)
        self.layer2 = _stage(width, 2 * width, depth, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, depth, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(4 * width, num_classes)
        initialise(self)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - see ImageClassifier
        """Classify images: (N, 3, H, W) -> logits (N, classes)."""
        out = torch.relu(self.bn1(self.conv1(input)))
        out = self.layer3(self.layer2(self.layer1(out)))
        logits: Tensor = self.linear(self.pool(out).flatten(1))
        return logits


def _stage(channels_in: int, channels: int, depth: int, stride: int) -> nn.Sequential:
    first = CifarBlock(channels_in, channels, stride)
    return nn.Sequential(first, *(CifarBlock(channels, channels, 1) for _ in range(depth - 1)))


def resnet20(num_classes: int = 10) -> CifarResNet:
    """Build ResNet-20 for 32 x 32 images: 0.27 M parameters, 41 M multiply-adds."""
    return CifarResNet(3, num_classes)


def resnet56(num_classes: int = 10) -> CifarResNet:
    """Build ResNet-56 for 32 x 32 images: 0.85 M parameters, 126 M multiply-adds."""
    return CifarResNet(9, num_classes)
