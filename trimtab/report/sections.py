"""The content of the page: rows and captions, which `page.html` puts in their places."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from trimtab.core.text import duration_text, known_duration

from . import charts
from .constraints import (
    CONFIRMED_HEADER,
    CONSTRAINT_HEADER,
    INTERVALS,
    confirmed_rows,
    constraint_rows,
    figures,
    headline,
)
from .evidence_view import error_rows, island_rows, layer_rows, width_rows
from .frontier import frontier_rows
from .view import View

OUTPUT_HEADER = ("output", "what it is", "kept")
#: Beginning of the only pictures that a page shows: those that it holds itself.
_INLINE = "data:image/"


@dataclass(frozen=True)
class Figures:
    """A table, and where a chart shows it the chart's texts.

    Attributes:
        header: titles of the columns.
        rows: cells; none where `missing` stands in the table's place.
        label: name of the chart for those who do not see it.
        caption: what to know to read it.
        numeric: columns that hold numbers.
        notes: sentences behind it.
        missing: why there is nothing.
    """

    header: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()
    label: str = ""
    caption: str = ""
    numeric: Collection[int] = range(1, 99)
    notes: Sequence[str] = ()
    missing: str = ""


def answer(view: View) -> dict[str, Any]:
    """Return what was chosen, and whether it holds what was asked."""
    return {
        "headline": headline(view),
        "metric": view.metric,
        "constraint_header": CONSTRAINT_HEADER,
        "constraints": constraint_rows(view),
        "intervals": INTERVALS,
        "notes": [text for text in (*view.marks, *view.why, view.advice) if text],
    }


def content(view: View) -> dict[str, Any]:
    """Return the values of `page.html` that come from the document."""
    return {
        **answer(view),
        "view": view,
        "confirmed_header": CONFIRMED_HEADER,
        "confirmed": confirmed_rows(view),
        "candidates": candidates(view),
        "sweep": view.evidence.get("sweep"),
        "output_header": OUTPUT_HEADER,
        "outputs": output_rows(view),
        "examples": _examples(view),
        "charts": [
            ("frontier", "Quality against latency", _frontier(view)),
            ("latencies", "Latency", _latencies(view)),
            ("times", "Time of each layer", _times(view)),
            ("errors", "Quantization error of each layer", _errors(view)),
            ("widths", "Pruned widths", _widths(view)),
        ],
        "islands": _islands(view),
        "recipe": recipe_text(view),
        "environment": _environment(view),
        "lineage": [_step(step) for step in view.evidence.get("lineage") or ()],
        **_search(view),
    }


def candidates(view: View) -> list[dict[str, Any]]:
    """Return the original and every candidate: cells, and the values that cells are sorted by."""
    return [
        {
            "row": row,
            "is_original": row is view.original,
            "figures": figures(row, view),
            "sorted_by": [
                row.size_bytes or None,
                row.quality,
                row.drop,
                row.base_p50_ns,
                row.p50_ns,
                row.p95_ns,
                row.speedup,
            ],
        }
        for row in (view.original, *view.rows)
    ]


def output_rows(view: View) -> list[list[str]]:
    """Return the cells of a table of the outputs under `OUTPUT_HEADER`."""
    found = (view.evidence.get("examples") or {}).get("outputs") or ()
    return [[str(o["name"]), str(o["kind"]), f"{float(o['value']):.4f}"] for o in found]


def _examples(view: View) -> dict[str, Any]:
    """Return the answers of both models to the items that changed most."""
    found: Mapping[str, Any] = view.evidence.get("examples") or {}
    return {
        "count": found.get("items", "?"),
        "note": found.get("note"),
        "missing": _missing(view, "examples", "Nothing was compared."),
        "listed": [
            {
                "name": e["name"],
                "output": e["output"],
                "kept": f"{float(e['kept']):.4f}",
                "float": _side(e["float"]),
                "ours": _side(e["ours"]),
            }
            for e in found.get("examples") or ()
        ],
    }


def _side(side: Mapping[str, Any]) -> dict[str, str]:
    source = str(side.get("image", ""))
    return {"text": str(side["text"]), "image": source if source.startswith(_INLINE) else ""}


def _frontier(view: View) -> Figures:
    points = frontier_rows(view)
    if len(points) < 2:
        return Figures(missing="Too little was measured for a chart.")
    return Figures(
        ["candidate", "kind", points[0]["unit"], "speed-up", "change", "file"],
        [
            [r["name"], r["kind"], f"{r['x']:.4g}", r["speedup"], f"{r['y']:+.4f}", r["size"]]
            for r in points
        ],
        "Quality against latency",
        "Further left is faster, further up is better; the area of a point is its file's size, "
        "bars are 95% intervals, the dashed line joins the frontier. Latencies are the original's "
        "median over the paired speed-up.",
        range(2, 6),
    )


def _latencies(view: View) -> Figures:
    if not (view.base_ns and view.chosen_ns):
        return Figures(missing="The chosen model's latency was not measured.")
    rows = [
        [
            f"{s:.0%} of runs",
            *(duration_text(_quantile(v, s)) for v in (view.base_ns, view.chosen_ns)),
        ]
        for s in (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
    ]
    caption = (
        f"{len(view.base_ns)} runs of the original and {len(view.chosen_ns)} of the chosen model, "
        "interleaved at random in one run."
    )
    header = ["within the time", "original", "chosen"]
    return Figures(header, rows, "Latency of original and chosen model", caption)


def _quantile(samples: tuple[float, ...], share: float) -> float:
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _times(view: View) -> Figures:
    layers = layer_rows(view.evidence)
    timed = [r for r in layers if r.before_ns is not None or r.after_ns is not None]
    caption = (
        "Shares of a profiled run, scaled to the measured median: profiling distorts short "
        "operators. In parentheses: operators that stand for no layer of the original. The "
        f"chart shows the {min(charts.LAYERS, len(timed))} slowest."
    )
    return Figures(
        ["layer", "operator", "runs as", "before", "after"],
        [
            [r.name, r.op_type, r.runs_as, *map(known_duration, (r.before_ns, r.after_ns))]
            for r in timed
        ],
        "Time of each layer, before and after",
        caption,
        range(3, 5),
        missing=_missing(view, "times", "The layers were not profiled."),
    )


def _errors(view: View) -> Figures:
    found = view.evidence.get("errors") or {}
    caption = (
        f"On {found.get('samples', '?')} held-out samples, against the float model. Bars: with "
        "everything in int8; ticks: with this layer alone in int8. 6 dB are one bit. The layer "
        f"that changes the answer most comes first; the answer itself has "
        f"{_decibels(found.get('answer_snr_db'))} dB."
    )
    return Figures(
        ["layer", "operator", "alone, dB", "all, dB", "of the error", "cause"],
        [
            [
                r.name,
                r.op_type,
                _decibels(r.alone_db),
                _decibels(r.here_db),
                f"{r.sensitivity:.1%}",
                r.cause,
            ]
            for r in error_rows(view.evidence)
        ],
        "Signal-to-noise ratio at each layer's output",
        caption,
        range(2, 5),
        list(found.get("notes", ())),
        _missing(view, "errors", "The chosen model is not quantized."),
    )


def _decibels(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.1f}"


def _widths(view: View) -> Figures:
    return Figures(
        ["group", "layers", "before", "after"],
        [[r.name, r.operators, r.before, r.after] for r in width_rows(view.evidence)],
        "Channels of each pruned group",
        "Layers of a group lose the same channels.",
        missing="No channels were pruned.",
    )


def _islands(view: View) -> Figures:
    return Figures(
        ["nodes", "cause", "fix", "share of the time"],
        [
            [
                ", ".join(r.nodes[:6]) + (" ..." if len(r.nodes) > 6 else ""),
                r.why,
                r.fix,
                "-" if r.time_share is None else f"{r.time_share:.1%}",
            ]
            for r in island_rows(view.evidence)
        ],
        caption="Float operators that cost time in the chosen model",
        missing=_missing(view, "islands", "None."),
    )


def _missing(view: View, part: str, otherwise: str) -> str:
    return str(view.evidence.get("missing", {}).get(part, otherwise))


def recipe_text(view: View) -> str:
    """Return the winner's recipe as YAML; empty where there is no winner."""
    if view.recipe is None:
        return ""
    return str(yaml.safe_dump(dict(view.recipe), sort_keys=False, width=100))


def _environment(view: View) -> list[list[str]]:
    return [
        *([key.replace("_", " "), _plain(value)] for key, value in view.environment.items()),
        *([f"{name} data", _plain(part)] for name, part in view.data.items()),
        *([f"digest of the {k}", v] for k, v in view.evidence.get("digests", {}).items()),
    ]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_plain(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return "-" if value in (None, "") else str(value)


def _step(step: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step of the lineage, with what it was told and what it noted as JSON."""
    params, notes = dict(step.get("params", {})), dict(step.get("notes", {}))
    declined = notes.pop("declined", [])
    parts = (("parameters", params), ("notes", notes))
    return {
        "name": step["pass"],
        "input": str(step["input"])[:12],
        "inside": [(n, json.dumps(part, indent=1, default=str)) for n, part in parts if part],
        "declined": [[str(node), str(reason)] for node, reason in declined],
    }


def _search(view: View) -> dict[str, Any]:
    effort, decisions = view.document.get("effort") or {}, view.document.get("decisions") or ()
    keys = list(dict.fromkeys(key for d in decisions for key in d))
    return {
        "effort": [[str(k).replace("_", " "), _plain(v)] for k, v in effort.items()],
        "decisions": Figures(keys, [[_plain(d.get(key)) for key in keys] for d in decisions]),
        "looks": int(view.document.get("looks", 1)),
    }
