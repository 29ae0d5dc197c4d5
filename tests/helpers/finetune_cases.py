"""Shared parts of the tests of training: small data, a context, interrupted progress."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import graphs
import numpy as np

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.ort.session import build_session, run
from trimtab.core.target import Target


def images(count: int = 96, *, labels: bool = False) -> Dataset:
    x = np.random.default_rng(5).standard_normal((count, 3, 8, 8)).astype(np.float32)
    answers = run(build_session(graphs.cnn()), {"x": x})["y"].argmax(1) if labels else None
    return Dataset.of_arrays({"x": x}, answers)


def context(data: Dataset | None = None, **fields: Any) -> Context:
    target = Target.named("x64-avx512-vnni")
    return Context(target=target, data=data or images(), seed=3, **fields)


def notes(model: Model) -> dict[str, Any]:
    return dict(model.lineage[-1].notes)


def weights(model: Model) -> dict[str, np.ndarray]:
    return dict(graphs.weights_of(model))


class Interrupting:
    """Progress that is interrupted after some steps, as by Ctrl-C."""

    def __init__(self, after: int) -> None:
        self.after, self.said = after, []

    def track(self, items: Iterable[Any], label: str, total: int | None = None) -> Iterator[Any]:
        for count, item in enumerate(items):
            if count == self.after:
                raise KeyboardInterrupt
            yield item

    def say(self, text: str) -> None:
        self.said.append(text)
