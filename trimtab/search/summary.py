"""Table of the candidates of a search, the chosen one and why, as text."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.core.metric import Quality
from trimtab.core.text import bytes_text, known_duration, table
from trimtab.runtime_bench.measure.values import Measurement

from .ranking import speedup
from .result import OutcomeData, Result


def outcome_lines(outcome: OutcomeData) -> list[str]:
    """Return the table of candidates, the chosen one and why."""
    known = outcome.original.selection or outcome.original.test
    metric = known.metric if known else "quality"
    further = [name for q in (known.others if known else ()) for name in (q.metric, "drop")]
    header = ["candidate", "size", metric, "drop", *further, "p50", "p95", "speed-up", "verdict"]
    rows = [_original_row(outcome)]
    rows += [_row(r, outcome.original, chosen=r is outcome.chosen) for r in outcome.results]
    lines = table(header, rows)
    failed = [f"  {r.name}: {r.failure}" for r in outcome.results if r.failure]
    if failed:
        lines += ["", "not made or not measured:", *failed]
    known = outcome.original.selection
    items = known.count if known else outcome.data.get("selection", {}).get("items", 0)
    lines += ["", f"{metric} and drop are on the {items} items of the selection split."]
    if any(r.measured_as for r in outcome.results):
        lines.append("=: the same kernels on the same shapes as a line above, measured once.")
    if any(r.predicted is not None for r in outcome.results):
        lines.append("~: predicted by a cost model, not measured.")
    name = outcome.chosen.name if outcome.chosen else "nothing"
    lines.append(f"Chosen: {name}. {' '.join(outcome.why)}")
    return [*lines, *_confirmed(outcome), *outcome.marks]


def _confirmed(outcome: OutcomeData) -> list[str]:
    """Return what the chosen one reached on evidence that nothing was chosen on."""
    chosen, original = outcome.chosen, outcome.original
    if chosen is None or chosen.test is None or original.test is None:
        return []
    pairs = zip(_all(chosen.test), _all(original.test), strict=False)
    figures = [_figure(mine, base) for mine, base in pairs]
    looks = "" if outcome.looks == 1 else f", the candidate number {outcome.looks} to be looked at"
    lines = [
        f"On {chosen.test.count} test items that nothing was chosen on{looks}: "
        f"{'; '.join(figures)}."
    ]
    if chosen.confirmation is not None:
        c = chosen.confirmation
        lines.append(f"Measured again in a fresh run: {c.ratio:.2f}x [{c.low:.2f}, {c.high:.2f}].")
        lines += [
            f"  on {name}: {d.ratio:.2f}x [{d.low:.2f}, {d.high:.2f}]"
            for name, d in c.devices.items()
        ]
    return lines


def _figure(mine: Quality, base: Quality) -> str:
    lost, error = mine.drop_from(base)
    spread = "" if error is None else f" +- {error:.4f}"
    return f"{mine.metric} {mine.value:.4f}, drop {lost:+.4f}{spread}"


def _original_row(outcome: OutcomeData) -> list[str]:
    original = outcome.original
    measured = next((r.comparison for r in outcome.results if r.comparison), None)
    p50, p95 = _percentiles(measured.base) if measured else ("-", "-")
    known = original.selection or original.test
    values = [text for q in _all(known) for text in (_value(q), "")] or ["-", ""]
    return ["original", bytes_text(original.size_bytes), *values, p50, p95, "", ""]


def _row(result: Result, original: Result, *, chosen: bool) -> list[str]:
    ratio = speedup(result)
    p50, p95 = _percentiles(result.comparison.candidate) if result.comparison else ("-", "-")
    mine, base = _all(result.selection), _all(original.selection)
    pairs = zip(mine, base, strict=False)  # of a dropped one only the first is known
    values = [text for a, b in pairs for text in (_value(a), f"{a.drop_from(b)[0]:+.4f}")]
    values += ["-"] * (2 * max(1, len(base)) - len(values))
    sign = "=" if result.measured_as else "~" if result.predicted is not None else ""
    name = f"{result.name} *" if chosen else result.name
    size = bytes_text(result.size_bytes) if result.size_bytes else "-"
    return [name, size, *values, p50, p95, f"{sign}{ratio or '-'}", _verdict(result)]


def _all(quality: Quality | None) -> list[Quality]:
    """Return the value of each metric; nothing where it is not known."""
    return [] if quality is None else [quality, *quality.others]


def _verdict(result: Result) -> str:
    if result.failure:
        return "failed"
    if result.comparison:
        return str(result.comparison.verdict)
    if result.measured_as:
        return "same graph"
    if result.predicted is not None:
        return "predicted"
    return "loses too much" if result.dropped else "not measured"


def _percentiles(measurement: Measurement) -> Sequence[str]:
    return [known_duration(measurement.percentile_ns(quantile)) for quantile in (0.5, 0.95)]


def _value(quality: Quality) -> str:
    return f"{quality.value:.4f}"
