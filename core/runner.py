"""Runners of models whose outputs are needed, not their latency."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from .batches import finite_batches
from .data import Batch
from .dataset import Dataset
from .model import Model
from .ort.engines import Engine
from .ort.session import Outputs, SessionConfig, build_session, run

#: Bytes of rows and answers that are kept of a model which others are compared with.
KEPT_BYTES = 512 << 20


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


class Remembering:
    """Runner that runs one model once on each data, with which many candidates are compared.

    Its answers are kept while they fit in `KEPT_BYTES`; the oldest make room.

    Args:
        reference: the model, known by its identity: nothing may change its graph.
        runner: runs models; in this process where None.
    """

    def __init__(self, reference: Model, runner: Runner | None = None) -> None:
        self._reference, self._runner = reference, runner or run_here
        self._kept: list[_Answers] = []

    def __call__(
        self, model: Model, data: Dataset, config: SessionConfig
    ) -> Iterator[tuple[Batch, Outputs]]:
        """Yield what `Runner` says, of the reference from memory."""
        if model is not self._reference:
            return self._runner(model, data, config)
        for answers in self._kept:
            if (answers.data, answers.config) == (data, config):
                return iter(answers.pairs)
        return self._keeping(model, data, config)

    def _keeping(
        self, model: Model, data: Dataset, config: SessionConfig
    ) -> Iterator[tuple[Batch, Outputs]]:
        answers = _Answers(data, config)
        for batch, outputs in self._runner(model, data, config):
            answers.size += _nbytes(batch, outputs)
            if answers.size <= KEPT_BYTES:
                answers.pairs.append((batch, outputs))
            yield batch, outputs
        if answers.size <= KEPT_BYTES:
            self._kept.append(answers)
        while sum(each.size for each in self._kept) > KEPT_BYTES:
            del self._kept[0]


@dataclass(frozen=True)
class OnEngineBeside:
    """Runner of candidates on an engine; the model they are compared with stays where it was.

    Attributes:
        reference: that model, known by its identity.
        engine: engine of all other models.
        runner: runs models, with the engine that it is given.
    """

    reference: Model
    engine: Engine
    runner: Runner = run_here

    def __call__(
        self, model: Model, data: Dataset, config: SessionConfig
    ) -> Iterator[tuple[Batch, Outputs]]:
        """Yield what `Runner` says."""
        if model is not self.reference:
            config = self.engine.applied(config)
        return self.runner(model, data, config)


@dataclass(eq=False)
class _Answers:
    """Rows with a model's outputs on some data, and their bytes."""

    data: Dataset
    config: SessionConfig
    pairs: list[tuple[Batch, Outputs]] = field(default_factory=list)
    size: int = 0


def _nbytes(batch: Batch, outputs: Outputs) -> int:
    return sum(np.asarray(a).nbytes for a in (*batch.feeds.values(), *outputs.values()))
