"""A history as text and JSON: levels, change points, and their possible causes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import median
from typing import Any

from ..bench.budgets import Budget, rule_of
from ..measure.programs import PROGRAMS
from ..stats.change_points import SHORTEST, ChangePoint, find_change_points
from .history import Series

BLOCKS = "▁▂▃▄▅▆▇█"
#: Columns of the sparkline.
WIDTH = 40
#: Kinds for which smaller is better; for the others larger is.
COSTS = frozenset({"tail", "start", "memory", "size", "quality"})


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
    changes = find_change_points(values)
    found += [f"  {_change_line(series, change)}" for change in changes]
    if not changes:
        few = f" (needs {2 * SHORTEST} runs)" if len(values) < 2 * SHORTEST else ""
        found.append(f"  no change of level{few}")
    return found


def _change_line(series: Series, change: ChangePoint) -> str:
    text = Budget(series.budget).value_text
    way = "worse" if worse(series.budget, change) else "better"
    levels = f"{text(change.before)} -> {text(change.after)} ({change.change:+.1%})"
    return f"{way}: {levels} at {series.points[change.index].at}{_cause(series, change)}"


def worse(budget: str, change: ChangePoint) -> bool:
    """Return whether a budget got worse at a change point."""
    return (change.after > change.before) == (rule_of(budget).kind in COSTS)


def _cause(series: Series, change: ChangePoint) -> str:
    """Return what else changed there: the model or program, onnxruntime, or neither."""
    old, new = series.points[change.index - 1], series.points[change.index]
    what = "program" if series.setting.partition(",")[0] in PROGRAMS else "model"
    changed = []
    if old.digest != new.digest:
        changed.append(f"the {what} changed, {old.digest[:8]} to {new.digest[:8]}")
    if old.onnxruntime != new.onnxruntime:
        changed.append(f"onnxruntime {old.onnxruntime} to {new.onnxruntime}")
    return ", with " + " and ".join(changed) if changed else f", neither {what} nor runtime changed"


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
        "series": [_series_json(s) for s in series],
    }


def _series_json(series: Series) -> dict[str, Any]:
    values = [p.value for p in series.points]
    return {
        "gate": series.gate,
        "budget": series.budget,
        "machine_class": series.machine_class,
        "setting": series.setting,
        "points": [p.__dict__ for p in series.points],
        "steps": [
            {
                "at": series.points[change.index].at,
                "index": change.index,
                "before": change.before,
                "after": change.after,
                "change": change.change,
                "worse": worse(series.budget, change),
            }
            for change in find_change_points(values)
        ],
    }
