"""Evaluate a model: its metric on data, and the paired drop against a float reference."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.core.dataset import Dataset
    from trimtab.core.metric import Quality
    from trimtab.core.model import Model
    from trimtab.core.ort.session import SessionConfig

SUMMARY = "quality of a model on data"
EXAMPLE = "trimtab eval int8.onnx --reference float.onnx --data eval.npz"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("model", metavar="MODEL", help=".onnx file, or module:callable")
    parser.add_argument("--data", required=True, metavar="DATA", help="evaluation data")
    text = "metric (see `trimtab metrics`), or module:callable; several times for several"
    parser.add_argument("--metric", metavar="NAME", action="append", help=text)
    text = "output to judge, where a metric is of one output (default: the first)"
    parser.add_argument("--output", metavar="NAME", help=text)
    parser.add_argument(
        "--reference", metavar="ORIGINAL", help="report the drop against this model"
    )
    parser.add_argument("--threads", metavar="N", help="intra-op threads (default: all usable)")
    parser.add_argument(
        "--provider", metavar="P", help="cpu, openvino, cuda, ...; see `trimtab providers`"
    )
    parser.add_argument("--batch", metavar="N", help="batch size (default 64)")
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON")


def execute(args: argparse.Namespace) -> int:
    """Evaluate and print."""
    import json
    from pathlib import Path

    from trimtab.core.dataset import Dataset
    from trimtab.core.files import check_output_file, write_text
    from trimtab.core.ort.engines import engine_config
    from trimtab.core.target import usable_cpus
    from trimtab.core.units import count

    from ..open_model import open_model
    from .data_options import say

    if args.json:
        check_output_file(args.json, args.model, args.data, parents=True)
    threads = count(args.threads, "--threads") or usable_cpus()
    config = engine_config(args.provider, threads)
    model = open_model(args.model)
    data = Dataset.open(args.data, batch=count(args.batch, "--batch") or 64)
    reference = open_model(args.reference) if args.reference else None
    say(args.data, model)

    found = [_judged(args, name, model, reference, data, config) for name in _metrics(args)]
    document = {"schema": 1, "kind": "eval", "model": args.model, **found[0]}
    if len(found) > 1:
        document["metrics"] = found
    if args.json:
        write_text(Path(args.json), json.dumps(document, indent=1) + "\n")
    return 0


def _metrics(args: argparse.Namespace) -> list[str | None]:
    """Return the metrics that were asked for, restricted to the output that was named."""
    names: list[str | None] = list(args.metric or [None])
    if args.output is None:
        return names
    return [
        f"{name or 'fidelity'}{',' if '=' in (name or '') else ':'}output={args.output}"
        for name in names
    ]


def _judged(
    args: argparse.Namespace,
    metric: str | None,
    model: Model,
    reference: Model | None,
    data: Dataset,
    config: SessionConfig,
) -> dict[str, Any]:
    """Evaluate by one metric, print, and return the figures as JSON values."""
    from trimtab.core.metric import evaluate
    from trimtab.core.progress import Stderr

    from ..report.lines import output_lines, quality_line

    def measured(candidate: Model) -> Quality:
        return evaluate(
            candidate, data, metric, reference=reference, config=config, progress=Stderr()
        )

    quality = measured(model)
    print("\n".join([f"{args.model}: {quality_line(quality)}", *output_lines(quality)]))  # noqa: T201
    found: dict[str, Any] = {"quality": quality.to_json()}
    if reference is not None:
        base = measured(reference)
        drop, error = quality.drop_from(base)
        print(f"{args.reference}: {quality_line(base)}")  # noqa: T201
        print(quality.drop_text(base))  # noqa: T201
        found |= {"reference": base.to_json(), "drop": drop, "drop_standard_error": error}
    return found
