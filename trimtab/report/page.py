"""`report.html`: one file that needs no network, with every chart's figures in a table too."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

from trimtab.core.errors import TrimtabError
from trimtab.core.files import write_text
from trimtab.core.progress import Progress, Silent

from . import charts, examples_view
from . import sections as parts_of
from .bundle import charting_script
from .constraints import headline
from .details import details
from .evidence_view import error_rows, layer_rows, width_rows
from .markup import Html, embedded_json, joined, section, tag
from .view import View, damage_reported, load


def page(view: View, *, where: str = "result") -> str:
    """Draw the whole page.

    Raises:
        MissingExtraError: the charting library is not installed.
        DataError: the document is damaged.
    """
    library = charting_script()
    with damage_reported(where):
        specs, body = _body(view)
    style, script = _asset("page.css"), _asset("page.js")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        _policy([library, script], style),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"trimtab: {view.model}"),
        Html(f"<style>{style}</style>"),
    )
    data = tag("script", Html(embedded_json(specs)), type="application/json", id="charts")
    scripts = [data, *(Html(f"<script>{text}</script>") for text in (library, script))]
    html = tag("html", head, tag("body", body, *scripts), lang="en")
    return f"<!doctype html>\n{html}\n"


def write_report(result: Path, progress: Progress | None = None) -> list[Path]:
    """Write `report.html` beside a `result.json`; return the files that were written.

    A missing charting library, or a page that cannot be drawn, is reported as progress: a result is
    never lost for its report.
    """
    path = result.with_name("report.html")
    try:
        write_text(path, page(load(result), where=str(result)))
    except TrimtabError as error:
        (progress or Silent()).say(f"no {path.name}: {error}")
        return []
    return [path]


def _policy(scripts: list[str], style: str) -> Html:
    """Allow nothing to be loaded and only these scripts to run, whatever a name may contain."""
    allowed = " ".join(_hash(s) for s in scripts)
    content = (
        f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return tag("meta", http_equiv="Content-Security-Policy", content=content)


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _asset(name: str) -> str:
    return files("trimtab.report").joinpath(name).read_text(encoding="utf-8")


def _body(view: View) -> tuple[dict[str, Any], Html]:
    layers, widths = layer_rows(view.evidence), width_rows(view.evidence)
    errors = error_rows(view.evidence)
    made = {
        "frontier": charts.frontier(view),
        "latencies": charts.latencies(view),
        "times": charts.layer_times(layers),
        "errors": charts.layer_errors(errors),
        "widths": charts.widths(widths),
    }
    specs = {name: spec for name, spec in made.items() if spec is not None}
    parts = [
        section("constraints", "Constraints", parts_of.constraint_table(view)),
        section("candidates", "Candidates", *parts_of.candidates(view)),
        section("outputs", "What is kept of each output", examples_view.outputs(view)),
        section("examples", "Examples", *examples_view.examples(view)),
        section("frontier", "Quality against latency", *parts_of.frontier(view)),
        section("latencies", "Latency", *parts_of.latencies(view)),
        section("times", "Time of each layer", *parts_of.times(view, layers)),
        section("errors", "Quantization error of each layer", *parts_of.errors(view, errors)),
        section("widths", "Pruned widths", *parts_of.widths(widths)),
        section("islands", "Float islands in the int8 model", parts_of.islands(view)),
        details(view),
    ]
    skip = tag("a", "Skip to the candidates", href="#candidates", class_="skip")
    top = tag("header", tag("h1", view.model), tag("p", headline(view), class_="headline"))
    return specs, joined([skip, top, tag("main", joined(parts))])
