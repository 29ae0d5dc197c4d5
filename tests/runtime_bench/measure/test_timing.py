"""The timing loop, and what a run costs the processor."""

from __future__ import annotations

import json
import time

import pytest

from trimtab.runtime_bench.measure.timing import Runs, mean_cost, time_calls


def test_waiting_takes_time_and_no_processor() -> None:
    asleep = time_calls(lambda: time.sleep(0.02), 3)
    assert min(asleep.ns) >= 20e6
    assert asleep.cpu_ns < 5e6
    awake = time_calls(lambda: sum(range(500_000)), 3)
    assert awake.cpu_ns > 5 * asleep.cpu_ns


def test_runs_come_back_from_json_and_old_workers_count_no_cost() -> None:
    runs = Runs((1, 2), (0, 1), 1.5, 7.0)
    assert Runs.from_json(json.loads(json.dumps(runs.to_json()))) == runs
    assert Runs.from_json({"ns": [1], "switches": [0]}) == Runs((1,), (0,))
    assert runs.after(1) == Runs((2,), (1,), 1.5, 7.0)


@pytest.mark.parametrize(
    ("parts", "mean"),
    [
        ([(1, 2.0), (3, 6.0)], 5.0),
        ([(0, 0.0), (2, 4.0)], 4.0),
        ([(1, 2.0), (1, 0.0)], 0.0),
        ([], 0),
    ],
)
def test_the_mean_cost_is_weighted_and_unknown_where_a_part_is(
    parts: list[tuple[int, float]], mean: float
) -> None:
    assert mean_cost(parts) == mean
