"""Batches to train on: shuffled by seed and epoch, as tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trimtab.core.data import Batch, Rows
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError
from trimtab.core.model import Model

from .module import TorchGraph


@dataclass(frozen=True)
class Taken:
    """A batch, and what it is a batch of.

    Attributes:
        batch: feeds and labels.
        rows: positions of its items in the source; its own one where the source yields batches.
        epoch: times that the data were seen before; -1 for items that are not trained on.
    """

    batch: Batch
    rows: Rows
    epoch: int = -1

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.rows[:8]))
        return f"items {shown}{', ...' if len(self.rows) > 8 else ''}"


@dataclass(frozen=True)
class Batches:
    """A training part and a validation part, disjoint.

    Attributes:
        training: what is learned from.
        validation: what weights are chosen by.
        size: rows in a step.
        seed: of the order.
        fixed: whether the model takes batches of this size only.
    """

    training: Dataset
    validation: Dataset
    size: int
    seed: int
    fixed: bool = False

    @property
    def per_epoch(self) -> int:
        """Steps that see every training item once; a rest that fills no batch is left out."""
        if self.training.source.batched:
            return len(self.training)
        return max(len(self.training) // self.size, 1)

    def stream(self, start: int) -> Iterator[Taken]:
        """Batches without end from step `start` on, the same for the same seed."""
        epoch, skip = divmod(start, self.per_epoch)
        while True:
            yield from self._epoch(epoch, skip)
            epoch, skip = epoch + 1, 0

    def _epoch(self, epoch: int, skip: int) -> Iterator[Taken]:
        if self.training.source.batched:
            positions = self.training.positions
            for index, batch in enumerate(self.training):
                if index >= skip:
                    yield Taken(batch, positions[index : index + 1], epoch)
            return
        order = np.random.default_rng((self.seed, epoch)).permutation(self.training.positions)
        for index in range(skip, self.per_epoch):
            rows = np.sort(order[index * self.size : (index + 1) * self.size])
            yield Taken(_read(self.training, rows), rows, epoch)

    def held_back(self) -> Iterator[Taken]:
        """The validation items in order."""
        positions = self.validation.positions
        if self.validation.source.batched:
            for index, batch in enumerate(self.validation):
                yield Taken(batch, positions[index : index + 1])
            return
        for start in range(0, len(positions), self.size):
            rows = positions[start : start + self.size]
            if len(rows) == self.size or not self.fixed:
                yield Taken(_read(self.validation, rows), rows)


def _read(data: Dataset, rows: Rows) -> Batch:
    """The items at these positions as one batch; shards give theirs apart."""
    parts = list(data.select(rows, "batch").sized(len(rows)))
    if len(parts) == 1:
        return parts[0]
    feeds = {name: np.concatenate([p.feeds[name] for p in parts]) for name in parts[0].feeds}
    labels = [p.labels for p in parts if p.labels is not None]
    return Batch(feeds, np.concatenate(labels) if len(labels) == len(parts) else None)


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
    return Batches(training, validation, rows, seed, bool(fixed))


def to_tensors(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """Feeds as tensors on a device."""
    return {n: torch.from_numpy(np.ascontiguousarray(a)).to(device) for n, a in batch.feeds.items()}


def channels_last(feeds: dict[str, Tensor]) -> dict[str, Tensor]:
    """Images (N, C, H, W) with the channels of a pixel side by side in memory."""
    last = torch.channels_last
    return {n: x.contiguous(memory_format=last) if x.ndim == 4 else x for n, x in feeds.items()}


def estimate(module: TorchGraph, batches: Batches, device: torch.device) -> None:
    """Statistics of BatchNormalization as the mean over some training batches."""
    mode = module.mode
    module.train()
    mode.batch_norm = "trained"
    try:
        with torch.no_grad():
            for count, taken in enumerate(batches.stream(0), 1):
                mode.momentum = 1 / count  # a mean over all batches
                module.run(to_tensors(taken.batch, device))
                if count >= min(batches.per_epoch, 20):
                    break
    finally:
        mode.batch_norm, mode.momentum = "frozen", 0.1
