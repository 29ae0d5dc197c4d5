"""Supervised training loop for all networks of this folder.

SGD with Nesterov momentum or AdamW (Loshchilov and Hutter, "Decoupled Weight Decay
Regularization", 2017), a cosine schedule (the same, "SGDR", 2016) after a linear warm-up (Goyal et
al., "Accurate, Large Minibatch SGD", 2017), and smoothed labels (Szegedy et al., "Rethinking the
Inception Architecture", 2015) if requested.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from trimtab.core.errors import DataError, OptionError
from trimtab.core.progress import Progress, Silent

ArrayOrTensor = NDArray[Any] | Tensor
AugmentFunction = Callable[[Tensor, torch.Generator], Tensor]
N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Training:
    """Hyperparameters of the training of a network.

    Attributes:
        epochs: passes over the items.
        batch_size: largest batch size.
        optimizer: "sgd" (momentum 0.9) or "adamw".
        learning_rate: highest learning rate, at the end of the warm-up; 0.1 suits SGD, 0.001
            AdamW.
        weight_decay: weight decay; biases and normalisation have none.
        warmup: share of all steps in which the learning rate rises.
        label_smoothing: share of a label that is spread over all classes.
        seed: random seed of the order of items, augmentation and dropout.
        threads: torch's threads in training; None leaves them unchanged.

    Raises:
        OptionError: a field is out of its range.
    """

    epochs: int = 10
    batch_size: int = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    warmup: float = 0.1
    label_smoothing: float = 0.0
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, fits, range_ in (
            ("epochs", self.epochs >= 0, "0 or more"),
            ("batch_size", self.batch_size >= 1, "1 or more"),
            ("optimizer", self.optimizer in ("sgd", "adamw"), "'sgd' or 'adamw'"),
            ("learning_rate", self.learning_rate > 0, "above 0"),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
            ("warmup", 0 <= self.warmup < 1, "from 0 to below 1"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "from 0 to below 1"),
            ("threads", self.threads is None or self.threads >= 1, "1 or more"),
        ):
            if not fits:
                value = getattr(self, name)
                raise OptionError(f"{name} is {value!r}, must be {range_}", where="Training")

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step: a linear rise, then half a cosine down to zero."""
        rise = math.ceil(self.warmup * steps)
        if step < rise:
            return self.learning_rate * (step + 1) / rise
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise)))


def train(
    network: N,
    inputs: ArrayOrTensor,
    labels: ArrayOrTensor,
    recipe: Training | None = None,
    *,
    augment: AugmentFunction | None = None,
    progress: Progress | None = None,
) -> N:
    """Train a classifier in place on data that fits in memory.

    Torch's global generator and thread count are restored afterwards. The same seed, data, threads
    and machine give the same weights on a CPU.

    Args:
        network: network from inputs (n, ...) to logits (n, classes).
        inputs: (N, ...) float32.
        labels: (N,) int64.
        recipe: hyperparameters (default: those of `Training`).
        augment: function that augments a batch, drawing from the generator.
        progress: progress, reported after each epoch.

    Returns:
        The same network, in evaluation mode.

    Raises:
        DataError: no items, or not as many labels as inputs.
    """
    recipe = recipe or Training()
    device = next(network.parameters()).device
    x, y = _pairs(inputs, labels)
    cross_entropy = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    generator = torch.Generator().manual_seed(recipe.seed)
    optimizer = _optimizer(network, recipe)
    # Equal shares: a last batch of one item would leave BatchNorm without a variance.
    batches = math.ceil(len(x) / recipe.batch_size)
    epochs = (progress or Silent()).track(range(recipe.epochs), "train", recipe.epochs)
    network.train()
    with seeded(recipe.seed, device), _threads(recipe.threads):
        for epoch in epochs:
            shares = torch.randperm(len(x), generator=generator).tensor_split(batches)
            for n, chosen in enumerate(shares):
                batch = augment(x[chosen], generator) if augment else x[chosen]
                for group in optimizer.param_groups:
                    group["lr"] = recipe.rate(epoch * batches + n, recipe.epochs * batches)
                logits = network(batch.to(device))
                loss = cross_entropy(logits, y[chosen].to(device))
                optimizer.zero_grad()
                torch.autograd.backward(loss)  # loss.backward() has no types
                optimizer.step()
    return network.eval()


def shifted(images: Tensor, generator: torch.Generator, pixels: int = 1) -> Tensor:
    """Shift each image (N, C, H, W) by up to `pixels` in both directions, padding with zeros."""
    count, _, height, width = images.shape
    padded = functional.pad(images, (pixels,) * 4)
    by = torch.randint(2 * pixels + 1, (2, count, 1), generator=generator)
    rows = (by[0] + torch.arange(height))[:, None, :, None]  # (N, 1, H, 1)
    columns = (by[1] + torch.arange(width))[:, None, None, :]  # (N, 1, 1, W)
    items = torch.arange(count)[:, None, None, None]
    channels = torch.arange(images.shape[1])[None, :, None, None]
    return padded[items, channels, rows, columns]


def mirrored(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the images (N, C, H, W), chosen at random."""
    chosen = torch.rand((len(images), 1, 1, 1), generator=generator) < 0.5
    return torch.where(chosen.to(images.device), images.flip(-1), images)


def _pairs(inputs: ArrayOrTensor, labels: ArrayOrTensor) -> tuple[Tensor, Tensor]:
    x, y = torch.as_tensor(inputs), torch.as_tensor(labels)
    if len(x) == 0 or len(x) != len(y):
        raise DataError(
            f"training needs inputs and as many labels, got {len(x)} and {len(y)}", where="train"
        )
    return x, y


def _optimizer(network: nn.Module, recipe: Training) -> torch.optim.Optimizer:
    """Build the optimizer; only matrices and kernels decay (He et al., "Bag of Tricks", 2018)."""
    trained = [p for p in network.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate)
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, nesterov=True)


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's generator of the CPU, and of `device` where it is a GPU; restore them after."""
    gpu = device if device is not None and device.type == "cuda" else None
    with torch.random.fork_rng(devices=[] if gpu is None else [gpu]):
        # torch.manual_seed would also seed every other GPU, without restoring it.
        torch.default_generator.manual_seed(seed)
        if gpu is not None:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count or before)
        yield
    finally:
        torch.set_num_threads(before)
