"""Embeddings: how often the nearest of all other items is of the same person.

    python -m examples.metrics.embeddings
    trimtab eval MODEL --data DATA --metric examples.metrics.embeddings:NEAREST

Each item is compared with all others, so the metric is called once with everything; as it returns
one score an item, two models are still compared item by item.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import helper

from examples.metrics.small import model_of, rng, shown
from trimtab import Dataset, Metric, Model
from trimtab.core.data import Array

PEOPLE, PICTURES, FEATURES, SIZE = 20, 8, 48, 16


def nearest(outputs: Mapping[str, Array], labels: Array) -> Array:
    """Return 1 or 0 (N,): whether the nearest other item has the same label."""
    rows = outputs["embedding"]
    likeness = rows @ rows.T
    np.fill_diagonal(likeness, -np.inf)
    return np.asarray(labels[likeness.argmax(1)] == labels, np.float64)


NEAREST = Metric("recall at 1", nearest, itemwise=False)


def example() -> tuple[Model, Dataset, Dataset]:
    """Return a projection to vectors of length one, evaluation data, and calibration data."""
    random = rng()
    people = random.normal(size=(PEOPLE, FEATURES))
    labels = np.repeat(np.arange(PEOPLE), PICTURES)
    rows = people[labels] + 0.9 * random.normal(size=(len(labels), FEATURES))
    weights = {"w": (random.normal(size=(FEATURES, SIZE)) / 4).astype(np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["raw"], "projection"),
        helper.make_node("LpNormalization", ["raw"], ["embedding"], axis=1, p=2),
    ]
    model = model_of(nodes, {"x": ["N", FEATURES]}, {"embedding": ["N", SIZE]}, weights)
    rows = rows.astype(np.float32)
    return model, Dataset.of_arrays({"x": rows}, labels), Dataset.of_arrays({"x": rows[::3]})


def main() -> dict[str, float]:
    return shown(NEAREST, *example())


if __name__ == "__main__":
    main()
