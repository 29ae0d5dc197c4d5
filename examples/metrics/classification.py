"""Classification whose mistakes cost unlike much: a stop sign that is not seen costs most.

    python -m examples.metrics.classification
    trimtab eval MODEL --data DATA --metric examples.metrics.classification:COST

An itemwise metric returns one score an item, batch by batch; its mean is the value, and two models
are compared item by item.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import helper

from examples.metrics.small import model_of, rng, shown
from trimtab import Dataset, Metric, Model
from trimtab.core.data import Array

#: What it costs to call the class of a row by that of a column.
COSTS = np.array([[0, 1, 10], [1, 0, 1], [2, 1, 0]], np.float64)


def cost(outputs: Mapping[str, Array], labels: Array) -> Array:
    """Return the cost (N,) of each decision."""
    chosen = outputs["scores"].argmax(1)
    return np.asarray(COSTS[labels, chosen])


COST = Metric("cost", cost, itemwise=True, lower_is_better=True)


def example() -> tuple[Model, Dataset, Dataset]:
    """Return a classifier by the nearest centre, evaluation data, and calibration data."""
    random = rng()
    centres = random.normal(size=(3, 16)).astype(np.float32)
    labels = random.integers(0, 3, 600)
    rows = (centres[labels] + 1.2 * random.normal(size=(600, 16))).astype(np.float32)
    weights = {"w": centres.T.copy(), "b": -0.5 * np.square(centres).sum(1)}
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["scores"], "nearest")]
    model = model_of(nodes, {"x": ["N", 16]}, {"scores": ["N", 3]}, weights)
    evaluation = Dataset.of_arrays({"x": rows[:500]}, labels[:500])
    return model, evaluation, Dataset.of_arrays({"x": rows[500:]})


def main() -> dict[str, float]:
    return shown(COST, *example())


if __name__ == "__main__":
    main()
