"""Draw the frontier of a search for the README: two SVGs, for light and for dark pages.

python website/picture.py out/demo/result.json
"""

from __future__ import annotations

import sys
from typing import Any

import vl_convert
from documents import ROOT

from trimtab.report.charts import frontier
from trimtab.report.view import load

#: Names, colours of text, of lines and of the four kinds of candidates, as on the report's page.
THEMES = {
    "light": ("#1b1f24", "#57606a", ["#d55e00", "#0072b2", "#767676", "#111111"]),
    "dark": ("#e6edf3", "#9da7b3", ["#f5a742", "#56b4e9", "#9a9a9a", "#ffffff"]),
}
FOLDER = ROOT / "docs" / "img"


def main(result: str) -> None:
    """Draw both pictures."""
    spec = frontier(load(result))
    if spec is None:
        raise SystemExit(f"{result}: has fewer than two candidates with a figure")
    FOLDER.mkdir(exist_ok=True)
    for theme in THEMES:
        svg = vl_convert.vegalite_to_svg(spec | {"width": 640, "config": _config(theme)})
        (FOLDER / f"frontier-{theme}.svg").write_text(svg + "\n", encoding="utf-8")


def _config(theme: str) -> dict[str, Any]:
    text, soft, colours = THEMES[theme]
    return {
        "background": None,
        "font": "sans-serif",
        "view": {"stroke": soft},
        "axis": {
            "labelColor": text,
            "titleColor": text,
            "gridColor": soft,
            "domainColor": soft,
            "tickColor": soft,
            "gridOpacity": 0.2,
            "labelFontSize": 13,
            "titleFontSize": 13,
            "titleFontWeight": "normal",
        },
        "legend": {"labelColor": text, "labelFontSize": 13},
        "rule": {"color": soft},
        "line": {"color": soft},
        "range": {"category": colours},
    }


if __name__ == "__main__":
    main(sys.argv[1])
