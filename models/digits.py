"""A small residual network for handwritten digits of 8 x 8 pixels, and its training.

The blocks are those of He et al., "Deep Residual Learning for Image Recognition", 2015. It trains
in seconds on one core, and yet has the targets of optimisation: BatchNorm to fold, a shortcut that
couples channels, more channels than the task needs, and 3.3 M multiply-adds.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trimtab.core.progress import Progress

from .blocks import ImageClassifier, initialise
from .digits_data import digits_arrays
from .resnet import BasicBlock
from .training import Training, seeded, shifted, train

__all__ = ["DigitsCnn", "digits_arrays", "digits_cnn", "train_digits"]


class DigitsCnn(ImageClassifier):
    """A stem, one block at full and two at half resolution, and a linear classifier."""

    def __init__(self, num_classes: int, widths: tuple[int, int], dropout: float = 0.0) -> None:
        super().__init__((1, 8, 8))
        narrow, wide = widths
        self.conv1 = nn.Conv2d(1, narrow, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.layer1 = BasicBlock(narrow, narrow, stride=1)
        self.layer2 = BasicBlock(narrow, wide, stride=2)
        self.layer3 = BasicBlock(wide, wide, stride=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(wide, num_classes)
        initialise(self)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - see ImageClassifier
        """Classify images: (N, 1, H, W) -> logits (N, classes)."""
        out = torch.relu(self.bn1(self.conv1(input)))
        out = self.layer3(self.layer2(self.layer1(out)))
        logits: Tensor = self.linear(self.dropout(self.pool(out).flatten(1)))
        return logits


def digits_cnn(
    num_classes: int = 10, widths: tuple[int, int] = (32, 64), dropout: float = 0.0
) -> DigitsCnn:
    """Build the network, untrained: 0.15 M parameters, 3.3 M multiply-adds at 8 x 8.

    Args:
        num_classes: length of a row of logits.
        widths: channels at full and at half resolution.
        dropout: share of the features that training drops before the classifier.
    """
    return DigitsCnn(num_classes, widths, dropout)


def train_digits(
    seed: int = 0,
    epochs: int = 10,
    progress: Progress | None = None,
    *,
    widths: tuple[int, int] = (32, 64),
) -> DigitsCnn:
    """Train a network on the "train" part of the digits, on one thread.

    Args:
        seed: random seed of the initial weights, the order of the images and their shifts; the
            same seed gives the same weights on the same machine.
        epochs: passes over the images.
        progress: progress, reported after each epoch.
        widths: channels at full and at half resolution.

    Returns:
        The network in evaluation mode.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    images, labels = digits_arrays("train")
    with seeded(seed):
        network = digits_cnn(widths=widths)
    recipe = Training(epochs=epochs, batch_size=64, learning_rate=0.1, seed=seed, threads=1)
    return train(network, images, labels, recipe, augment=shifted, progress=progress)
