"""Why is a model slow: what onnxruntime really runs, what of it is not int8, why, what mends it.

Each finding names its nodes, the reason and the mend. Shares of time come from a profiled session
of its own, since profiling slows every node. Exit code 0 whatever is found; --json for scripts.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimtab.core.model import Model
    from trimtab.core.session import Feeds

SUMMARY = "why is a model slow: float islands, conversions, layouts"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add = parser.add_argument
    add("model", metavar="MODEL", help=".onnx file, or module:callable")
    add("--baseline", metavar="FLOAT", help="show its operators side by side")
    add("--data", metavar="DATA", help="feed its first row (default: random numbers)")
    add("--shape", action="append", default=[], metavar="NAME=1x3x224x224", help="of an input")
    add("--threads", metavar="N", help="intra-op threads (default: all usable)")
    add("--provider", metavar="P", help="execution provider")
    add("--target", metavar="NAME", help="a preset instead of this machine")
    add("--profile", action=argparse.BooleanOptionalAction, default=True, help="shares of time")
    add("--json", metavar="FILE", help="write the diagnosis as JSON")


def execute(args: argparse.Namespace) -> int:
    """Examine and print."""
    import json
    from pathlib import Path

    from trimtab.core.fields import convert
    from trimtab.core.files import write_text
    from trimtab.core.session import SessionConfig
    from trimtab.core.target import Target, usable_cpus
    from trimtab.open_model import open_model
    from trimtab.runtime_bench.doctor import diagnose
    from trimtab.runtime_bench.doctor_report import document, lines
    from trimtab.runtime_bench.feeds import check_same_inputs

    threads = convert(int | None, args.threads, where="--threads") or usable_cpus()
    config = SessionConfig(provider=args.provider or "CPUExecutionProvider", threads=threads)
    model = open_model(args.model)
    baseline = open_model(args.baseline) if args.baseline else None
    feeds = _feeds(args, model)
    check_same_inputs([m for m in (model, baseline) if m is not None], feeds)
    diagnosis = diagnose(
        model,
        feeds,
        config,
        target=Target.named(args.target, threads) if args.target else None,
        baseline=baseline,
        profiled=args.profile,
    )
    print("\n".join(lines(diagnosis)))  # noqa: T201
    if args.json:
        write_text(Path(args.json), json.dumps(document(diagnosis), indent=1) + "\n")
    return 0


def _feeds(args: argparse.Namespace, model: Model) -> Feeds:
    from trimtab.core.dataset import Dataset
    from trimtab.options import shape
    from trimtab.runtime_bench.feeds import make_feeds

    if args.data:
        return next(iter(Dataset.open(args.data, batch=1).bind(model).take(1))).feeds
    return make_feeds(model, dict(shape(text) for text in args.shape), batch=1)
