"""The handwritten digits, and the network that learns them in seconds."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

from trimtab.core.errors import MissingExtraError, OptionError
from trimtab.models import digits_arrays, train_digits
from trimtab.models.digits_data import COUNTS, stratified_order

pytestmark = pytest.mark.usefixtures("one_thread")


def vector(network: nn.Module) -> torch.Tensor:
    """All weights and running statistics in one vector."""
    return torch.cat([t.flatten().float() for t in network.state_dict().values()])


def test_parts_share_no_image_and_make_the_whole() -> None:
    from sklearn.datasets import load_digits

    # No two of the 1,797 images are the same, so an image's bytes are its identity.
    parts = {part: {x.tobytes() for x in digits_arrays(part)[0]} for part in COUNTS}
    assert {part: len(images) for part, images in parts.items()} == COUNTS
    assert len(set().union(*parts.values())) == len(load_digits().target) == sum(COUNTS.values())


@pytest.mark.parametrize("part", COUNTS)
def test_part_is_an_array_of_small_images_with_equal_shares(part: str) -> None:
    images, labels = digits_arrays(part)
    assert images.shape == (COUNTS[part], 1, 8, 8)
    assert (images.dtype, labels.dtype) == (np.float32, np.int64)
    assert (images.min(), images.max()) == (0, 1)
    shares = np.bincount(labels, minlength=10) / len(labels)
    assert np.abs(shares - 0.1).max() < 0.01


def test_changing_a_part_leaves_the_next_call_alone() -> None:
    digits_arrays("test")[0][:] = -1
    assert digits_arrays("test")[0].min() == 0


def test_stratified_order_is_a_seeded_permutation() -> None:
    labels = np.array([0] * 60 + [1] * 20)
    order = stratified_order(labels, seed=3)
    assert sorted(order) == list(range(80))
    assert np.array_equal(order, stratified_order(labels, seed=3))
    assert not np.array_equal(order, stratified_order(labels, seed=4))
    assert [labels[order][start : start + 20].sum() for start in range(0, 80, 20)] == [5] * 4


def test_unknown_part_names_the_nearest() -> None:
    with pytest.raises(OptionError, match="Did you mean 'test'"):
        digits_arrays("tests")


def test_missing_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from trimtab.models import digits_data

    digits_data._shuffled.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"trimtab\[demo\]"):
        digits_arrays("test")


@pytest.mark.slow
def test_the_same_seed_trains_the_same_weights() -> None:
    first = vector(train_digits(seed=1, epochs=1, widths=(8, 16)))
    assert torch.equal(first, vector(train_digits(seed=1, epochs=1, widths=(8, 16))))
    assert not torch.equal(first, vector(train_digits(seed=2, epochs=1, widths=(8, 16))))


@pytest.mark.slow
def test_it_reads_more_than_97_of_100_digits() -> None:
    network = train_digits(seed=0)
    images, labels = map(torch.from_numpy, digits_arrays("test"))
    with torch.no_grad():
        assert (network(images).argmax(1) == labels).float().mean() > 0.97
