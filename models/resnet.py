"""Residual networks for ImageNet.

He et al., "Deep Residual Learning for Image Recognition", 2015, table 1, with projection shortcuts
where the shape changes (option B). The bottleneck strides in its 3 x 3 convolution ("v1.5", Goyal
et al., "Accurate, Large Minibatch SGD", 2017), as public checkpoints do. Names are torchvision's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks import ImageClassifier, initialise


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions, the first of which strides, and a shortcut."""

    expansion = 1

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _projection(channels_in, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block: (N, channels_in, H, W) -> (N, width, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + shortcut)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolution, the last four times as wide, and a shortcut.

    The 3 x 3 convolution strides; `width` is its number of channels.
    """

    expansion = 4

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.downsample = _projection(channels_in, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block: (N, channels_in, H, W) -> (N, 4 width, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = torch.relu(self.bn1(self.conv1(x)))
        out = torch.relu(self.bn2(self.conv2(out)))
        return torch.relu(self.bn3(self.conv3(out)) + shortcut)


class ResNet(ImageClassifier):
    """A stem, four stages of `depths` blocks, and a linear classifier.

    `width` is a factor on all channel counts.
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        depths: tuple[int, int, int, int],
        num_classes: int = 1000,
        width: float = 1.0,
    ) -> None:
        super().__init__((3, 224, 224))
        a, b, c, d = (max(1, round(channels * width)) for channels in (64, 128, 256, 512))
        self.conv1 = nn.Conv2d(3, a, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(a)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        wide = block.expansion
        self.layer1 = _stage(block, a, a, depths[0], stride=1)
        self.layer2 = _stage(block, a * wide, b, depths[1], stride=2)
        self.layer3 = _stage(block, b * wide, c, depths[2], stride=2)
        self.layer4 = _stage(block, c * wide, d, depths[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(d * wide, num_classes)
        initialise(self)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - see ImageClassifier
        """Classify images: (N, 3, H, W) -> logits (N, classes)."""
        out = self.maxpool(torch.relu(self.bn1(self.conv1(input))))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        logits: Tensor = self.fc(self.avgpool(out).flatten(1))
        return logits


def _projection(channels_in: int, channels: int, stride: int) -> nn.Sequential | None:
    """Return the shortcut of option B: a 1 x 1 convolution where the shape changes, else None."""
    if stride == 1 and channels_in == channels:
        return None
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
    )


def _stage(
    block: type[BasicBlock | Bottleneck], channels_in: int, width: int, depth: int, stride: int
) -> nn.Sequential:
    first = block(channels_in, width, stride)
    rest = (block(width * block.expansion, width, 1) for _ in range(depth - 1))
    return nn.Sequential(first, *rest)


def resnet18(num_classes: int = 1000, width: float = 1.0) -> ResNet:
    """Build ResNet-18: 11,689,512 parameters, 1.8 G multiply-adds at 224 x 224."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, width)


def resnet50(num_classes: int = 1000, width: float = 1.0) -> ResNet:
    """Build ResNet-50: 25,557,032 parameters, 4.1 G multiply-adds at 224 x 224."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, width)
