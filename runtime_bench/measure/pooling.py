"""Comparisons of the same two models in several runs, as one.

The e-process may be stopped and continued at any block, so blocks of a later run go on where those
of an earlier one ended, and the error rate stays what it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import exp, nan

from ..machine.noise_check import NoiseCheck
from ..stats.e_process import PairedTest
from ..stats.verdict import decide, evidence, interval
from .timing import mean_cost
from .values import Comparison, Measurement


def pooled(parts: Sequence[Comparison]) -> Comparison:
    """Join runs of one candidate and one base, in order, with the verdict on all their blocks.

    Level and resolution are those of the last. Runs on several devices are not joined, since their
    interval is that of the least of several ratios: the last stands for all of them.
    """
    last = parts[-1]
    if len(parts) == 1 or any(c.devices for c in parts):
        return last
    test = PairedTest.of([ratio for c in parts for ratio in c.log_ratios])
    renewed = all(c.renewed for c in parts)
    low, high = interval(test, alpha=last.alpha, resolution=last.resolution)
    return replace(
        last,
        base=_joined([c.base for c in parts]),
        candidate=_joined([c.candidate for c in parts]),
        ratio=exp(test.estimate()) if test.blocks else nan,
        low=low,
        high=high,
        verdict=decide(test, alpha=last.alpha, resolution=last.resolution, renewed=renewed),
        log_ratios=tuple(test.log_ratios),
        e_values=evidence(test, last.resolution),
        renewed=renewed,
    )


def _joined(parts: Sequence[Measurement]) -> Measurement:
    counted = all(len(m.switches) == len(m.samples_ns) for m in parts)
    return replace(
        parts[-1],
        samples_ns=tuple(ns for m in parts for ns in m.samples_ns),
        switches=tuple(n for m in parts for n in m.switches) if counted else (),
        noise_check=_noisiest([m.noise_check for m in parts]),
        cpu_ns=mean_cost([(len(m.samples_ns), m.cpu_ns) for m in parts]),
        instructions=mean_cost([(len(m.samples_ns), m.instructions) for m in parts]),
    )


def _noisiest(checks: Sequence[NoiseCheck]) -> NoiseCheck:
    """Return the check of the run that was disturbed most."""
    return max(checks, key=lambda check: (not check.fit, len(check.reasons)))
