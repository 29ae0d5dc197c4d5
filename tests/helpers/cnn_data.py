"""Random rows and labels that fit `graphs.cnn`."""

from __future__ import annotations

import numpy as np
from graphs import cnn

from trimtab.core.dataset import Dataset
from trimtab.core.model import Model


def arrays(rows: int = 40) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    spec = cnn().inputs[0]
    shape = (rows, *[d for d in (spec.shape or ())[1:] if isinstance(d, int)])
    inputs = rng.standard_normal(shape).astype(np.float32)
    return {spec.name: inputs, "labels": rng.integers(0, classes(cnn()), rows)}


def labelled(rows: int = 60) -> Dataset:
    made = arrays(rows)
    labels = made.pop("labels")
    return Dataset.of_arrays(made, labels)


def classes(model: Model) -> int:
    last = (model.outputs[0].shape or ())[-1]
    assert isinstance(last, int)
    return last
