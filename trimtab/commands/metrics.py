"""List the metrics with what each needs of the data."""

from __future__ import annotations

import argparse

SUMMARY = "list the metrics and what they need"
EXAMPLE = "trimtab metrics"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(args: argparse.Namespace) -> int:
    """Print the list."""
    import json

    from trimtab.core.metric import METRICS

    if args.json:
        document = {
            name: {"needs": metric.needs, "lower_is_better": metric.lower_is_better}
            for name, metric in METRICS.items()
        }
        print(json.dumps(document, indent=1))  # noqa: T201
        return 0
    width = max(map(len, METRICS)) + 2
    for name, metric in METRICS.items():
        better = "  (lower is better)" if metric.lower_is_better else ""
        print(f"{name:{width}}{metric.needs}{better}")  # noqa: T201
    print("Each takes output=NAME, to judge one output: --metric top1:output=logits")  # noqa: T201
    print("module:callable is a metric of your own: (outputs by name, labels) -> number")  # noqa: T201
    return 0
