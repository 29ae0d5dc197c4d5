"""`report.html`: one file that needs no network, with every chart's figures in a table too."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

from trimtab.core.errors import TrimtabError
from trimtab.core.files import write_text
from trimtab.core.progress import Progress, Silent

from . import charts
from .bundle import charting_script
from .evidence_view import error_rows, layer_rows, width_rows
from .plain_json import embedded_json
from .sections import content
from .templates import render
from .view import View, damage_reported, load


def page(view: View, *, where: str = "result") -> str:
    """Draw the whole page.

    Raises:
        MissingExtraError: the charting library or jinja2 is not installed.
        DataError: the document is damaged.
    """
    scripts = [charting_script(), _asset("page.js")]
    style = _asset("page.css")
    with damage_reported(where):
        values, specs = content(view), embedded_json(_specs(view))
    values |= {
        "policy": _policy(scripts, style),
        "style": style,
        "scripts": scripts,
        "specs": specs,
    }
    return render("page.html", values)


def write_report(result: Path, progress: Progress | None = None) -> list[Path]:
    """Write `report.html` beside a `result.json`; return the files that were written.

    A missing library, or a page that cannot be drawn, is reported as progress: a result is never
    lost for its report.
    """
    path = result.with_name("report.html")
    try:
        write_text(path, page(load(result), where=str(result)))
    except TrimtabError as error:
        (progress or Silent()).say(f"no {path.name}: {error}")
        return []
    return [path]


def _policy(scripts: list[str], style: str) -> str:
    """Allow nothing to be loaded and only these scripts to run, whatever a name may contain."""
    allowed = " ".join(map(_hash, scripts))
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _asset(name: str) -> str:
    return files("trimtab.report").joinpath(name).read_text(encoding="utf-8")


def _specs(view: View) -> dict[str, object]:
    """Return the charts that there is something to draw in, by name."""
    made = {
        "frontier": charts.frontier(view),
        "latencies": charts.latencies(view),
        "times": charts.layer_times(layer_rows(view.evidence)),
        "errors": charts.layer_errors(error_rows(view.evidence)),
        "widths": charts.widths(width_rows(view.evidence)),
    }
    return {name: spec for name, spec in made.items() if spec is not None}
