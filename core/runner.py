"""Where models run when their outputs are wanted, and not their time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from .batches import finite_batches
from .data import Batch
from .dataset import Dataset
from .model import Model
from .ort.session import Outputs, SessionConfig, build_session, run


class Runner(Protocol):
    """Runs a model over data."""

    def __call__(
        self, model: Model, data: Dataset, config: SessionConfig
    ) -> Iterator[tuple[Batch, Outputs]]:
        """Each batch of the data with the model's outputs for it, in order.

        Raises:
            DataError: NaN or infinity in the data.
            RunError: the model cannot be run.
        """
        ...


def run_here(model: Model, data: Dataset, config: SessionConfig) -> Iterator[tuple[Batch, Outputs]]:
    """In this process."""
    session = build_session(model, config)
    for batch in finite_batches(data):
        yield batch, run(session, batch.feeds)
