"""Show the figures of past gates over time, by machine class.

Figures of different machine classes, providers or threads do not compare and are shown apart.
`trimtab gate budgets.yaml --history FILE` appends to the file.
"""

from __future__ import annotations

import argparse

SUMMARY = "show the figures of past gates over time"
EXAMPLE = "trimtab history gates.db"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("file", metavar="FILE", help="history written by `trimtab gate --history`")
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(args: argparse.Namespace) -> int:
    """Print the series."""
    import contextlib
    import json

    from trimtab.runtime_bench.gate.history import History
    from trimtab.runtime_bench.gate.trend import document, lines

    with contextlib.closing(History(args.file, create=False)) as history:
        series = history.series()
    text = json.dumps(document(series), indent=1) if args.json else "\n".join(lines(series))
    print(text)  # noqa: T201
    return 0
