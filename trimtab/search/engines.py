"""Execution providers as one more choice of a search: original and winner on each, in one run.

A provider computes otherwise than the CPU's: what it loses is judged on its own answers, and it is
chosen only where it is faster beyond doubt and the loss stays within what was allowed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError
from trimtab.core.files import write_text
from trimtab.core.metric import Metric, evaluate
from trimtab.core.ort.accelerators import CPU, check_installed
from trimtab.core.ort.engines import Engine
from trimtab.core.ort.inventory import inventory
from trimtab.core.ort.session import SessionConfig, available_providers
from trimtab.core.progress import Progress
from trimtab.core.target import Target
from trimtab.runtime_bench.measure.compare import compare
from trimtab.runtime_bench.measure.values import Comparison

from .reporting.budgets import SPEED_MARGIN
from .result import OutcomeData, Result

#: Seconds of the run for each pair of model and engine.
SECONDS_EACH = 10.0


@dataclass(frozen=True)
class EngineChoice:
    """The original and the winner on each engine, and the pair that was chosen.

    Attributes:
        comparisons: each of both on each engine against the original on the CPU.
        names: name of the result and engine of each comparison.
        losses: what each pair loses against the original, beyond the CPU only; None where it is
            the CPU's own answer, which the search has judged.
        chosen: position of the chosen pair; None where the CPU stays.
    """

    comparisons: tuple[Comparison, ...]
    names: tuple[tuple[str, Engine], ...]
    losses: tuple[float | None, ...]
    chosen: int | None

    def lines(self, allowed: float) -> list[str]:
        """Format which engine is chosen and why, after the table of the comparisons."""
        found = [
            f"{name} on {engine}: loses {loss:.4f} there, {allowed:g} is allowed"
            for (name, engine), loss in zip(self.names, self.losses, strict=True)
            if loss is not None
        ]
        if self.chosen is None:
            return [*found, "Engine: cpu; no other is faster beyond doubt within what may be lost"]
        (name, engine), c = self.names[self.chosen], self.comparisons[self.chosen]
        return [*found, f"Engine: {engine}, with {name}: {c.ratio:.2f}x, at least {c.low:.2f}x"]


def read_engines(text: str) -> list[Engine]:
    """Return the engines of `auto`, all that start here, or of a list such as `cpu,openvino`.

    Raises:
        OptionError: one is not installed.
    """
    if text.strip() == "auto":
        return [Engine(state.provider) for state in inventory() if state.state == "ready"]
    if ":" in text or "=" in text:
        raise OptionError(
            "takes names alone",
            where=f"--provider {text}",
            hint="Options of a provider are for `bench`: --provider openvino:precision=bf16",
        )
    found = [Engine.of(part) for part in dict.fromkeys(text.split(","))]
    for engine in found:
        check_installed(engine.provider, available_providers())
    return found


def choose_engine(
    outcome: OutcomeData, engines: Sequence[Engine], data: Dataset, progress: Progress
) -> EngineChoice:
    """Measure original and winner on each engine, and judge what they lose there.

    No other result takes part: the search has confirmed of none what it loses.
    """
    assert outcome.chosen is not None
    assert outcome.chosen.recipe is not None
    target = outcome.chosen.recipe.target or Target.detect()
    finalists = [outcome.original, outcome.chosen]
    models = [r.model for r in finalists if r.model is not None]
    beyond = [engine for engine in engines if engine.provider != CPU]
    texts = ["cpu", *map(str, beyond)]
    comparisons = compare(
        models[0],
        models[1:],
        config=SessionConfig(threads=target.threads),
        providers=texts,
        max_seconds=SECONDS_EACH * len(models) * len(texts),
        progress=progress,
    )
    # In the order of the comparisons: the original on the CPU is their base.
    pairs = [(r, Engine.of(t)) for n, r in enumerate(finalists) for t in texts if n or t != "cpu"]
    losses = tuple(
        None if engine.provider == CPU or c.error else _loss(outcome, result, engine, data)
        for (result, engine), c in zip(pairs, comparisons, strict=True)
    )
    names = tuple((result.name, engine) for result, engine in pairs)
    allowed = outcome.constraints.max_drop
    return EngineChoice(
        tuple(comparisons), names, losses, _best(comparisons, names, losses, outcome, allowed)
    )


def _best(
    comparisons: Sequence[Comparison],
    names: Sequence[tuple[str, Engine]],
    losses: Sequence[float | None],
    outcome: OutcomeData,
    allowed: float,
) -> int | None:
    """Return the pair beyond the CPU that is proved faster than the chosen model on the CPU."""
    assert outcome.chosen is not None
    on_cpu = 1.0
    fast: list[tuple[float, int]] = []
    for place, (c, (name, engine), loss) in enumerate(zip(comparisons, names, losses, strict=True)):
        if engine.provider == CPU and name == outcome.chosen.name and not c.error:
            on_cpu = max(on_cpu, c.ratio)
        if loss is not None and loss <= allowed:
            fast.append((c.low, place))
    low, place = max(fast, default=(0.0, 0))
    return place if low > on_cpu else None


def _loss(outcome: OutcomeData, result: Result, engine: Engine, data: Dataset) -> float:
    """Return what a model loses on an engine against the original on the CPU."""
    assert result.model is not None
    assert outcome.original.model is not None
    quality = outcome.original.test or outcome.original.selection
    metric: str | Metric | None = (quality.spec or quality.metric) if quality else None
    original = outcome.original.model
    base = evaluate(original, data, metric, reference=original)
    there = engine.applied(SessionConfig())
    drop, _ = evaluate(result.model, data, metric, reference=original, config=there).drop_from(base)
    return drop


def save_engine(outcome: OutcomeData, choice: EngineChoice, folder: Path) -> Path | None:
    """Write `budgets-engine.yaml` for the gate: model, engine and what they reached together.

    It is left out where the CPU stays, or where `budgets.yaml`, which names the baseline, is not
    there.
    """
    known, path = folder / "budgets.yaml", folder / "budgets-engine.yaml"
    path.unlink(missing_ok=True)  # of an earlier search
    if choice.chosen is None or not known.exists():
        return None
    name, engine = choice.names[choice.chosen]
    loss = choice.losses[choice.chosen] or 0.0
    gate = yaml.safe_load(known.read_text(encoding="utf-8"))
    low = choice.comparisons[choice.chosen].low / (1 + SPEED_MARGIN)
    budgets: dict[str, Any] = {"provider": engine.provider, "speedup": int(low * 100) / 100}
    drop = gate["budgets"].get("drop")
    if drop is not None:
        least = math.ceil(loss * 1e4) / 1e4
        budgets["drop"] = drop if isinstance(drop, dict) else max(drop, least)
    gate |= {
        "name": f"what optimize reached on {engine}",
        "model": gate["baseline"] if name == outcome.original.name else "model.onnx",
        "provider": str(engine),
        "baseline_provider": "cpu",
        "budgets": budgets,
    }
    head = "# Written by trimtab optimize: model and engine together. trimtab gate checks it.\n"
    write_text(path, head + yaml.safe_dump(gate, sort_keys=False, width=100))
    return path
