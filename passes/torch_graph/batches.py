"""Batches to train on: shuffled by seed and epoch, as tensors, augmented where asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trimtab.core.dataset import Batch, Dataset
from trimtab.core.errors import DataError
from trimtab.core.model import Model


@dataclass(frozen=True)
class Batches:
    """A training part and a validation part, disjoint.

    Attributes:
        training: what is learned from.
        validation: what weights are chosen by.
        size: rows in a step.
        seed: of the order.
    """

    training: Dataset
    validation: Dataset
    size: int
    seed: int

    @property
    def per_epoch(self) -> int:
        """Steps that see every training item once; a rest that fills no batch is left out."""
        if self.training.source.batched:
            return len(self.training)
        return max(len(self.training) // self.size, 1)

    def stream(self, start: int) -> Iterator[Batch]:
        """Batches without end from step `start` on, the same for the same seed."""
        epoch, skip = divmod(start, self.per_epoch)
        while True:
            yield from self._epoch(epoch, skip)
            epoch, skip = epoch + 1, 0

    def _epoch(self, epoch: int, skip: int) -> Iterator[Batch]:
        if self.training.source.batched:
            for index, batch in enumerate(self.training):
                if index >= skip:
                    yield batch
            return
        order = np.random.default_rng((self.seed, epoch)).permutation(self.training.positions)
        for index in range(skip, self.per_epoch):
            rows = np.sort(order[index * self.size : (index + 1) * self.size])
            yield from self.training.select(rows, "batch").sized(len(rows))

    def held_back(self) -> Iterator[Batch]:
        """The validation items in order."""
        for batch in self.validation.sized(self.size):
            # Where the model's batch is fixed, a rest does not fit.
            if self.validation.source.batched or batch.size == self.size or not self._fixed:
                yield batch

    @property
    def _fixed(self) -> bool:
        return len(self.validation) >= self.size


def make_batches(model: Model, data: Dataset, share: float, size: int, seed: int) -> Batches:
    """Split data for a model.

    Raises:
        DataError: too few items.
    """
    fixed = {s.shape[0] for s in model.inputs if s.shape and isinstance(s.shape[0], int)}
    size = int(min(fixed)) if fixed else size
    least = 2 * size if fixed and not data.source.batched else 2
    if len(data) < least:
        raise DataError(
            f"holds {len(data)} items, and training needs {least} at least",
            where=data.spec,
            hint="One batch to learn from and one to choose by; give more data",
        )
    held = share
    if fixed and not data.source.batched:  # both parts hold one batch at least
        held = min(max(share, size / len(data)), 1 - size / len(data))
    parts = data.split({"training": 1 - held, "validation": held}, seed=seed)
    training, validation = parts["training"], parts["validation"]
    rows = size if fixed else min(size, len(training))
    return Batches(training, validation, rows, seed)


def to_tensors(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """Feeds as tensors on a device."""
    return {n: torch.from_numpy(np.ascontiguousarray(a)).to(device) for n, a in batch.feeds.items()}


def channels_last(feeds: dict[str, Tensor]) -> dict[str, Tensor]:
    """Images (N, C, H, W) with the channels of a pixel side by side in memory."""
    last = torch.channels_last
    return {n: x.contiguous(memory_format=last) if x.ndim == 4 else x for n, x in feeds.items()}


def augmented(feeds: dict[str, Tensor], how: str, generator: torch.Generator) -> dict[str, Tensor]:
    """Images (N, C, H, W) mirrored left to right, or shifted by up to an eighth, at random."""
    if how == "none":
        return feeds
    return {n: _augment(x, how, generator) if x.ndim == 4 else x for n, x in feeds.items()}


def _augment(x: Tensor, how: str, generator: torch.Generator) -> Tensor:
    if how in {"mirror", "both"}:
        chosen = torch.rand((len(x), 1, 1, 1), generator=generator) < 0.5
        x = torch.where(chosen.to(x.device), x.flip(-1), x)
    if how in {"shift", "both"}:
        count, _, height, width = x.shape
        reach = max(min(height, width) // 8, 1)
        padded = functional.pad(x, (reach,) * 4)
        by = torch.randint(2 * reach + 1, (2, count, 1), generator=generator)
        rows = (by[0] + torch.arange(height))[:, None, :, None].to(x.device)
        columns = (by[1] + torch.arange(width))[:, None, None, :].to(x.device)
        items = torch.arange(count, device=x.device)[:, None, None, None]
        channels = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
        x = padded[items, channels, rows, columns]
    return x
