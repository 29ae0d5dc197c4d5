"""Segmentation: Dice of the foreground over all pictures, so that small ones do not dominate.

    python -m examples.metrics.segmentation
    trimtab eval MODEL --data 'pictures/?masks=masks' --metric examples.metrics.segmentation:DICE

255 in a mask is not judged, as it is outside of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import helper

from examples.metrics.small import model_of, rng, shown
from trimtab import Dataset, Metric, Model, Pooled
from trimtab.core.data import Array

SIDE = 32


def overlap(outputs: Mapping[str, Array], labels: Array) -> Array:
    """Return (N, 2): twice the pixels that both mark, and those that either marks."""
    found, judged = outputs["mask"][:, 0] > 0.5, labels != 255
    both = (found & (labels == 1) & judged).sum((1, 2))
    return np.stack([2 * both, (found & judged).sum((1, 2)) + (labels == 1).sum((1, 2))], 1)


def dice(tables: Sequence[Array]) -> Pooled:
    """Return Dice over all pictures."""
    both, either = np.concatenate(tables).sum(0)
    return Pooled(float(both / max(1, either)))


DICE = Metric("dice", overlap, itemwise=False, finish=dice)


def example() -> tuple[Model, Dataset, Dataset]:
    """Return a segmenter of bright discs, evaluation data, and calibration data."""
    random = rng()
    y, x = np.mgrid[:SIDE, :SIDE]
    place, radius = random.integers(6, SIDE - 6, (80, 2)), random.integers(3, 9, 80)
    away = np.hypot(y - place[:, :1, None], x - place[:, 1:, None])
    masks = (away < radius[:, None, None]).astype(np.int64)
    pictures = (masks + 0.4 * random.normal(size=masks.shape))[:, None].astype(np.float32)
    masks[:, :, -2:] = 255
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["raw"], "blur", pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", ["raw"], ["mask"]),
    ]
    weights = {"w": np.ones((1, 1, 3, 3), np.float32), "b": np.array([-4.5], np.float32)}
    shape = ["N", 1, SIDE, SIDE]
    model = model_of(nodes, {"x": shape}, {"mask": shape}, weights)
    evaluation = Dataset.of_arrays({"x": pictures[:60]}, masks[:60], batch=16)
    return model, evaluation, Dataset.of_arrays({"x": pictures[60:]})


def main() -> dict[str, float]:
    return shown(DICE, *example())


if __name__ == "__main__":
    main()
