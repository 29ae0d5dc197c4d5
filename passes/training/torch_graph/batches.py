"""Training and validation batches, shuffled by seed and epoch, and their tensors."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trimtab.core.batches import finite_batches, fixed_rows
from trimtab.core.data import Batch, Rows
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError
from trimtab.core.feeds import check_finite
from trimtab.core.model import Model

from .module import TorchGraph

#: Samples that channel pruning takes where its step in the lineage names no number.
PRUNING_SAMPLES = 512
NO_ROWS: Rows = np.empty(0, np.int64)


@dataclass(frozen=True)
class DrawnBatch:
    """Batch with the positions of its items.

    Attributes:
        batch: feeds and labels.
        rows: positions of the items in the source; of the batch where the source yields batches.
        epoch: passes over the data before this one; -1 for validation items.
    """

    batch: Batch
    rows: Rows
    epoch: int = -1

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.rows[:8]))
        return f"items {shown}{', ...' if len(self.rows) > 8 else ''}"


@dataclass(frozen=True)
class BatchSampler:
    """Sampler of batches from disjoint training and validation data.

    Attributes:
        training: data to learn from.
        validation: data to choose weights by.
        size: batch size.
        seed: random seed of the order.
        fixed: true where the model takes batches of this size only.
    """

    training: Dataset
    validation: Dataset
    size: int
    seed: int
    fixed: bool = False

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch; a remainder that does not fill a batch is left out."""
        if self.training.source.batched:
            return len(self.training)
        return max(len(self.training) // self.size, 1)

    def stream(self, start: int) -> Iterator[DrawnBatch]:
        """Yield batches endlessly from step `start` on, the same ones for the same seed."""
        epoch, skip = divmod(start, self.per_epoch)
        while True:
            yield from self._epoch(epoch, skip)
            epoch, skip = epoch + 1, 0

    def _epoch(self, epoch: int, skip: int) -> Iterator[DrawnBatch]:
        if self.training.source.batched:
            yield from itertools.islice(_whole_batches(self.training, epoch), skip, None)
            return
        order = np.random.default_rng((self.seed, epoch)).permutation(self.training.positions)
        for index in range(skip, self.per_epoch):
            rows = np.sort(order[index * self.size : (index + 1) * self.size])
            yield DrawnBatch(_read(self.training, rows), rows, epoch)

    def validation_batches(self) -> Iterator[DrawnBatch]:
        """Yield the validation items in order."""
        if self.validation.source.batched:
            yield from _whole_batches(self.validation)
            return
        positions = self.validation.positions
        for start in range(0, len(positions), self.size):
            rows = positions[start : start + self.size]
            if len(rows) == self.size or not self.fixed:
                yield DrawnBatch(_read(self.validation, rows), rows)


def _whole_batches(data: Dataset, epoch: int = -1) -> Iterator[DrawnBatch]:
    """Yield the batches of a source that yields no single items."""
    for index, batch in enumerate(data):
        check_finite(batch, f"{data.spec}, batch {index}")
        yield DrawnBatch(batch, data.positions[index : index + 1], epoch)


def _read(data: Dataset, rows: Rows) -> Batch:
    """Read the items at these positions as one batch; shards yield theirs separately.

    Raises:
        DataError: an item holds NaN or infinity; names the array and the row.
    """
    chosen = data.select(rows, "batch").sized(len(rows))
    chunks = list(finite_batches(chosen))
    if len(chunks) == 1:
        return chunks[0]
    feeds = {name: np.concatenate([c.feeds[name] for c in chunks]) for name in chunks[0].feeds}
    labels = [c.labels for c in chunks if c.labels is not None]
    return Batch(feeds, np.concatenate(labels) if len(labels) == len(chunks) else None)


def fitted_rows(model: Model, data: Dataset) -> Rows:
    """Return the positions of the items that pruning solved the model's weights for.

    On these items its weights look better than they are. The lineage has the number of samples;
    pruning takes them evenly from its data, which are likely the same.
    """
    taken = [
        data.take(step.params.get("samples", PRUNING_SAMPLES)).positions
        for step in model.lineage
        if step.pass_name.startswith("prune-channels")
        and not data.source.batched
        and step.params.get("repair") != "none"
    ]
    return np.unique(np.concatenate(taken)) if taken else NO_ROWS


def make_batches(
    model: Model,
    data: Dataset,
    share: float,
    size: int,
    seed: int,
    fitted: Rows = NO_ROWS,
) -> BatchSampler:
    """Split data into training and validation batches for a model.

    Validation takes none of the `fitted` items where enough others exist.

    Raises:
        DataError: too few items.
    """
    fixed = fixed_rows(model)
    size = fixed or size
    whole = bool(fixed) and not data.source.batched  # each part needs at least one batch
    least = 2 * size if whole else 2
    if len(data) < least:
        raise DataError(
            f"has {len(data)} items, and training needs {least} at least",
            where=data.spec,
            hint="One batch to learn from and one to choose by; give more data",
        )
    held = min(max(share, size / len(data)), 1 - size / len(data)) if whole else share
    training, validation = _split(data, held, seed, fitted)
    rows = size if fixed else min(size, len(training))
    return BatchSampler(training, validation, rows, seed, fixed is not None)


def _split(data: Dataset, held: float, seed: int, fitted: Rows) -> tuple[Dataset, Dataset]:
    """Return training and validation data; unseen items are held out first."""
    others = np.setdiff1d(data.positions, fitted)
    count = max(round(held * len(data)), 1)
    if not len(fitted) or len(others) < count:
        splits = data.split({"training": 1 - held, "validation": held}, seed=seed)
        return splits["training"], splits["validation"]
    chosen = np.sort(np.random.default_rng(seed).permutation(others)[:count])
    rest = np.setdiff1d(data.positions, chosen)
    return data.select(rest, f"training (seed {seed})"), data.select(
        chosen, f"validation (seed {seed})"
    )


def to_tensors(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """Copy feeds to tensors on a device; kept rows are mapped read-only, which no tensor may be."""
    arrays = {n: np.require(a, requirements=["C", "W"]) for n, a in batch.feeds.items()}
    return {n: torch.from_numpy(a).to(device) for n, a in arrays.items()}


def channels_last(feeds: dict[str, Tensor]) -> dict[str, Tensor]:
    """Lay images (N, C, H, W) out with the channels of a pixel side by side."""
    last = torch.channels_last
    return {n: x.contiguous(memory_format=last) if x.ndim == 4 else x for n, x in feeds.items()}


def weights_channels_last(module: TorchGraph) -> None:
    """Lay weights of two-dimensional convolutions out likewise: they are faster so, by a sixth."""
    for weight in module.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)


def reestimate_batch_norm(module: TorchGraph, batches: BatchSampler, device: torch.device) -> None:
    """Set the statistics of BatchNormalization to their mean over some training batches."""
    mode = module.mode
    module.train()
    mode.batch_norm = "trained"
    try:
        with torch.no_grad():
            for count, drawn in enumerate(batches.stream(0), 1):
                mode.momentum = 1 / count  # a mean over all batches
                module.run(to_tensors(drawn.batch, device))
                if count >= min(batches.per_epoch, 20):
                    break
    finally:
        mode.batch_norm, mode.momentum = "frozen", 0.1
