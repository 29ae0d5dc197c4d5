"""Diagnose why a model is slow, and why an int8 model is wrong.

Slow: what onnxruntime really runs, which of it is not int8, why, and how to fix it. Shares of time
come from a separate profiled session, since profiling slows every node. Wrong, for int8 models with
--data: which layers cause the error, why, and which would saturate on x64 without VNNI. Each
finding names its nodes, the cause and the fix.

For a device that need not be here (--target qnn-htp, coreml, webnn, webgpu-web, xnnpack, nnapi,
vitis, tensorrt, openvino, openvino-npu): which nodes its provider takes, which fall back to the
CPU, and why, each with its source. Where the provider is installed, it is asked.

Exit code 0 whatever is found; --json for scripts.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.core.model import Model
    from trimtab.core.ort.feeding import Feeding
    from trimtab.core.ort.session import Feeds

SUMMARY = "diagnose why a model is slow, or an int8 model wrong: causes and fixes"
EXAMPLE = "trimtab doctor int8.onnx --baseline float.onnx --data calib.npz"
_BOTH = argparse.BooleanOptionalAction
#: Share of the time for errors, where sums are checked for overflow after them.
ERRORS = 0.8


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add = parser.add_argument
    add("model", metavar="MODEL", help=".onnx file, or module:callable")
    add("--baseline", metavar="ORIGINAL", help="float original to compare with")
    add("--data", metavar="DATA", help="real inputs (default: random ones, without accuracy)")
    add("--samples", metavar="N", help="samples of the data (default 64; 256 with --prune)")
    add("--accuracy", action=_BOTH, default=True, help="diagnose errors, if --data is given")
    add("--overflow", action=_BOTH, default=True, help="find 16-bit sums that saturate, likewise")
    add(
        "--time",
        metavar="T",
        help="time for errors or --prune: 90s, 5m (default: 2m, 10m above 20 MB)",
    )
    add("--shape", action="append", default=[], metavar="NAME=1x3x224x224", help="input shape")
    add("--threads", metavar="N", help="intra-op threads (default: all usable)")
    add("--provider", metavar="P", help="cpu, openvino, cuda, ...; see `trimtab providers`")
    add(
        "--target", metavar="NAME", help="another machine, or qnn-htp, coreml, ...: what runs there"
    )
    add("--on", metavar="DEVICE", help="diagnose there: ssh://user@host, or a name of `device`")
    add("--profile", action=_BOTH, default=True, help="profile the model for shares of the time")
    add("--json", metavar="FILE", help="write the diagnosis as JSON")
    from .doctor_prune import add_options

    add_options(parser)


def execute(args: argparse.Namespace) -> int:
    """Diagnose and print."""
    import json
    from pathlib import Path

    from trimtab.core.errors import OptionError
    from trimtab.core.files import check_output_file, write_text
    from trimtab.core.units import count, duration
    from trimtab.runtime_bench.measure.feeds import check_same_inputs

    from ..open_model import open_model
    from .doctor_prune import examine

    args.threads = count(args.threads, "--threads")
    args.samples = count(args.samples, "--samples")
    if args.time:
        duration(args.time, "--time")
    if args.prune:
        return examine(args)
    if args.on and args.target:
        raise OptionError("the device says what it is", where="--target", hint="Drop it, or --on")
    if args.json:
        check_output_file(args.json, args.model, parents=True)
    model = open_model(args.model)
    baseline = open_model(args.baseline) if args.baseline else None
    fed = _fed(args, model)
    models = [model] if baseline is None else [model, baseline]
    check_same_inputs(models, fed.feeds)
    lines, document = _slow(args, models, fed.feeds)
    lines, document = [*lines, f"fed: {fed}"], document | {"fed": str(fed)}
    if args.data:
        more, parts = _accuracy(args, model, baseline)
        lines, document = [*lines, "", *more], document | parts
    print("\n".join(lines))  # noqa: T201
    if args.json:
        write_text(Path(args.json), json.dumps(document, indent=1) + "\n")
    return 0


def _slow(
    args: argparse.Namespace, models: list[Model], feeds: Feeds
) -> tuple[list[str], dict[str, Any]]:
    """Diagnose why a model is slow, here or on a device, beside its baseline if it has one."""
    from trimtab.core.ort.engines import engine_config
    from trimtab.core.progress import Stderr
    from trimtab.core.target import Target
    from trimtab.runtime_bench.bench.bench import LocalBench, Timing
    from trimtab.runtime_bench.open import bench_on
    from trimtab.runtime_bench.support.table import table_names

    if args.target in table_names():
        return _placed(models[0], feeds, args.target)
    with bench_on(args.on, Stderr()) as bench:
        threads = args.threads or bench.environment().cpus
        how = Timing(engine_config(args.provider, threads))
        if isinstance(bench, LocalBench) and args.target:
            target = Target.named(args.target, threads)
            found = bench.diagnosis(models, feeds, how, profiled=args.profile, target=target)
        else:
            found = bench.diagnosis(models, feeds, how, profiled=args.profile)
    return list(found[0]), found[1]


def _placed(model: Model, feeds: Feeds, target: str) -> tuple[list[str], dict[str, Any]]:
    """Tell which nodes a device takes that need not be here, and why others fall back."""
    from trimtab.runtime_bench.devices.web_support import ask_anywhere
    from trimtab.runtime_bench.support.check import support
    from trimtab.runtime_bench.support.report import document, lines

    found = support(model, feeds, target, asked=ask_anywhere)
    return lines(found), document(found)


def _accuracy(
    args: argparse.Namespace, model: Model, baseline: Model | None
) -> tuple[list[str], dict[str, Any]]:
    """Diagnose why an int8 model is wrong: lines and JSON values."""
    import time

    from trimtab.core.context import Context
    from trimtab.core.dataset import Dataset
    from trimtab.core.progress import Stderr
    from trimtab.passes.diagnosis.accuracy import (
        diagnose_accuracy,
        is_quantized,
        overflows,
        rounds_activations,
    )
    from trimtab.passes.diagnosis.remaking import Remaking

    from ..report.accuracy import accuracy_lines, overflow_lines
    from .doctor_prune import diagnosis_seconds

    lines: list[str] = []
    document: dict[str, Any] = {}
    if not is_quantized(model):
        return lines, document
    data = Dataset.open(args.data)
    start, seconds = time.monotonic(), diagnosis_seconds(args.time, model)
    if args.accuracy and baseline is None and not rounds_activations(model):
        lines.append("Weights alone are quantized; --baseline FLOAT tells which of them lose what.")
    elif args.accuracy:
        found = diagnose_accuracy(
            model,
            data,
            Context(progress=Stderr()),
            baseline=baseline,
            samples=args.samples or 64,
            seconds=seconds * (ERRORS if args.overflow else 1),
        )
        lines += accuracy_lines(found)
        document["accuracy"] = found.to_json()
    if args.overflow:
        left = max(seconds - (time.monotonic() - start), 0.0)
        saturating = overflows(model, data, seconds=left)
        lines += overflow_lines(saturating, Remaking.of(model).again)
        document["overflow"] = [layer.to_json() for layer in saturating]
    return lines, document


def _fed(args: argparse.Namespace, model: Model) -> Feeding:
    """Return a row of the data, else random inputs of sizes that are given, usual or found."""
    from trimtab.core.batches import items_of
    from trimtab.core.dataset import Dataset
    from trimtab.core.ort.feeding import FeedSource, feeding
    from trimtab.core.ort.given_feeds import usual_feeding
    from trimtab.core.units import shape

    if args.data:
        data = Dataset.open(args.data)
        return feeding(model, FeedSource(items=items_of(model, data), name=data.spec))
    return usual_feeding(model, dict(shape(text) for text in args.shape))
