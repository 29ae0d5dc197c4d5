"""Table of the candidates of a search, the chosen one and why, as text."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.core.context import Ratio
from trimtab.core.metric import Quality
from trimtab.core.text import bytes_text, known_duration, table
from trimtab.runtime_bench.measure.text import MEANING
from trimtab.runtime_bench.measure.values import Measurement

from ...report.constraints import CONFIRMED_HEADER, INTERVALS, speed_text
from ...report.frontier import ratio_text
from ..loss import LossEvidence
from ..ranking import speedup
from ..result import OutcomeData, Result


def outcome_lines(outcome: OutcomeData) -> list[str]:
    """Return the table of candidates, what was confirmed, the chosen one and why."""
    known = outcome.original.selection or outcome.original.test
    metric = known.metric if known else "quality"
    further = [name for q in (known.others if known else ()) for name in (q.metric, "drop")]
    header = ["candidate", "size", metric, "drop", *further, "original's p50", "p50", "p95"]
    header += ["speed-up", "verdict"]
    rows = [_original_row(outcome)]
    rows += [_row(r, outcome.original, chosen=r is outcome.chosen) for r in outcome.results]
    lines = table(header, rows)
    failed = [f"  {r.name}: {r.failure}" for r in outcome.results if r.failure]
    if failed:
        lines += ["", "not made or not measured:", *failed]
    lines += ["", *_legend(outcome, metric), *_confirmed(outcome)]
    name = outcome.chosen.name if outcome.chosen else "nothing"
    lines += [f"Chosen: {name}. {' '.join(outcome.why)}", *outcome.marks]
    swept = outcome.evidence.get("sweep")
    return [*lines, "", *table(swept["header"], swept["rows"]), swept["note"]] if swept else lines


def _legend(outcome: OutcomeData, metric: str) -> list[str]:
    known = outcome.original.selection
    items = known.count if known else outcome.data.get("selection", {}).get("items", 0)
    lines = [
        f"In the search: {metric} and drop are on the {items} items that choose; the p50s of a "
        "line and its speed-up are of one run."
    ]
    if any(r.measured_as for r in outcome.results):
        lines.append("=: the same kernels on the same shapes as a line above, measured once.")
    if any(r.predicted is not None for r in outcome.results):
        lines.append("~: predicted by a cost model, not measured.")
    return [*lines, INTERVALS]


def _confirmed(outcome: OutcomeData) -> list[str]:
    """Return what was confirmed on evidence that nothing was chosen on, as a table."""
    examined = [r for r in outcome.results if r.loss or r.confirmation or r.test]
    if not examined:
        return []
    title = f"Confirmed, {outcome.looks} looked at:"
    rows = [row for r in examined for row in _confirmed_rows(r, outcome.original)]
    kept = [
        f"{r.name} keeps {r.kept_answers:.4f} of the original's answers on all rows."
        for r in examined
        if r.kept_answers is not None
    ]
    devices = [
        f"  {r.name} on {name}: {Ratio(d.ratio, d.low, d.high)}"
        for r in examined
        if r.confirmation is not None
        for name, d in r.confirmation.devices.items()
    ]
    return ["", title, *table(CONFIRMED_HEADER, rows), *devices, *kept, ""]


def _confirmed_rows(result: Result, original: Result) -> list[list[str]]:
    """Return the cells of a candidate: a row for each metric that is limited."""
    loss, c = result.loss, result.confirmation
    ratio = "-" if c is None else ratio_text(c.ratio, c.low, c.high)
    speed = [ratio, speed_text(result.standing, None if c is None else c.low)]
    known = {entry.metric: entry for entry in (loss, *loss.others)} if loss else {}
    rows = []
    for mine, base in zip(_all(result.test), _all(original.test), strict=False):
        entry = known.get(mine.metric)
        point = [f"{mine.drop_from(base)[0]:+.4f}", f"{mine.count}, test split", "-"]
        cells = point if entry is None else _loss_cells(entry)
        rows.append([f"  {mine.metric}", *cells, "", ""])
    first = rows[0][1:4] if rows else ["-"] * 3
    return [[result.name, *first, *speed], *rows[1:]]


def _loss_cells(loss: LossEvidence) -> list[str]:
    ends = f"{loss.value:+.4f} [{loss.low:+.4f}, {loss.high:+.4f}]"
    return [ends, f"{loss.items}, {loss.part}", loss.verdict]


def _original_row(outcome: OutcomeData) -> list[str]:
    original = outcome.original
    known = original.selection or original.test
    values = [text for q in _all(known) for text in (_value(q), "")] or ["-", ""]
    return ["original", bytes_text(original.size_bytes), *values, *[""] * 5]


def _row(result: Result, original: Result, *, chosen: bool) -> list[str]:
    ratio = speedup(result)
    c = result.comparison
    p50, p95 = _percentiles(c.candidate) if c else ("-", "-")
    times = [_percentiles(c.base)[0] if c else "-", p50, p95]
    mine, base = _all(result.selection), _all(original.selection)
    pairs = zip(mine, base, strict=False)  # of a dropped one only the first is known
    values = [text for a, b in pairs for text in (_value(a), f"{a.drop_from(b)[0]:+.4f}")]
    values += ["-"] * (2 * max(1, len(base)) - len(values))
    sign = "=" if result.measured_as else "~" if result.predicted is not None else ""
    name = f"{result.name} *" if chosen else result.name
    size = bytes_text(result.size_bytes) if result.size_bytes else "-"
    return [name, size, *values, *times, f"{sign}{ratio or '-'}", _verdict(result)]


def _all(quality: Quality | None) -> list[Quality]:
    """Return the value of each metric; nothing where it is not known."""
    return [] if quality is None else [quality, *quality.others]


def _verdict(result: Result) -> str:
    if result.failure:
        return "failed"
    if result.comparison:
        return MEANING[result.comparison.verdict]
    if result.measured_as:
        return "same graph"
    if result.predicted is not None:
        return "predicted"
    return "loses too much" if result.dropped else "not measured"


def _percentiles(measurement: Measurement) -> Sequence[str]:
    return [known_duration(measurement.percentile_ns(quantile)) for quantile in (0.5, 0.95)]


def _value(quality: Quality) -> str:
    return f"{quality.value:.4f}"
