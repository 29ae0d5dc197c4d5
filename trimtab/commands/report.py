"""Draw the report of a search again from its result.json.

Writes one page that needs no network: constraints and reached figures, candidates, the frontier,
latencies, layers, lineage. With --markdown the short form for a pull request goes to stdout, or to
the file that -o names; that needs no charting library.
"""

from __future__ import annotations

import argparse

SUMMARY = "draw the report of a search again, as a page or as Markdown"
EXAMPLE = "trimtab report out"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "result", metavar="RESULT", help="folder that optimize wrote, or its result.json"
    )
    text = "file to write (default: report.html beside RESULT)"
    parser.add_argument("-o", "--output", metavar="FILE", help=text)
    parser.add_argument("--markdown", action="store_true", help="Markdown instead of a page")


def execute(args: argparse.Namespace) -> int:
    """Read, draw, write."""
    from pathlib import Path

    from trimtab.core.files import in_folder, write_text

    from ..report.markdown import markdown
    from ..report.page import page
    from ..report.view import load

    result = in_folder(args.result, "result.json")
    view = load(result)
    if args.markdown and not args.output:
        print(markdown(view, where=str(result)), end="")  # noqa: T201
        return 0
    path = Path(args.output) if args.output else result.with_name("report.html")
    draw = markdown if args.markdown else page
    write_text(path, draw(view, where=str(result)))
    print(f"wrote {path}")  # noqa: T201
    return 0
