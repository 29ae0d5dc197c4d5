"""Fake comparisons, for tests of the code that uses them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any


def made_comparison(ratio: float, error: str | None = None) -> Any:
    """Make a comparison with an interval of 5% on each side."""
    measurement = SimpleNamespace(percentile_ns=lambda quantile: 1e6 * quantile)
    return SimpleNamespace(
        ratio=ratio,
        low=0.95 * ratio,
        high=1.05 * ratio,
        verdict="same" if ratio == 1 else "better" if ratio > 1 else "worse",
        error=error,
        interrupted=False,
        devices={},
        candidate=measurement,
        base=measurement,
        to_json=dict,
    )


def made_comparisons(*ratios: float) -> Callable[..., Sequence[Any]]:
    """Return a fake `compare`: the ratios in order of appearance, the last one for all others.

    A model that is measured again has the ratio that it had.
    """
    known: dict[str, float] = {}

    def measure(base: Any, candidates: Sequence[Any], *rest: Any) -> Sequence[Any]:
        for model in candidates:
            known.setdefault(model.name, ratios[min(len(known), len(ratios) - 1)])
        return [made_comparison(known[model.name]) for model in candidates]

    return measure
