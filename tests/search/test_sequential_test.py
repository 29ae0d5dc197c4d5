"""The sequential test that drops a candidate: its error rate, and what it saves."""

from __future__ import annotations

import numpy as np

from trimtab.search.sequential_test import clearly_above, loses

LIMIT, ALPHA = 0.02, 0.01
LOOKS = (250, 625, 1250, 2500)


def drops(rate: float, seed: int, count: int = 2500) -> np.ndarray:
    """Draw items of which a share `rate` is lost and 1% won."""
    rng = np.random.default_rng(seed)
    return rng.choice([1.0, 0.0, -1.0], count, p=[rate + 0.01, 0.98 - rate, 0.01])


def looks_until_dropped(rate: float, seed: int) -> int | None:
    made = drops(rate, seed)
    return next((n for n in LOOKS if loses(made[:n], LIMIT, ALPHA)), None)


def test_a_candidate_at_the_limit_is_hardly_ever_dropped() -> None:
    dropped = [looks_until_dropped(LIMIT, seed) for seed in range(400)]
    assert sum(d is not None for d in dropped) <= 400 * ALPHA * 2


def test_a_candidate_that_loses_much_is_dropped_at_the_first_look() -> None:
    assert [looks_until_dropped(0.25, seed) for seed in range(20)] == [250] * 20


def test_a_candidate_that_loses_twice_the_limit_is_dropped_in_the_end() -> None:
    found = [looks_until_dropped(0.06, seed) for seed in range(50)]
    assert all(n is not None for n in found)


def test_the_order_of_items_within_a_look_does_not_matter() -> None:
    made = drops(0.1, 0)[:250]
    assert loses(made, LIMIT, ALPHA) == loses(np.sort(made), LIMIT, ALPHA)


def test_no_items_prove_nothing() -> None:
    assert not loses(np.array([]), LIMIT, ALPHA)


def test_resampled_drops_must_lie_above_the_limit_beyond_their_error() -> None:
    rng = np.random.default_rng(0)
    wide = np.concatenate([[0.05], rng.normal(0.05, 0.03, 60)])
    narrow = np.concatenate([[0.05], rng.normal(0.05, 0.003, 60)])
    assert not clearly_above(wide, LIMIT, ALPHA)
    assert clearly_above(narrow, LIMIT, ALPHA)
