"""Tests of runners."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from graphs import cnn

from trimtab.core import runner as runners
from trimtab.core.data import Batch
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.ort.session import Outputs, SessionConfig
from trimtab.core.runner import Remembering, run_here


@pytest.mark.parametrize(("room", "runs"), [(1 << 20, 1), (8, 2)])
def test_the_reference_runs_once_where_its_answers_fit(
    room: int, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "KEPT_BYTES", room)
    reference, candidate = cnn(), cnn()
    ran: list[Model] = []

    def counting(
        model: Model, data: Dataset, config: SessionConfig
    ) -> Iterator[tuple[Batch, Outputs]]:
        ran.append(model)
        return run_here(model, data, config)

    name, shape = reference.inputs[0].name, (4, *(int(d or 1) for d in _sizes(reference)))
    data = Dataset.of_arrays({name: np.ones(shape, np.float32)}, batch=2)
    remembering, config = Remembering(reference, counting), SessionConfig()
    first, again = (list(remembering(reference, data, config)) for _ in range(2))
    assert [list(o) for _, o in first] == [list(o) for _, o in again]
    list(remembering(candidate, data, config))
    assert ran.count(reference) == runs
    assert ran.count(candidate) == 1
    list(remembering(reference, data.take(2), config))  # of other data nothing is known
    assert ran.count(reference) == runs + 1


def _sizes(model: Model) -> list[int]:
    return [d if isinstance(d, int) else 1 for d in (model.inputs[0].shape or ())[1:]]
