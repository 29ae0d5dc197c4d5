"""Detection of points on a heat map: the part of the objects that is found within a pixel.

    python -m examples.metrics.detection
    trimtab eval MODEL --data DATA --metric examples.metrics.detection:FOUND

The labels are padded with -1, as pictures have unlike many objects. The metric pools: `score`
returns two counts a picture, `finish` turns those of all batches into F1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import helper

from examples.metrics.small import model_of, rng, shown
from trimtab import Dataset, Metric, Model, Pooled
from trimtab.core.data import Array

#: Heat from which a peak counts.
HOT = 0.5
SIDE, MOST = 24, 5


def peaks(heat: Array) -> Array:
    """Return rows and columns (M, 2) of what is hotter than all around it."""
    padded = np.pad(heat, 1, constant_values=-1.0)
    around = np.stack(
        [
            padded[1 + i : 1 + i + len(heat), 1 + j : 1 + j + len(heat[0])]
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
            if (i, j) != (0, 0)
        ]
    )
    return np.argwhere((heat > HOT) & (heat >= around.max(0)))


def counts(outputs: Mapping[str, Array], labels: Array) -> Array:
    """Return (N, 2): twice the hits, and the number of objects and of peaks together."""
    table = []
    for heat, objects in zip(outputs["heat"][:, 0], labels, strict=True):
        found, wanted = peaks(heat), objects[objects[:, 0] >= 0]
        free = list(range(len(found)))
        hits = 0
        for place in wanted:
            near = [i for i in free if np.abs(found[i] - place).max() <= 1]
            hits += bool(near)
            if near:
                free.remove(near[0])
        table.append([2 * hits, len(found) + len(wanted)])
    return np.array(table, np.float64)


def f1(tables: Sequence[Array]) -> Pooled:
    """Return F1 over all pictures."""
    hits, everything = np.concatenate(tables).sum(0)
    return Pooled(float(hits / max(1.0, everything)))


FOUND = Metric("found within a pixel", counts, itemwise=False, finish=f1)


def example() -> tuple[Model, Dataset, Dataset]:
    """Return a detector of bright spots, evaluation data, and calibration data."""
    random = rng()
    pictures = (0.2 * random.random((120, 1, SIDE, SIDE))).astype(np.float32)
    objects = np.full((120, MOST, 2), -1)
    for picture, rows in zip(pictures, objects, strict=True):
        for row in rows[: random.integers(0, MOST + 1)]:
            row[:] = random.integers(1, SIDE - 1, 2)
            picture[0, row[0] - 1 : row[0] + 2, row[1] - 1 : row[1] + 2] += 0.6
    blur = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32).reshape(1, 1, 3, 3)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["raw"], "blur", pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", ["raw"], ["heat"]),
    ]
    weights = {"w": blur, "b": np.array([-9], np.float32)}
    shape = ["N", 1, SIDE, SIDE]
    model = model_of(nodes, {"x": shape}, {"heat": shape}, weights)
    evaluation = Dataset.of_arrays({"x": pictures[:100]}, objects[:100], batch=16)
    return model, evaluation, Dataset.of_arrays({"x": pictures[100:]})


def main() -> dict[str, float]:
    return shown(FOUND, *example())


if __name__ == "__main__":
    main()
