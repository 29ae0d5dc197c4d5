"""Measurement of the pytest plugin: this module imports the bench, the plugin does not."""

from __future__ import annotations

import contextlib
import getpass
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.core.ort.accelerators import CPU
from trimtab.core.ort.engines import Engine
from trimtab.core.ort.session import Feeds
from trimtab.core.units import duration

from ..bench.budgets import Budget, Gate, check, count_statistical, fraction
from ..machine.environment import Environment
from ..measure.compare import ModelOrPath
from .collect import Collector
from .rules import ALPHA, judge
from .verdicts import BudgetVerdict, GateFacts

MODEL, BASELINE = "model", "baseline"
#: Marker keywords that are not budgets.
SETTINGS = frozenset({"max_time", "alpha", "resolution", "tolerance", "min_speedup"})


@dataclass(frozen=True)
class LatencyRequest:
    """Arguments of `Latency.compare`, and the keywords of the marker as `asked`."""

    model: str | Path | Model
    baseline: str | Path | Model | None
    feeds: Feeds | None
    provider: str
    threads: int
    require_int8: float | None
    shapes: Mapping[str, tuple[int, ...]]
    asked: Mapping[str, Any]


def measure(request: LatencyRequest) -> tuple[list[BudgetVerdict], dict[str, Any]]:
    """Measure, one process at a time on this machine; return verdicts and report properties.

    Raises:
        OptionError: a budget is not valid.
    """
    gate = gate_of(request)
    models = {MODEL: _opened(request.model)}
    if request.baseline is not None:
        models[BASELINE] = _opened(request.baseline)
    alpha = float(request.asked.get("alpha", ALPHA)) / count_statistical([gate])
    collector = Collector(
        gate,
        alpha,
        seconds=duration(request.asked.get("max_time", 30)),
        open_model=models.__getitem__,
        feeds=request.feeds,
    )
    with one_at_a_time():
        facts = collector.collect()
    if facts.interrupted:
        raise KeyboardInterrupt
    verdicts = judge(gate, facts, alpha=alpha)
    return verdicts, properties(facts, verdicts)


def gate_of(request: LatencyRequest) -> Gate:
    """Return the gate of a request.

    Raises:
        OptionError: a budget is not valid, or there is none.
    """
    asked, baseline = request.asked, request.baseline is not None
    budgets = [
        Budget.of(name.replace("_", ".", 1) if name[-1].isdigit() else name, value)
        for name, value in asked.items()
        if name not in SETTINGS
    ]
    for name in ("min_speedup", "tolerance"):
        if name in asked and not baseline:
            raise OptionError(f"{name} needs latency.compare(model, baseline=...)")
    if "min_speedup" in asked:
        budgets.append(Budget.of("speedup", asked["min_speedup"], against=BASELINE))
    elif baseline:
        allowed = fraction(asked.get("tolerance", 0))
        budgets.append(Budget("no_slower_than", text=BASELINE, against=BASELINE, tolerance=allowed))
    if request.require_int8 is not None:
        budgets.append(Budget.of("int8_share", request.require_int8))
    engine = Engine.of(request.provider)
    if engine.provider != CPU:
        budgets.append(Budget.of("provider", engine.provider))
    if not budgets:
        raise OptionError(
            "this test names no budget",
            hint="Mark it @pytest.mark.latency(p95='5ms'), or give a baseline",
        )
    gate = Gate(
        name=MODEL,
        model=MODEL,
        budgets=tuple(budgets),
        baseline=BASELINE if baseline else None,
        provider=engine.provider,
        provider_options=engine.options,
        threads=request.threads,
        shapes=request.shapes,
        resolution=fraction(asked.get("resolution", Gate.resolution)),
    )
    return check(gate, lambda _: "@pytest.mark.latency")


def _opened(model: str | Path | Model) -> ModelOrPath:
    return model if isinstance(model, Model) else Path(model)


def properties(facts: GateFacts, verdicts: list[BudgetVerdict]) -> dict[str, Any]:
    """Return the properties for JUnit and other reports."""
    comparison = facts.comparisons.get(BASELINE)
    alone = facts.solo or (comparison.candidate if comparison is not None else None)
    environment = alone.environment if alone is not None else Environment.here()
    found: dict[str, Any] = {
        "machine_class": environment.machine_class(),
        "onnxruntime": environment.onnxruntime,
        "model_digest": facts.digest,
    }
    for result in verdicts:
        found[f"verdict {result.budget.name}"] = result.verdict
    if comparison is not None:
        found |= {"ratio": comparison.ratio, "lo": comparison.low, "hi": comparison.high}
        found["blocks"] = comparison.blocks
    if alone is not None:
        for name, quantile in (("p50_ns", 0.5), ("p95_ns", 0.95)):
            found[name] = alone.percentile_ns(quantile)
        found["machine_fit"] = alone.noise_check.fit
    if facts.share is not None:
        found["int8_share"] = facts.share.int8_share
    return found


@contextlib.contextmanager
def one_at_a_time(path: Path | None = None) -> Iterator[None]:
    """Wait until no other test of this user measures here, since xdist runs tests in parallel."""
    lock = path or Path(tempfile.gettempdir()) / f"trimtab-latency-{getpass.getuser()}.lock"
    with FileLock(lock):  # the system releases it, even when the process dies
        yield
