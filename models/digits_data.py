"""The handwritten digits that come with scikit-learn, in four parts that share no image.

1,797 images of 8 x 8 pixels from 43 writers (Alpaydin and Kaynak, "Optical Recognition of
Handwritten Digits", UCI 1998).
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from trimtab.core.errors import MissingExtraError, unknown

Split = Literal["train", "calibration", "validation", "test"]

# Images of each part, in the order in which they are dealt. The test part is the largest that
# leaves enough to train on: one image of it is 0.25 points.
COUNTS: dict[Split, int] = {"train": 947, "calibration": 150, "validation": 300, "test": 400}


def digits_arrays(part: Split) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Load images and labels of one part, in new arrays; every call returns the same ones.

    Args:
        part: "train" (947 images) for weights, "calibration" (150) for the ranges of
            quantisation, "validation" (300) for choices between models, and "test" (400) for
            reported figures. Each has the classes in equal shares.

    Returns:
        Images (N, 1, 8, 8) from 0 to 1, and labels (N,) from 0 to 9.

    Raises:
        OptionError: an unknown part.
        MissingExtraError: scikit-learn is not installed.
    """
    if part not in COUNTS:
        raise unknown("part", part, get_args(Split), where="digits_arrays")
    pixels, labels = _shuffled()
    names = list(COUNTS)
    start = sum(COUNTS[name] for name in names[: names.index(part)])
    chosen = slice(start, start + COUNTS[part])
    return pixels[chosen].copy(), labels[chosen].copy()


def calibration() -> dict[str, NDArray[Any]]:
    """Load the calibration part, as data for `trimtab.models.digits_data:calibration`."""
    return _named("calibration")


def validation() -> dict[str, NDArray[Any]]:
    """Load the validation part, likewise."""
    return _named("validation")


def test() -> dict[str, NDArray[Any]]:
    """Load the test part, likewise."""
    return _named("test")


def _named(part: Split) -> dict[str, NDArray[Any]]:
    images, labels = digits_arrays(part)
    return {"input": images, "labels": labels}


@cache
def _shuffled() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    digits = _load()
    labels = digits.target.astype(np.int64)
    order = stratified_order(labels, seed=0)
    pixels = (digits.images / 16).astype(np.float32)[:, None]  # scikit-learn's are 0 to 16
    return pixels[order], labels[order]


def stratified_order(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return a shuffle in which every stretch has about the same shares of classes as the whole.

    Each class is shuffled and spread evenly over the interval from 0 to 1; the order, a permutation
    of indices (N,), is that of the places on it.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    # Stable over the shuffle, so that classes of equal size do not alternate in a fixed order.
    return shuffled[np.argsort(place[shuffled], kind="stable")]


def _load() -> Any:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "sklearn":
            raise
        raise MissingExtraError(
            "the handwritten digits come with scikit-learn, which is not installed",
            where="digits_arrays",
            extra="demo",
        ) from error
    return load_digits()
