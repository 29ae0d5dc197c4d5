"""Synthetic measurements for the tests of the gate, which time nothing."""

from __future__ import annotations

import math

import numpy as np

from trimtab.core.ort.session import SessionConfig
from trimtab.runtime_bench.bench.budgets import Budget, Gate
from trimtab.runtime_bench.machine.environment import Environment
from trimtab.runtime_bench.machine.noise_check import NoiseCheck
from trimtab.runtime_bench.measure.startup import StartupCosts
from trimtab.runtime_bench.measure.values import Comparison, Measurement

NOISY = NoiseCheck(fit=False, reasons=("the hypervisor took 9.0% of the CPU time",))


def environment(**changes: object) -> Environment:
    fields = {
        "cpu": "Made CPU",
        "flags": ("avx2",),
        "cpus": 2,
        "affinity": (0, 1),
        "quota": None,
        "governor": "",
        "system": "Linux",
        "python": "3.12",
        "onnxruntime": "1.32.0",
        "numpy": "2",
    }
    return Environment(**{**fields, **changes})  # type: ignore[arg-type]


def measurement(samples_ns=(1_000_000,) * 300, *, model="m.onnx", noise_check=None, switches=()):
    return Measurement(
        model,
        "digest",
        1000,
        tuple(int(s) for s in samples_ns),
        tuple(switches),
        environment(),
        SessionConfig(),
        noise_check or NoiseCheck(),
    )


def comparison(speedup: float, *, blocks=100, noise=0.03, seed=0, error=None) -> Comparison:
    rng = np.random.default_rng(seed)
    logs = tuple(float(v) for v in math.log(speedup) + rng.normal(0, noise, blocks))
    ratio = math.exp(float(np.median(logs))) if logs else math.nan
    return Comparison(
        measurement(model="base.onnx"),
        measurement(),
        ratio,
        ratio * 0.97,
        ratio * 1.03,
        "inconclusive",
        0.01,
        0.05,
        logs,
        {},
        False,
        error,
    )


def startup_costs(
    *, load_ms=20.0, first_ms=2.0, peak_mb=(50, 51, 52), processes=11
) -> StartupCosts:
    return StartupCosts(
        "m.onnx",
        1000,
        (int(load_ms * 1e6),) * processes,
        (int(first_ms * 1e6),) * processes,
        tuple(int(p * 1e6) for p in peak_mb),
    )


def gate(*budgets: Budget, **fields: object) -> Gate:
    return Gate("m", "m.onnx", tuple(budgets), **fields)  # type: ignore[arg-type]
