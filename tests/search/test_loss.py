"""What few items tell of a loss: how sure it is, and when they are too few."""

from __future__ import annotations

import numpy as np
import pytest

from trimtab.search.loss import (
    RISK,
    items_needed,
    loss_evidence,
    predicted_error,
    resolves,
    without_one,
)


def drops(lost: int, won: int, items: int) -> np.ndarray:
    return np.array([1.0] * lost + [-1.0] * won + [0.0] * (items - lost - won))


@pytest.mark.parametrize(
    ("lost", "won", "items", "taken"),
    [
        (0, 0, 128, True),
        (2, 2, 307, True),
        (4, 0, 307, False),  # 0.013, where 0.01 is allowed
        (8, 0, 307, False),
        (20, 18, 1024, True),
        (18, 4, 1024, False),
    ],
)
def test_a_loss_of_half_as_much_again_is_ruled_out_or_not(
    lost: int, won: int, items: int, taken: bool
) -> None:
    found = loss_evidence(drops(lost, won, items), 0.01, "both")
    assert (found.risk <= RISK) == taken
    assert found.low <= found.value <= found.high


def test_the_verdict_follows_the_interval() -> None:
    assert loss_evidence(drops(0, 0, 2000), 0.01, "").verdict == "held"
    assert loss_evidence(drops(5, 1, 300), 0.01, "").verdict == "not settled"
    assert loss_evidence(drops(40, 1, 300), 0.01, "").verdict == "broken"


def test_where_the_original_is_always_right_every_change_is_a_loss() -> None:
    part = drops(4, 0, 307)
    sure = loss_evidence(part, 0.01, "", room=0.0)
    hopeful = loss_evidence(part, 0.01, "", room=1.0)
    assert sure.risk > hopeful.risk


def test_the_interval_covers_the_loss_of_scores_between_0_and_1() -> None:
    rng = np.random.default_rng(0)
    whole = rng.beta(0.3, 20, 100_000) - rng.beta(0.3, 60, 100_000)
    seen = [loss_evidence(rng.choice(whole, 200), 0.01, "") for _ in range(60)]
    inside = sum(e.low <= whole.mean() <= e.high for e in seen)
    assert inside >= 52


def test_what_data_resolve_is_told_beforehand() -> None:
    assert predicted_error(0.01, 154) == pytest.approx(0.0114, abs=1e-4)
    needed = items_needed(0.01)
    assert resolves(0.01, needed)
    assert not resolves(0.01, needed - 2)
    assert not resolves(0.0, 10**6)
    assert items_needed(0.0) == 0


def test_one_item_can_be_left_out() -> None:
    assert without_one(drops(2, 0, 154)) == pytest.approx(1 / 154)
    assert without_one(drops(0, 1, 100)) == pytest.approx(-0.01)
