"""The charts as Vega-Lite specifications: plain JSON values, without colours.

Colours come from the page, which knows whether it is dark; data are in the named source `rows`,
so that the page can filter them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .evidence_view import ErrorRow, LayerRow, WidthRow
from .frontier import frontier_rows
from .view import View

Spec = dict[str, Any]
SCHEMA_URL = "https://vega.github.io/schema/vega-lite/v6.json"
#: Points of a distribution that are drawn.
ECDF_POINTS = 200
#: Layers that a chart shows; the table behind it shows all.
LAYERS = 40


def frontier(view: View) -> Spec | None:
    """Draw quality lost against latency, with error bars; a point grows with its file."""
    rows = frontier_rows(view)
    if len(rows) < 2:
        return None
    unit = rows[0]["unit"]
    x = {"field": "x", "type": "quantitative", "title": unit, "scale": {"zero": False}}
    y = {
        "field": "y",
        "type": "quantitative",
        "title": f"{view.metric}, change against the original",
        "scale": {"zero": False},
    }
    bars = [
        {
            "mark": {"type": "rule", "opacity": 0.5, "aria": False},
            "encoding": {"x": {**x, "field": "x_low"}, "x2": {"field": "x_high"}, "y": y},
            "transform": [{"filter": "isValid(datum.x_low) && isValid(datum.x_high)"}],
        },
        {
            "mark": {"type": "rule", "opacity": 0.5, "aria": False},
            "encoding": {"y": {**y, "field": "y_low"}, "y2": {"field": "y_high"}, "x": x},
            "transform": [{"filter": "isValid(datum.y_low) && isValid(datum.y_high)"}],
        },
    ]
    line = {
        "transform": [{"filter": "datum.frontier"}],
        "mark": {
            "type": "line",
            "interpolate": "step-after",
            "strokeDash": [5, 4],
            "opacity": 0.7,
            "aria": False,
        },
        "encoding": {"x": x, "y": y},
    }
    return {
        **_chart("Quality against latency of every measured candidate", rows, height=340),
        "layer": [*bars, line, _points(x, y, unit)],
    }


def _points(x: Spec, y: Spec, unit: str) -> Spec:
    kinds = ["chosen", "frontier", "candidate", "original"]
    kind = {"type": "nominal", "title": None, "legend": {"orient": "top", "columns": 2}}
    return {
        "params": [
            {"name": "hovered", "select": {"type": "point", "on": "pointerover", "clear": False}}
        ],
        "mark": {"type": "point", "filled": True, "strokeWidth": 1.5},
        "encoding": {
            "x": x,
            "y": y,
            "size": {
                "field": "bytes",
                "type": "quantitative",
                "scale": {"range": [60, 900], "zero": True},
                "legend": None,
            },
            "color": {"field": "kind", "scale": {"domain": kinds}, **kind},
            # Shapes as well as colours, for eyes that cannot distinguish colours.
            "shape": {
                "field": "kind",
                "scale": {"domain": kinds, "range": ["diamond", "circle", "square", "triangle"]},
                **kind,
            },
            "opacity": {"condition": {"param": "hovered", "value": 1}, "value": 0.75},
            "tooltip": [
                {"field": "name", "title": "candidate"},
                {"field": "x", "title": unit, "format": ".4g"},
                {"field": "speedup", "title": "speed-up"},
                {"field": "y", "title": "change", "format": "+.4f"},
                {"field": "size", "title": "file"},
            ],
            "description": {"field": "text"},
        },
    }


def latencies(view: View) -> Spec | None:
    """Draw the empirical distributions of the original's and the winner's latency."""
    named = [("original", view.base_ns), ("chosen", view.chosen_ns)]
    rows = [
        {"model": name, "ms": ns / 1e6, "share": share}
        for name, samples in named
        for ns, share in ecdf(samples)
    ]
    if not all(samples for _, samples in named):
        return None
    return {
        **_chart("Share of runs that took at most so long", rows, height=260),
        "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2},
        "encoding": {
            "x": {
                "field": "ms",
                "type": "quantitative",
                "title": "latency in ms, logarithmic",
                "scale": {"type": "log", "nice": False},
                "axis": {"tickCount": 6, "format": "~g"},
            },
            "y": {
                "field": "share",
                "type": "quantitative",
                "title": "share of runs",
                "axis": {"format": "%"},
            },
            "color": _model_colour(),
            # Dashes as well as colours, for eyes that cannot distinguish colours.
            "strokeDash": {"field": "model", "scale": {"domain": ["original", "chosen"]}},
            "tooltip": [
                {"field": "model"},
                {"field": "ms", "title": "ms", "format": ".4g"},
                {"field": "share", "title": "share of runs", "format": ".1%"},
            ],
        },
    }


def ecdf(samples: Sequence[float]) -> list[tuple[float, float]]:
    """Return (value, share of samples at most that), thinned to `ECDF_POINTS` with the extremes."""
    ordered = sorted(samples)
    last = len(ordered) - 1
    if last < 1:
        return [(value, 1.0) for value in ordered]
    points = min(ECDF_POINTS, len(ordered))
    ranks = sorted({round(i * last / (points - 1)) for i in range(points)})
    return [(ordered[r], (r + 1) / len(ordered)) for r in ranks]


def layer_times(rows: Sequence[LayerRow]) -> Spec | None:
    """Draw the time of each layer, before and after."""
    shown = sorted(rows, key=lambda r: -max(r.before_ns or 0, r.after_ns or 0))[:LAYERS]
    data = [
        {"layer": r.name, "model": which, "us": ns / 1e3}
        for r in shown
        for which, ns in (("original", r.before_ns), ("chosen", r.after_ns))
        if ns is not None
    ]
    return _paired_bars("Time of each layer", data, "layer", "us", "time in us")


def layer_errors(rows: Sequence[ErrorRow]) -> Spec | None:
    """Draw the signal-to-noise ratio at each layer's output, of all rounding and of its own."""
    data = [
        {"layer": r.name, "here": r.here_db, "alone": r.alone_db, "sensitivity": r.sensitivity}
        for r in rows[:LAYERS]
    ]
    if not data:
        return None
    title = "signal-to-noise ratio in dB"
    y, x = _names("layer"), {"type": "quantitative", "title": title}
    tooltip = [
        {"field": "layer"},
        {"field": "here", "title": "everything in int8, dB", "format": ".1f"},
        {"field": "alone", "title": "this layer alone, dB", "format": ".1f"},
        {"field": "sensitivity", "title": "of the error", "format": ".1%"},
    ]
    return {
        **_chart("Quantization error of each layer", data, height=16 * len(data)),
        "encoding": {"y": y, "tooltip": tooltip},
        "layer": [
            {"mark": "bar", "encoding": {"x": {"field": "here", **x}}},
            {"mark": {"type": "tick", "thickness": 3}, "encoding": {"x": {"field": "alone", **x}}},
        ],
    }


def widths(rows: Sequence[WidthRow]) -> Spec | None:
    """Draw the channels of each pruned group, before and after."""
    data = [
        {"group": r.name, "model": which, "channels": count}
        for r in rows[:LAYERS]
        for which, count in (("original", r.before), ("chosen", r.after))
    ]
    return _paired_bars("Channels of each group", data, "group", "channels", "channels")


def _paired_bars(text: str, data: list[Spec], name: str, value: str, title: str) -> Spec | None:
    if not data:
        return None
    return {
        **_chart(text, data, height=11 * len(data)),
        "mark": {"type": "bar"},
        "encoding": {
            "y": _names(name),
            "yOffset": {"field": "model", "scale": {"domain": ["original", "chosen"]}},
            "x": {"field": value, "type": "quantitative", "title": title},
            "color": _model_colour(),
            "tooltip": [
                {"field": name},
                {"field": "model"},
                {"field": value, "title": title, "format": ".4g"},
            ],
        },
    }


def _chart(text: str, rows: list[Spec], height: int) -> Spec:
    return {
        "$schema": SCHEMA_URL,
        "description": text,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "data": {"name": "rows", "values": rows},
    }


def _names(field: str) -> Spec:
    return {
        "field": field,
        "type": "nominal",
        "sort": None,
        "title": None,
        "axis": {"labelLimit": 150},
    }


def _model_colour() -> Spec:
    return {
        "field": "model",
        "type": "nominal",
        "title": None,
        "scale": {"domain": ["original", "chosen"]},
        "legend": {"orient": "top"},
    }
