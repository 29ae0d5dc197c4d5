"""The training loop: seeded, quiet about global state, strict about its options."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from trimtab.core.errors import DataError, OptionError
from trimtab.models import Training, mirrored, shifted, train
from trimtab.models.training import seeded

pytestmark = pytest.mark.usefixtures("one_thread")


def blobs() -> tuple[torch.Tensor, torch.Tensor]:
    """Two clouds of points that a small network can tell apart."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(65) % 2
    return torch.randn(65, 4, generator=generator) + 3.0 * labels[:, None], labels


def small() -> nn.Module:
    """BatchNorm and dropout, the two layers that make training and evaluation differ."""
    with seeded(0):
        return nn.Sequential(
            nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2)
        )


@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.1), ("adamw", 0.01)])
def test_it_learns(optimizer: Any, rate: float) -> None:
    points, labels = blobs()
    recipe = Training(
        epochs=5, batch_size=16, optimizer=optimizer, learning_rate=rate, label_smoothing=0.1
    )
    network = train(small(), points, labels, recipe)
    assert not network.training
    assert (network(points).argmax(1) == labels).float().mean() > 0.95


def test_a_seed_fixes_the_result_whatever_the_global_generator() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.rand(seed + 3)
        network = train(small(), *blobs(), Training(epochs=2, batch_size=16, seed=seed))
        return nn.utils.parameters_to_vector(network.parameters())

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_generator_and_threads_are_given_back_even_after_an_error() -> None:
    def fail(*_: object) -> torch.Tensor:
        assert torch.get_num_threads() == 2
        torch.rand(1)
        raise RuntimeError("augment")

    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="augment"):
        train(small(), *blobs(), Training(threads=2), augment=fail)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == 1


def test_a_last_item_does_not_make_a_batch_of_one() -> None:
    sizes: list[int] = []

    def note(batch: torch.Tensor, _: torch.Generator) -> torch.Tensor:
        sizes.append(len(batch))
        return batch

    train(small(), *blobs(), Training(epochs=1, batch_size=16), augment=note)
    assert sizes == [13] * 5


def test_progress_hears_of_each_epoch() -> None:
    class Ear:
        heard = 0

        def track(
            self, items: Iterable[Any], label: str, total: int | None = None
        ) -> Iterator[Any]:
            assert (label, total) == ("train", 3)
            for item in items:
                yield item
                self.heard += 1

        def say(self, text: str) -> None: ...

    ear = Ear()
    train(small(), *blobs(), Training(epochs=3), progress=ear)
    assert ear.heard == 3


def test_learning_rate_rises_then_follows_half_a_cosine() -> None:
    recipe = Training(learning_rate=0.4, warmup=0.2)
    rates = [recipe.rate(step, 10) for step in range(10)]
    assert rates[:3] == pytest.approx([0.2, 0.4, 0.4])
    assert rates[6] == pytest.approx(0.2)
    assert rates[9] == pytest.approx(0.2 * (1 + math.cos(math.pi * 7 / 8)))


@pytest.mark.parametrize(
    "fields",
    [{"epochs": -1}, {"batch_size": 0}, {"optimizer": "lion"}, {"warmup": 1.0}, {"threads": 0}],
)
def test_options_out_of_range_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(fields))):
        Training(**fields)


def test_as_many_labels_as_inputs() -> None:
    points, labels = blobs()
    with pytest.raises(DataError, match="got 65 and 64"):
        train(small(), points, labels[1:])


def test_shifted_moves_an_image_by_a_pixel_and_no_further() -> None:
    image = torch.zeros(1, 1, 5, 5)
    image[0, 0, 2, 2] = 1
    moved = shifted(image.expand(200, 2, 5, 5), torch.Generator().manual_seed(0))
    assert moved.shape == (200, 2, 5, 5)
    assert torch.equal(moved[:, 0], moved[:, 1])
    places = {tuple(p) for p in moved[:, 0].nonzero()[:, 1:].tolist()}
    assert places == {(r, c) for r in (1, 2, 3) for c in (1, 2, 3)}


def test_mirrored_turns_about_half_of_the_images() -> None:
    image = torch.tensor([1.0, 0.0]).expand(200, 1, 1, 2)
    turned = mirrored(image, torch.Generator().manual_seed(0))[:, 0, 0, 1].sum()
    assert 80 < turned < 120
