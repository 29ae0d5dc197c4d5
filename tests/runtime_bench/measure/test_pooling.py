"""Several runs of one pair as one: blocks count together, and devices stay apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from report_cases import measurement

from trimtab.runtime_bench.measure.pooling import pooled
from trimtab.runtime_bench.measure.values import Comparison
from trimtab.runtime_bench.stats.e_process import PairedTest
from trimtab.runtime_bench.stats.verdict import decide, interval


def run_of(log_ratios: Any, seed: int) -> Comparison:
    known = [float(x) for x in log_ratios]
    test = PairedTest.of(known)
    low, high = interval(test, alpha=0.05, resolution=0.05)
    return Comparison(
        measurement("base", 1.0, seed),
        measurement("small", 0.7, seed + 1),
        float(np.exp(test.estimate())),
        low,
        high,
        decide(test, alpha=0.05, resolution=0.05),
        0.05,
        0.05,
        tuple(known),
    )


def test_blocks_of_all_runs_count_together() -> None:
    noise = np.random.default_rng(0).normal(0.35, 0.6, 90)
    first, second = run_of(noise[:25], 1), run_of(noise[25:], 2)
    both = pooled([first, second])
    assert both.blocks == 90
    assert both.log_ratios == run_of(noise, 3).log_ratios
    assert (both.low, both.high) == (run_of(noise, 3).low, run_of(noise, 3).high)
    assert first.verdict == "inconclusive"
    assert both.verdict == "better"
    runs = len(first.candidate.samples_ns) + len(second.candidate.samples_ns)
    assert len(both.candidate.samples_ns) == runs


def test_one_run_and_runs_on_several_devices_stay_as_they_are() -> None:
    one = run_of(np.full(20, 0.1), 1)
    assert pooled([one]) is one
    many = replace(one, devices={"pi5": one})
    assert pooled([one, many]) is many
