"""A stream: how many steps a detector of speech needs until it notices that somebody speaks.

    python -m examples.metrics.stream
    trimtab eval MODEL --data frames.npz --metric examples.metrics.stream:DELAY

The model's state is fed back by trimtab. A metric that is neither itemwise nor pools is called
once, with the answers to all steps in order, and the labels of all: 1 while somebody speaks.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import helper

from examples.metrics.small import model_of, rng, shown
from trimtab import Dataset, Metric, Model
from trimtab.core.data import Array

BANDS = 8


def delay(outputs: Mapping[str, Array], labels: Array) -> float:
    """Return the mean number of steps from the beginning of speech to its first notice."""
    noticed = outputs["speech"].reshape(-1) > 0.5
    begins = np.flatnonzero(np.diff(labels, prepend=0) == 1)
    ends = np.append(begins[1:], len(labels))
    waits = []
    for begin, end in zip(begins, ends, strict=True):
        seen = np.flatnonzero(noticed[begin:end])
        waits.append(seen[0] if len(seen) else end - begin)
    return float(np.mean(waits))


DELAY = Metric("steps until speech is noticed", delay, itemwise=False, lower_is_better=True)


def example() -> tuple[Model, Dataset, Dataset]:
    """Return a detector with a leaky sum as its state, evaluation data, and calibration data."""
    random = rng()
    speaks = np.repeat(np.arange(20) % 2, 30)
    frames = np.abs(random.normal(size=(600, BANDS))) * (0.3 + speaks[:, None])
    weights = {
        "w": np.full((BANDS, 1), 1 / BANDS, np.float32),
        "keep": np.array([0.8], np.float32),
        "slope": np.array([4], np.float32),
        "least": np.array([-9], np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["frame", "w"], ["loud"], "loudness"),
        helper.make_node("Mul", ["state", "keep"], ["kept"]),
        helper.make_node("Add", ["loud", "kept"], ["state_out"]),
        helper.make_node("Mul", ["state_out", "slope"], ["steep"]),
        helper.make_node("Add", ["steep", "least"], ["raw"]),
        helper.make_node("Sigmoid", ["raw"], ["speech"]),
    ]
    inputs = {"frame": [1, BANDS], "state": [1, 1]}
    model = model_of(nodes, inputs, {"speech": [1, 1], "state_out": [1, 1]}, weights)
    rows = frames.astype(np.float32)
    evaluation = Dataset.of_arrays({"frame": rows[:420]}, speaks[:420])
    return model, evaluation, Dataset.of_arrays({"frame": rows[420:]})


def main() -> dict[str, float]:
    return shown(DELAY, *example())


if __name__ == "__main__":
    main()
