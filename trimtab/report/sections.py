"""The sections of the page: each chart with its caption and its figures in a table."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from trimtab.core.text import duration_text, known_duration

from . import charts
from .candidates import candidate_table
from .constraints import (
    CONFIRMED_HEADER,
    CONSTRAINT_HEADER,
    INTERVALS,
    confirmed_rows,
    constraint_rows,
)
from .evidence_view import ErrorRow, IslandRow, LayerRow, WidthRow, island_rows
from .frontier import frontier_rows
from .markup import Html, joined, table, tag
from .view import View


def constraint_table(view: View) -> Html:
    """Draw a line for each constraint, and the reasons for the choice."""
    rows = [[*cells, _verdict(verdict)] for *cells, verdict in constraint_rows(view)]
    notes = [tag("p", text) for text in (*view.marks, *view.why, view.advice) if text]
    caption = "Constraints and the confirmed figures of the chosen model"
    tables = [table(CONSTRAINT_HEADER, rows, caption=caption, numeric=())]
    examined = confirmed_rows(view)
    if examined:
        caption = "What was confirmed, on evidence that nothing was chosen on"
        tables.append(table(CONFIRMED_HEADER, examined, caption=caption, numeric=()))
    return joined([*tables, tag("p", INTERVALS, class_="note"), *notes])


def _verdict(verdict: str) -> Html:
    named = f"verdict {verdict.replace(' ', '-')}" if verdict != "-" else "verdict"
    return tag("span", verdict, class_=named)


def candidates(view: View) -> list[Html]:
    """Draw the table with its filters and its signs."""
    return [_filters(), candidate_table(view), _legend(view)]


def _filters() -> Html:
    """Draw the filters, which the page's script shows, since nothing filters without it."""
    field = tag("input", type="search", id="filter", autocomplete="off", spellcheck="false")
    search = tag("label", "Filter by name ", field)
    boxes = [
        tag("label", tag("input", type="checkbox", id=f"only-{name}"), f" {label}")
        for name, label in (("measured", "measured only"), ("frontier", "frontier only"))
    ]
    count = tag("output", id="count", for_="filter only-measured only-frontier", aria_live="polite")
    return tag("form", search, *boxes, count, id="filters", hidden=True, role="search")


def _legend(view: View) -> Html:
    notes = []
    if any(r.same_as for r in view.rows):
        notes.append("=: the same kernels on the same shapes as another line, measured once.")
    if any(r.predicted for r in view.rows):
        notes.append("~: predicted by a cost model, not measured.")
    notes.append("Figures of the search: quality on the items that choose, times of its own runs.")
    notes.append("The p50s of a line and its speed-up are of one run.")
    notes.append(INTERVALS)
    return tag("p", " ".join(notes), class_="note")


def _figure(
    name: str,
    label: str,
    caption: str,
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    numeric: Container[int] = range(1, 99),
) -> Html:
    """Draw a chart with its caption and its figures in a table."""
    behind = table(header, rows, caption=label, numeric=numeric)
    chart = tag("div", class_="chart", id=f"chart-{name}", role="group", aria_label=label)
    folded = tag("details", tag("summary", f"Figures of “{label}” as a table"), behind)
    return tag("figure", chart, tag("figcaption", caption), folded)


def frontier(view: View) -> list[Html]:
    """Draw the cost and the gain of each candidate."""
    points = frontier_rows(view)
    if len(points) < 2:
        return [_none("Too little was measured for a chart.")]
    rows = [
        [r["name"], r["kind"], f"{r['x']:.4g}", r["speedup"], f"{r['y']:+.4f}", r["size"]]
        for r in points
    ]
    label = "Quality against latency"
    header = ["candidate", "kind", points[0]["unit"], "speed-up", "change", "file"]
    caption = (
        "Further left is faster, further up is better; the area of a point is its file's size, "
        "bars are 95% intervals, the dashed line joins the frontier. Latencies are the original's "
        "median over the paired speed-up."
    )
    return [_figure("frontier", label, caption, header, rows, range(2, 6))]


def latencies(view: View) -> list[Html]:
    """Draw all runs of the original and of the winner."""
    if not (view.base_ns and view.chosen_ns):
        return [_none("The chosen model's latency was not measured.")]
    label = "Latency of original and chosen model"
    rows = []
    for share in (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99):
        times = [duration_text(_quantile(s, share)) for s in (view.base_ns, view.chosen_ns)]
        rows.append([f"{share:.0%} of runs", *times])
    caption = (
        f"{len(view.base_ns)} runs of the original and {len(view.chosen_ns)} of the chosen model, "
        "interleaved at random in one run."
    )
    header = ["within the time", "original", "chosen"]
    return [_figure("latencies", label, caption, header, rows)]


def _quantile(samples: tuple[float, ...], share: float) -> float:
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def times(view: View, layers: Sequence[LayerRow]) -> list[Html]:
    """Draw the time of each layer."""
    timed = [r for r in layers if r.before_ns is not None or r.after_ns is not None]
    if not timed:
        return [_none(_missing(view, "times", "The layers were not profiled."))]
    label = "Time of each layer, before and after"
    rows = [
        [r.name, r.op_type, r.runs_as, *(known_duration(ns) for ns in (r.before_ns, r.after_ns))]
        for r in timed
    ]
    caption = (
        "Shares of a profiled run, scaled to the measured median: profiling distorts short "
        "operators. In parentheses: operators that stand for no layer of the original. The "
        f"chart shows the {min(charts.LAYERS, len(timed))} slowest."
    )
    header = ["layer", "operator", "runs as", "before", "after"]
    return [_figure("times", label, caption, header, rows, range(3, 5))]


def errors(view: View, rows: Sequence[ErrorRow]) -> list[Html]:
    """Draw the rounding error of each layer."""
    if not rows:
        return [_none(_missing(view, "errors", "The chosen model is not quantized."))]
    label = "Signal-to-noise ratio at each layer's output"
    lines = []
    for r in rows:
        ratios = [_decibels(r.alone_db), _decibels(r.here_db), f"{r.sensitivity:.1%}"]
        lines.append([r.name, r.op_type, *ratios, r.cause])
    found = view.evidence["errors"]
    caption = (
        f"On {found.get('samples', '?')} held-out samples, against the float model. Bars: with "
        "everything in int8; ticks: with this layer alone in int8. 6 dB are one bit. The layer "
        f"that changes the answer most comes first; the answer itself has "
        f"{_decibels(found.get('answer_snr_db'))} dB."
    )
    header = ["layer", "operator", "alone, dB", "all, dB", "of the error", "cause"]
    notes = [tag("p", note, class_="note") for note in found.get("notes", ())]
    return [_figure("errors", label, caption, header, lines, range(2, 5)), *notes]


def _decibels(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.1f}"


def widths(groups: Sequence[WidthRow]) -> list[Html]:
    """Draw the channels that pruning left."""
    if not groups:
        return [_none("No channels were pruned.")]
    label = "Channels of each pruned group"
    rows = [[r.name, r.operators, r.before, r.after] for r in groups]
    header = ["group", "layers", "before", "after"]
    caption = "Layers of a group lose the same channels."
    return [_figure("widths", label, caption, header, rows)]


def islands(view: View) -> Html:
    """List what stayed float, the cause, and the fix."""
    found = island_rows(view.evidence)
    if not found:
        return _none(_missing(view, "islands", "None."))
    header = ["nodes", "cause", "fix", "share of the time"]
    caption = "Float operators that cost time in the chosen model"
    return table(header, [_island(r) for r in found], caption=caption, numeric=range(3, 5))


def _island(row: IslandRow) -> list[object]:
    share = "-" if row.time_share is None else f"{row.time_share:.1%}"
    shown = ", ".join(row.nodes[:6]) + (" ..." if len(row.nodes) > 6 else "")
    return [shown, row.why, row.fix, share]


def _missing(view: View, part: str, otherwise: str) -> str:
    return str(view.evidence.get("missing", {}).get(part, otherwise))


def _none(text: str) -> Html:
    return tag("p", text, class_="none")
