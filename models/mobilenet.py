"""MobileNetV2.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018, table 2. Names are
torchvision's, so public checkpoints load.
"""

from __future__ import annotations

from torch import Tensor, nn

from .blocks import ImageClassifier, initialise

# Table 2: expansion t, channels c, blocks n, stride s of the first block.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """Block that expands by 1 x 1, filters each channel by 3 x 3, and projects linearly.

    `expansion` is the factor on the channels inside; 1 omits the expansion.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        inside = channels_in * expansion
        expand = [] if expansion == 1 else [_conv_bn_relu(channels_in, inside, 1)]
        self.conv = nn.Sequential(
            *expand,
            _conv_bn_relu(inside, inside, 3, stride, groups=inside),
            nn.Conv2d(inside, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.residual = stride == 1 and channels_in == channels

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block: (N, channels_in, H, W) -> (N, channels, H / stride, W / stride)."""
        out: Tensor = self.conv(x)
        return x + out if self.residual else out


class MobileNetV2(ImageClassifier):
    """A stem, 17 inverted residuals, a wide 1 x 1 convolution and a linear classifier."""

    def __init__(self, num_classes: int, width: float, *, cifar: bool, dropout: float) -> None:
        super().__init__((3, 32, 32) if cifar else (3, 224, 224))
        channels_in = _rounded(32 * width)
        # The paper widens the last layer with the network, but never narrows it.
        last = _rounded(1280 * max(1.0, width))
        layers: list[nn.Module] = [_conv_bn_relu(3, channels_in, 3, 1 if cifar else 2)]
        for stage, (expansion, base, count, stage_stride) in enumerate(STAGES):
            channels = _rounded(base * width)
            for n in range(count):
                stride = 1 if n > 0 or (cifar and stage < 2) else stage_stride
                layers.append(InvertedResidual(channels_in, channels, stride, expansion))
                channels_in = channels
        layers.append(_conv_bn_relu(channels_in, last, 1))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))
        initialise(self, linear_std=0.01)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - see ImageClassifier
        """Classify images: (N, 3, H, W) -> logits (N, classes)."""
        logits: Tensor = self.classifier(self.pool(self.features(input)).flatten(1))
        return logits


def _conv_bn_relu(
    channels_in: int, channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    pad = kernel // 2
    conv = nn.Conv2d(channels_in, channels, kernel, stride, pad, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU6())


def _rounded(channels: float, step: int = 8) -> int:
    """Round to the nearest multiple of `step`, but at most 10% down."""
    nearest = max(step, int(channels + step / 2) // step * step)
    return nearest + step if nearest < 0.9 * channels else nearest


def mobilenet_v2(
    num_classes: int = 1000, width: float = 1.0, *, cifar: bool = False, dropout: float = 0.2
) -> MobileNetV2:
    """Build MobileNetV2: 3,504,872 parameters, 0.3 G multiply-adds at 224 x 224.

    Args:
        num_classes: length of a row of logits.
        width: factor on all channel counts (the paper's width multiplier).
        cifar: stride 1 in the stem and the first two stages, for 32 x 32 images.
        dropout: share of the features that training drops before the classifier.
    """
    return MobileNetV2(num_classes, width, cifar=cifar, dropout=dropout)
