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
    x = _axis("x", unit, scale={"zero": False})
    y = _axis("y", f"{view.metric}, change against the original", scale={"zero": False})
    bars = [
        {
            "mark": {"type": "rule", "opacity": 0.5, "aria": False},
            "encoding": {
                a: {**axis, "field": f"{a}_low"},
                f"{a}2": {"field": f"{a}_high"},
                **other,
            },
            "transform": [{"filter": f"isValid(datum.{a}_low) && isValid(datum.{a}_high)"}],
        }
        for a, axis, other in (("x", x, {"y": y}), ("y", y, {"x": x}))
    ]
    line = {
        "transform": [{"filter": "datum.frontier"}],
        "mark": _steps(strokeDash=[5, 4], opacity=0.7, aria=False),
        "encoding": {"x": x, "y": y},
    }
    return {
        **_chart("Quality against latency of every measured candidate", rows, height=340),
        "layer": [*bars, line, _points(x, y, unit)],
    }


def _points(x: Spec, y: Spec, unit: str) -> Spec:
    kinds = ["chosen", "frontier", "candidate", "original"]
    select = {"type": "point", "on": "pointerover", "clear": False}
    kind = {"type": "nominal", "title": None, "legend": {"orient": "top", "columns": 2}}
    return {
        "params": [{"name": "hovered", "select": select}],
        "mark": {"type": "point", "filled": True, "strokeWidth": 1.5},
        "encoding": {
            "x": x,
            "y": y,
            "size": _axis("bytes", scale={"range": [60, 900], "zero": True}, legend=None),
            "color": {"field": "kind", "scale": {"domain": kinds}, **kind},
            # Shapes as well as colours, for eyes that cannot distinguish colours.
            "shape": {
                "field": "kind",
                "scale": {"domain": kinds, "range": ["diamond", "circle", "square", "triangle"]},
                **kind,
            },
            "opacity": {"condition": {"param": "hovered", "value": 1}, "value": 0.75},
            "tooltip": _tooltip(
                ("name", "candidate"),
                ("x", unit, ".4g"),
                ("speedup", "speed-up"),
                ("y", "change", "+.4f"),
                ("size", "file"),
            ),
            "description": {"field": "text"},
        },
    }


def latencies(view: View) -> Spec | None:
    """Draw the empirical distributions of the original's and the winner's latency."""
    if not (view.base_ns and view.chosen_ns):
        return None
    rows = [
        {"model": name, "ms": ns / 1e6, "share": share}
        for name, samples in (("original", view.base_ns), ("chosen", view.chosen_ns))
        for ns, share in ecdf(samples)
    ]
    return {
        **_chart("Share of runs within a latency", rows, height=260),
        "mark": _steps(strokeWidth=2),
        "encoding": {
            "x": _axis(
                "ms",
                "latency in ms, logarithmic",
                scale={"type": "log", "nice": False},
                axis={"tickCount": 6, "format": "~g"},
            ),
            "y": _axis("share", "share of runs", axis={"format": "%"}),
            "color": _model_colour(),
            # Dashes as well as colours, for eyes that cannot distinguish colours.
            "strokeDash": {"field": "model", "scale": {"domain": ["original", "chosen"]}},
            "tooltip": _tooltip(("model",), ("ms", "ms", ".4g"), ("share", "share of runs", ".1%")),
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
    tooltip = _tooltip(
        ("layer",),
        ("here", "everything in int8, dB", ".1f"),
        ("alone", "this layer alone, dB", ".1f"),
        ("sensitivity", "of the error", ".1%"),
    )
    tick = {"type": "tick", "thickness": 3}
    return {
        **_chart("Quantization error of each layer", data, height=16 * len(data)),
        "encoding": {"y": _names("layer"), "tooltip": tooltip},
        "layer": [
            {"mark": "bar", "encoding": {"x": _axis("here", title)}},
            {"mark": tick, "encoding": {"x": _axis("alone", title)}},
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
            "x": _axis(value, title),
            "color": _model_colour(),
            "tooltip": _tooltip((name,), ("model",), (value, title, ".4g")),
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


def _axis(field: str, title: str | None = None, **more: Any) -> Spec:
    return {"field": field, "type": "quantitative", **({"title": title} if title else {}), **more}


def _steps(**more: Any) -> Spec:
    return {"type": "line", "interpolate": "step-after", **more}


def _tooltip(*columns: Sequence[str]) -> list[Spec]:
    """Return a tooltip of columns (field, title, format), the last two of which may be missing."""
    return [dict(zip(("field", "title", "format"), column, strict=False)) for column in columns]


def _names(field: str) -> Spec:
    plain = {"field": field, "type": "nominal", "sort": None, "title": None}
    return {**plain, "axis": {"labelLimit": 150}}


def _model_colour() -> Spec:
    plain = {"field": "model", "type": "nominal", "title": None}
    return {**plain, "scale": {"domain": ["original", "chosen"]}, "legend": {"orient": "top"}}
