"""A history as text and JSON: what each budget came to over time, by machine class."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from statistics import median
from typing import Any

from ..bench.budgets import Budget
from .history import Series

BLOCKS = "▁▂▃▄▅▆▇█"
#: Columns of the sparkline.
WIDTH = 40


def lines(series: Sequence[Series]) -> list[str]:
    """Return the text for the terminal."""
    if not series:
        return ["The history holds no figures yet."]
    found: list[str] = []
    for one in series:
        found += [*_series_lines(one), ""]
    classes = sorted({s.machine_class for s in series})
    if len(classes) > 1:
        found.append(
            f"{len(classes)} machine classes, shown apart since their figures do not compare: "
            f"{', '.join(classes)}"
        )
    return found


def _series_lines(series: Series) -> list[str]:
    values = [p.value for p in series.points]
    text = Budget(series.budget).value_text
    newest = series.points[-1]
    found = [
        f"{series.gate}: {series.budget}",
        f"  on {series.machine_class}, {series.setting}",
        f"  {len(values)} runs, {series.points[0].at[:10]} to {newest.at[:10]}; newest "
        f"{text(newest.value)}, median {text(median(values))}, "
        f"range {text(min(values))} to {text(max(values))}",
    ]
    if len(values) > 1:
        found.append(f"  {spark(values)}")
    return found


def spark(values: Sequence[float]) -> str:
    """Return a line of blocks; with many values each block is the median of a group."""
    if len(values) > WIDTH:
        ends = [i * len(values) // WIDTH for i in range(WIDTH + 1)]
        values = [median(values[a:b]) for a, b in itertools.pairwise(ends)]
    low, high = min(values), max(values)
    if high == low:
        return BLOCKS[3] * len(values)
    scale = (len(BLOCKS) - 1) / (high - low)
    return "".join(BLOCKS[round((v - low) * scale)] for v in values)


def document(series: Sequence[Series]) -> dict[str, Any]:
    """Return everything as JSON values; times in nanoseconds, sizes in bytes."""
    return {
        "schema": 1,
        "kind": "history",
        "machine_classes": sorted({s.machine_class for s in series}),
        "series": [dataclasses.asdict(one) for one in series],
    }
