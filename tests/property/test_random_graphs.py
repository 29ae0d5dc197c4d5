"""Every pass on random small graphs: valid, and float's numbers within what it may change.

`make property N=2000` tries more graphs of each pass than this.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from property.random_graphs import RandomGraph, graphs
from property.trials import TRIALS, try_pass

#: Graphs of each pass; a failing one is shrunk to the smallest that still fails.
COUNT = int(os.environ.get("TRIMTAB_EXAMPLES", "60"))


@pytest.mark.slow
@pytest.mark.parametrize("name", TRIALS)
def test_a_pass_keeps_what_random_graphs_compute(name: str) -> None:
    trial = TRIALS[name]

    @settings(
        max_examples=max(1, round(COUNT * trial.share)),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=graphs())
    def holds(case: RandomGraph) -> None:
        try_pass(trial, case)

    holds()
