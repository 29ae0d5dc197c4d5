"""`budgets.yaml` of a result: its figures, with a margin, for `trimtab gate` to check.

Margins: a gate proves slower with certainty, so the proved speed-up less the gate's own resolution;
twice the standard error of a drop, for other data of the same kind; a few per cent of sizes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from trimtab.core.callables import is_callable_spec
from trimtab.core.metric import Quality
from trimtab.core.ort.accelerators import CPU
from trimtab.core.ort.engines import Engine
from trimtab.core.ort.int8_share import int8_share
from trimtab.core.ort.session import SessionConfig, available_providers
from trimtab.core.sources.opening import options_of, split_states, with_files
from trimtab.core.sources.preprocess import Preprocess

from ..result import OutcomeData, Result

HEAD = "# Written by trimtab optimize: what was reached, with a margin. trimtab gate checks it.\n"
#: Margin of a speed-up: the gate's resolution.
SPEED_MARGIN = 0.05
SIZE_MARGIN = 0.02
MEMORY_MARGIN = 0.15
SHARE_MARGIN = 0.02
#: Standard errors that are added to a drop.
ERRORS = 2.0


def budgets_text(outcome: OutcomeData, folder: Path) -> str | None:
    """Return the text of `budgets.yaml` in a folder; None where there is no baseline."""
    chosen = outcome.chosen
    if chosen is None or chosen.recipe is None or chosen.recipe.target is None:
        return None
    target, data = chosen.recipe.target, outcome.data.get("test", {}).get("data")
    baseline = _from(folder, chosen.recipe.model)
    if baseline is None:
        return None
    usable, preparation = _data(folder, data)
    quality = chosen.test if usable and chosen.test else None
    several = bool(outcome.constraints.max_drops)
    measured = chosen.confirmation or chosen.comparison
    known = {
        "name": "what optimize reached",
        "model": "model.onnx",
        "baseline": baseline,
        "data": usable,
        "preprocess": preparation,
        "metric": quality.spec or quality.metric if quality and not several else None,
        "provider": chosen.engine or (None if target.provider == CPU else target.provider),
        "baseline_provider": chosen.engine and "cpu",  # the original was measured there
        "threads": target.threads,
        "on": list(measured.devices) if measured else None,
        "budgets": _budgets(outcome, chosen, with_quality=quality is not None),
    }
    gate = {key: value for key, value in known.items() if value not in (None, [], "", {})}
    return HEAD + yaml.safe_dump(gate, sort_keys=False, width=100)


def _budgets(outcome: OutcomeData, chosen: Result, *, with_quality: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    comparison = chosen.confirmation or chosen.comparison
    single = outcome.constraints.goal != "throughput"  # a gate has one caller with one row
    if comparison is not None and single and comparison.low > 1 + SPEED_MARGIN:
        found["speedup"] = _down(comparison.low / (1 + SPEED_MARGIN), 2)
    limit = outcome.constraints.max_latency_ns
    if limit is not None and comparison is not None:
        found[f"p{outcome.constraints.percentile:g}"] = f"{limit / 1e6:g}ms"
    found["size"] = math.ceil(chosen.size_bytes * (1 + SIZE_MARGIN))
    if chosen.rss_bytes is not None:
        found["rss"] = math.ceil(chosen.rss_bytes * (1 + MEMORY_MARGIN))
    if with_quality:
        found["drop"] = _drops(outcome, chosen)
    if chosen.engine is not None:
        return found | {"provider": Engine.of(chosen.engine).provider}
    share = _int8_share(chosen)
    if share > SHARE_MARGIN:
        found["int8_share"] = _down(share - SHARE_MARGIN, 2)
    return found


def _drops(outcome: OutcomeData, chosen: Result) -> float | dict[str, float]:
    """Return the limit of the loss; by metric where several were limited."""
    splits = [p for p in ("selection", "test") if getattr(chosen, p) is not None]
    pairs = [(getattr(chosen, p), getattr(outcome.original, p)) for p in splits]
    allowed = outcome.constraints.max_drop
    if not outcome.constraints.max_drops:
        return _drop(pairs, allowed)
    found = {}
    for place, mine in enumerate(_each(pairs[0][0])):
        limit = allowed if mine.limit is None else mine.limit
        parts = [(_each(a)[place], _each(b)[place]) for a, b in pairs]
        found[mine.spec or mine.metric] = _drop(parts, limit)
    return found


def _each(quality: Quality) -> list[Quality]:
    return [quality, *quality.others]


def _drop(pairs: Sequence[tuple[Quality, Quality]], allowed: float) -> float:
    """Return the larger drop of both splits plus its error; what was allowed where that is more."""
    drops = [mine.drop_from(base) for mine, base in pairs]
    worst = max(max(0.0, drop) for drop, _ in drops)
    upper = worst + ERRORS * max(error or 0.0 for _, error in drops)
    return _up(min(upper, allowed) if worst <= allowed else upper, 4)


def _int8_share(chosen: Result) -> float:
    assert chosen.model is not None
    assert chosen.recipe is not None
    assert chosen.recipe.target is not None
    # As the gate will see it, which may run on another kind of machine than the target.
    config = SessionConfig.of(chosen.recipe.target)
    if config.provider not in available_providers():
        return 0.0
    return int8_share(chosen.model, config).int8_share


def _from(folder: Path, spec: str | None) -> str | None:
    """Return a path relative to a folder, None where it does not exist; `module:callable` stays."""
    if spec is None or spec.startswith("memory:"):
        return None
    if Path(spec).exists():
        return os.path.relpath(Path(spec).resolve(), folder.resolve())
    return spec if is_callable_spec(spec) else None


def _data(folder: Path, spec: str | None) -> tuple[str | None, dict[str, str]]:
    """Return the name of data relative to a folder, and the preparation of pictures of its own."""
    if spec is None or _from(folder, spec.partition("?")[0]) is None:
        return None, {}
    named = with_files(spec, lambda name: _from(folder, name) or name)
    options = options_of(named).items()
    kinds = Preprocess.__dataclass_fields__
    others = [f"{k}={v}" for k, v in options if k not in kinds and k != "state"]
    others += [f"state={a}={b}" for a, b in split_states(named)[1]]
    name = "?".join(part for part in (named.partition("?")[0], "&".join(others)) if part)
    return name, {key: value for key, value in options if key in kinds}


def _down(value: float, digits: int) -> float:
    return math.floor(value * 10.0**digits) / 10.0**digits


def _up(value: float, digits: int) -> float:
    return round(math.ceil(value * 10.0**digits - 1e-9) / 10.0**digits, digits)
