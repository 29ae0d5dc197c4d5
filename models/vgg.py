"""VGG with 16 weight layers.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014,
configuration D. Names are torchvision's, so public checkpoints load.
"""

from __future__ import annotations

from torch import Tensor, nn

from .blocks import ImageClassifier, initialise

# Channels and number of the 3 x 3 convolutions before each of the five poolings.
STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class Vgg(ImageClassifier):
    """Five stages of 3 x 3 convolutions and a classifier of three linear layers."""

    def __init__(
        self, num_classes: int, *, batch_norm: bool, cifar: bool, dropout: float, width: float
    ) -> None:
        super().__init__((3, 32, 32) if cifar else (3, 224, 224))
        grid, units = (1, _scaled(512, width)) if cifar else (7, _scaled(4096, width))
        last = _scaled(STAGES[-1][0], width)
        self.features = _features(batch_norm=batch_norm, width=width)
        # The identity at the paper's size; at any other it makes the classifier fit. It exports for
        # fixed image sizes only: ONNX has no adaptive pooling.
        self.avgpool = nn.AdaptiveAvgPool2d(grid)
        self.classifier = nn.Sequential(
            nn.Linear(last * grid * grid, units),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(units, units),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(units, num_classes),
        )
        # Weights of N(0, 0.01) suit 4096 inputs; 512 of them would let the signal fade.
        initialise(self, linear_std=None if cifar else 0.01)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - see ImageClassifier
        """Classify images: (N, 3, H, W) -> logits (N, classes); H and W at least 32."""
        logits: Tensor = self.classifier(self.avgpool(self.features(input)).flatten(1))
        return logits


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _features(*, batch_norm: bool, width: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels_in = 3
    for base, count in STAGES:
        channels = _scaled(base, width)
        for _ in range(count):
            layers.append(nn.Conv2d(channels_in, channels, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(channels))
            layers.append(nn.ReLU())
            channels_in = channels
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


def vgg16(
    num_classes: int = 1000,
    *,
    batch_norm: bool = False,
    cifar: bool = False,
    dropout: float = 0.5,
    width: float = 1.0,
) -> Vgg:
    """Build VGG-16: 138,357,544 parameters, 15.5 G multiply-adds at 224 x 224.

    Args:
        num_classes: length of a row of logits.
        batch_norm: BatchNorm after each convolution.
        cifar: a classifier of 512 units over one pixel, for 32 x 32 images, instead of 4096 units
            over 7 x 7: 15.3 M parameters with 10 classes.
        dropout: share of the classifier's units that training drops.
        width: factor on all channel and unit counts; the paper's is 1.
    """
    return Vgg(num_classes, batch_norm=batch_norm, cifar=cifar, dropout=dropout, width=width)
