"""Constraints and the figures that the winner reached, line by line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trimtab.core.metrics.metric import ROUNDING, Z95, spread_text
from trimtab.core.text import bytes_text, duration_text, known_duration

from .frontier import ratio_text, speedup_text
from .view import Confirmed, Row, View

#: What the signs mean, in every table of a search.
INTERVALS = "± and [ ] are 95% intervals, those of a loss of the paired difference."
CONSTRAINT_HEADER = ("figure", "required", "reached", "verdict")
CONFIRMED_HEADER = ("candidate", "loss", "items", "allowed drop", "speed-up", "speed")
_SPEED = {"proved": "faster", "open": "not settled", "refuted": "not faster"}
#: Verdict on a constraint; `-` where nothing was required or nothing is known.
Verdict = Literal["held", "broken", "not settled", "-"]
#: Error rate of the verdict on a percentile.
ALPHA = 0.05


@dataclass(frozen=True)
class ConstraintLine:
    """One constraint with the figure that was reached.

    Attributes:
        name: name of the constrained figure.
        limit: the required value.
        reached: the winner's figure, `-` where there is no winner.
        verdict: held where the evidence holds it, not settled where its interval reaches beyond
            the limit.
    """

    name: str
    limit: str
    reached: str
    verdict: Verdict


def speed_text(standing: str | None, low: float | None) -> str:
    """Return the standing of a speed-up in words; `-` where none is claimed, as of float itself.

    Args:
        standing: proved, open or refuted.
        low: lower end of the interval of the speed-up.
    """
    claimed = standing != "proved" or (low is not None and low > 1)
    return _SPEED.get(standing or "", "-") if claimed else "-"


def constraint_lines(view: View) -> list[ConstraintLine]:
    """Return a line for each constraint, and for figures without one."""
    row, limits = view.chosen, view.constraints
    size = _bytes_line("file", row.size_bytes if row else None, limits.get("max_size"))
    speed = _speed(row, limits.get("min_speedup"))
    quality = [_quality(view, row), *_further(view, row)]
    return [*quality, speed, _latency(view, row), size, *_memory(view, row)]


def constraint_rows(view: View) -> list[list[str]]:
    """Return the cells of a table of the constraints under `CONSTRAINT_HEADER`."""
    return [[line.name, line.limit, line.reached, line.verdict] for line in constraint_lines(view)]


def headline(view: View) -> str:
    """Return the answer in one sentence, with the confirmed figures where there are any."""
    row = view.chosen
    if row is None:
        return "No candidate satisfies the constraints."
    parts = [bytes_text(view.original.size_bytes) + " to " + bytes_text(row.size_bytes)]
    if row.speedup is not None:
        open_too = " (not settled)" if row.confirmed and row.confirmed.speed == "open" else ""
        parts.insert(0, f"{_reached_speed(row)} as fast as the original{open_too}")
    known = row.confirmed
    if known is not None and known.drop is not None:
        parts.append(f"{view.metric} changes by {_interval(known, -1)}")
    elif row.drop is not None:
        parts.append(f"{view.metric} changes by {0.0 - row.drop:+.4f}{_spread(row.drop_error)}")
    return f"{row.name}: {', '.join(parts)}."


def figures(row: Row, view: View) -> list[str]:
    """Return file, quality, loss, and of one run the p50 of the original, p50, p95, speed-up."""
    is_original = row is view.original
    times = (row.base_p50_ns, row.p50_ns, row.p95_ns)
    return [
        bytes_text(row.size_bytes) if row.size_bytes else "-",
        "-" if row.quality is None else f"{row.quality:.4f}{_spread(row.quality_error)}",
        "" if is_original else _drop(row),
        *("" if is_original else known_duration(ns) for ns in times),
        "" if is_original else speedup_text(row),
    ]


def confirmed_rows(view: View) -> list[list[str]]:
    """Return the cells of a table of what was confirmed under `CONFIRMED_HEADER`."""
    known = [(row, row.confirmed) for row in view.rows if row.confirmed is not None]
    return [
        [
            row.name,
            "-" if found.drop is None else _interval(found),
            f"{found.items}, {found.part}" if found.items else "-",
            found.quality or "-",
            "-" if found.speedup is None else ratio_text(found.speedup, found.low, found.high),
            speed_text(found.speed, found.low),
        ]
        for row, found in known
    ]


def _spread(error: float | None) -> str:
    """Return half of the 95% interval of a standard error."""
    return spread_text(None if error is None else Z95 * error)


def _interval(found: Confirmed, sign: int = 1) -> str:
    """Return a loss, or with the sign -1 a change, with its 95% interval."""
    if found.drop is None:
        return "-"
    ends = [sign * end for end in (found.drop_low, found.drop_high) if end is not None]
    text = f"{sign * found.drop + 0.0:+.4f}"
    return f"{text} [{min(ends) + 0.0:+.4f}, {max(ends) + 0.0:+.4f}]" if len(ends) == 2 else text


def _reached_speed(row: Row) -> str:
    """Return the speed-up of the fresh run, else that of the search."""
    known = row.confirmed
    if known is not None and known.speedup is not None:
        return ratio_text(known.speedup, known.low, known.high)
    return speedup_text(row).lstrip("=")


def _drop(row: Row) -> str:
    return "-" if row.drop is None else f"{row.drop:+.4f}{_spread(row.drop_error)}"


def _quality(view: View, row: Row | None) -> ConstraintLine:
    limit, name = view.constraints.get("max_drop"), f"loss of {view.metric}"
    required = "-" if limit is None else f"at most {float(limit):g}"
    if row is None:
        return ConstraintLine(name, required, "-", "-")
    known = row.confirmed
    if known is not None and known.drop is not None:
        reached = f"{_interval(known)} on {known.items} items, {known.part}"
        ends = (known.drop_low, known.drop_high)
    else:
        reached = f"{_drop(row)} on the {row.part or 'missing'} split"
        spread = Z95 * (row.drop_error or 0.0)
        ends = (None, None) if row.drop is None else (row.drop - spread, row.drop + spread)
    return ConstraintLine(name, required, reached, _below(ends, limit, ROUNDING))


def _further(view: View, row: Row | None) -> list[ConstraintLine]:
    """Return a line for each metric that is limited beside the first."""
    drops = {} if row is None else {name: drop for name, _, drop in row.further}
    fresh = {o.metric: o for o in row.confirmed.others} if row and row.confirmed else {}
    lines = []
    for name, limit in list(dict(view.constraints.get("max_drops") or {}).items())[1:]:
        drop, known = drops.get(name), fresh.get(name)
        reached, ends = "-", (drop, drop)
        if known is not None:
            reached = f"{_interval(known)} on {known.items} items, {known.part}"
            ends = (known.drop_low, known.drop_high)
        elif drop is not None and row is not None:
            reached = f"{drop:+.4f} on the {row.part} split"
        verdict = _below(ends, limit, ROUNDING)
        required = f"at most {float(limit):g}"
        lines.append(ConstraintLine(f"loss of {name}", required, reached, verdict))
    return lines


def _speed(row: Row | None, limit: Any) -> ConstraintLine:
    required = "-" if limit is None else f"at least {float(limit):g}x"
    if row is None:
        return ConstraintLine("speed-up", required, "-", "-")
    known = row.confirmed
    low, high = row.low, row.high
    if known is not None and known.speedup is not None:
        low, high = known.low, known.high
    if row.predicted:
        low = high = row.speedup
    verdict: Verdict = "-"
    if limit is not None and low is not None:
        beyond = high is not None and high < float(limit)
        verdict = "held" if low >= float(limit) else "broken" if beyond else "not settled"
    return ConstraintLine("speed-up", required, _reached_speed(row), verdict)


def _latency(view: View, row: Row | None) -> ConstraintLine:
    limits = view.constraints
    limit, which = limits.get("max_latency_ns"), float(limits.get("percentile", 95.0))
    required = "-" if limit is None else f"p{which:g} at most {duration_text(float(limit))}"
    known = row.confirmed if row else None
    fresh = known is not None and known.p50_ns is not None
    found = known if fresh else row
    measured = (("p50", found.p50_ns), ("p95", found.p95_ns)) if found else ()
    times = [f"{name} {duration_text(ns)}" for name, ns in measured if ns is not None]
    verdict: Verdict = "-"
    if limit is not None and view.chosen_ns:
        verdict = _percentile_verdict(view.chosen_ns, float(limit), which / 100)
    return ConstraintLine("latency", required, ", ".join(times) or "-", verdict)


def _percentile_verdict(samples_ns: Sequence[float], limit_ns: float, quantile: float) -> Verdict:
    """Return whether the runs prove that the percentile is below a limit, or above it."""
    from trimtab.runtime_bench.stats.percentiles import percentile_test

    found = percentile_test(samples_ns, limit_ns, quantile=quantile, alpha=ALPHA).verdict
    verdicts: dict[str, Verdict] = {"pass": "held", "fail": "broken", "open": "not settled"}
    return verdicts[found]


def _below(ends: tuple[float | None, float | None], limit: Any, rounding: float = 0.0) -> Verdict:
    """Return on which side of a limit an interval lies."""
    low, high = ends
    if limit is None or low is None or high is None:
        return "-"
    if high <= float(limit) + rounding:
        return "held"
    return "broken" if low > float(limit) + rounding else "not settled"


def _memory(view: View, row: Row | None) -> list[ConstraintLine]:
    limit = view.constraints.get("max_rss")
    results = view.document.get("results", ())
    known = next((r.get("rss_bytes") for r in results if row and r["name"] == row.name), None)
    if limit is None and known is None:
        return []
    return [_bytes_line("peak memory", known, limit)]


def _bytes_line(name: str, known: Any, limit: Any) -> ConstraintLine:
    required = "-" if limit is None else f"at most {bytes_text(float(limit))}"
    reached = "-" if known is None else bytes_text(float(known))
    return ConstraintLine(name, required, reached, _below((known, known), limit))
