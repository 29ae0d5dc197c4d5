"""Runners of models whose outputs are needed, not their latency."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from .batches import finite_batches
from .data import Batch
from .dataset import Dataset
from .model import Model
from .ort.session import Outputs, SessionConfig, build_session, run


class Runner(Protocol):
    """Function that runs a model on data."""

    def __call__(
        self, model: Model, data: Dataset, config: SessionConfig
    ) -> Iterator[tuple[Batch, Outputs]]:
        """Yield each batch of the data with the model's outputs for it, in order.

        Raises:
            DataError: the data has NaN or infinity.
            RunError: the model cannot be run.
        """
        ...


def run_here(model: Model, data: Dataset, config: SessionConfig) -> Iterator[tuple[Batch, Outputs]]:
    """Run a model in this process, see `Runner`."""
    session = build_session(model, config)
    if data.stream is not None:
        yield from data.stream.judged(session, data.steps())
        return
    for batch in finite_batches(data):
        yield batch, run(session, batch.feeds)
