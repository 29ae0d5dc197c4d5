"""When a comparison of a bench stops."""

from __future__ import annotations

import math

import numpy as np

from trimtab.core.ort.session import SessionConfig
from trimtab.runtime_bench.bench.bench import Timing, _decided
from trimtab.runtime_bench.stats.e_process import PairedTest


def blocks_until(width: float) -> int:
    """Return how many blocks of a model twice as fast it takes to stop at this width."""
    rule, test = _decided(Timing(SessionConfig(), width=width), 1), PairedTest()
    assert rule is not None
    for blocks, noise in enumerate(np.random.default_rng(0).normal(0, 0.05, 2000), 1):
        test.add(math.log(2) + float(noise))
        if rule(test):
            low, high = test.interval(0.01)
            assert high - low <= 2 * math.log1p(width)
            return blocks
    raise AssertionError("it never stopped")


def test_a_comparison_of_a_width_stops_at_a_verdict_and_such_an_interval() -> None:
    alone, coarse, fine = (blocks_until(width) for width in (math.inf, 0.1, 0.02))
    assert alone < coarse < fine


def test_without_a_width_the_comparison_has_its_own_rule() -> None:
    assert _decided(Timing(SessionConfig()), 1) is None


def blocks_to_decide(speed_up: float, *ratios: float) -> int:
    """Return how many blocks it takes until a speed-up is known to be none of the ratios."""
    rule, test = _decided(Timing(SessionConfig(), decide=ratios), 1), PairedTest()
    assert rule is not None
    for blocks, noise in enumerate(np.random.default_rng(0).normal(0, 0.03, 2000), 1):
        test.add(math.log(speed_up) + float(noise))
        if rule(test):
            low, high = (math.exp(end) for end in test.interval(0.01))
            narrow = high / low <= 1.05**2
            assert narrow or not any(low <= ratio <= high for ratio in ratios)
            return blocks
    raise AssertionError("it never stopped")


def test_a_comparison_that_decides_ratios_stops_once_its_interval_holds_none() -> None:
    clear, between, equal = (blocks_to_decide(s, 1.0, 1.05) for s in (1.5, 1.025, 1.0))
    assert clear < between < math.inf
    assert clear < equal < 100  # equal ones end as well
