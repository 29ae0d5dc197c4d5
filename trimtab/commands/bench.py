"""Measure models or programs against each other in one run: which is faster, with what certainty.

Blocks of base and candidate alternate in random order, each in its own process, until every
candidate has a verdict: faster, slower, same (within --resolution), or inconclusive at --max-time.
Several --provider measure every model on each of them in the same run, against BASE on the CPU:

    trimtab bench float.onnx int8.onnx --provider cpu --provider openvino

`trimtab providers` lists what is installed. On a GPU tensors stay on the device; copies there and
back are reported separately.

--command and --callable measure whole programs instead, the first one named as the base:

    trimtab bench --command 'python old.py photo.jpg' --command 'python new.py photo.jpg'
    trimtab bench --callable pipeline:old --callable pipeline:new

A run of a command is a new process to its end; a run of a callable is one call without arguments.
What a callable returns is called instead, if it is callable: so a function may load a model first.

Exit code 0 after measuring, whatever the verdict, even an inconclusive one; use `gate` to decide.
With --aa 1 if the base differs from itself, 3 if inconclusive. 2 for bad input, or a model that
cannot run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bench_request import BenchRequest

SUMMARY = "measure models or programs against each other"
EXAMPLE = "trimtab bench float.onnx int8.onnx --max-time 30s"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add = parser.add_argument
    add("base", nargs="?", metavar="BASE", help=".onnx file, or module:callable of a torch module")
    add("candidates", nargs="*", metavar="CANDIDATE", help="models that take the same inputs")
    _add_program(parser, "command", "COMMAND LINE", "command line to time as a whole; repeatable")
    _add_program(parser, "callable", "MODULE:NAME", "function to time; repeatable")
    add("--data", metavar="DATA", help="data whose first rows are fed (default: random numbers)")
    add("--shape", action="append", default=[], metavar="NAME=1x3x224x224", help="input shape")
    add("--batch", metavar="1,8,32", help="size of a dynamic leading axis; a list is a sweep")
    add(
        "--threads",
        metavar="1,2",
        help="intra-op threads; a list is a sweep, `each` is 1, 2, 4 ... all (default: all)",
    )
    add(
        "--provider",
        metavar="P",
        action="append",
        default=[],
        help="cpu, openvino, cuda, or openvino:device_type=GPU; several: every model on each",
    )
    add("--base-provider", metavar="P", help="provider of the base beside several (default cpu)")
    add("--cuda-graph", action="store_true", help="capture a CUDA graph and replay it")
    add("--max-time", metavar="30s", default="30s", help="time limit of the command, or a device's")
    add(
        "--dry-run",
        action="store_true",
        help="only try a few blocks, and say how long the whole takes",
    )
    add("--json", metavar="FILE", help="write every sample as JSON")
    add("--aa", action="store_true", help="measure the base against itself: must come out same")
    add("--in-process", action="store_true", help="run all sessions in this process")
    add("--concurrency", metavar="N", help="measure throughput with N concurrent callers; or 1,4")
    add("--card", action=argparse.BooleanOptionalAction, default=True, help="load time and memory")
    add("--on", metavar="DEVICE", help="measure there: ssh://user@host, or names of `device`")
    add("--resolution", metavar="0.05", default="0.05", help="relative difference taken as none")
    add("--alpha", metavar="0.01", default="0.01", help="bound on the rate of wrong verdicts")
    add("--seed", metavar="N", default="0", help="random seed of blocks and inputs (default 0)")


def _add_program(parser: argparse.ArgumentParser, kind: str, metavar: str, text: str) -> None:
    """Add an option for programs of one kind; all kinds share a list, in the order given."""

    def read(value: str) -> tuple[str, str]:
        return kind, value

    parser.add_argument(
        f"--{kind}",
        dest="programs",
        action="append",
        default=[],
        type=read,
        metavar=metavar,
        help=text,
    )


def execute(args: argparse.Namespace) -> int:
    """Measure, print, write."""
    from pathlib import Path

    from trimtab.core.progress import Stderr, began
    from trimtab.runtime_bench.measure.values import save
    from trimtab.runtime_bench.open import bench_on, device_names

    from .bench_request import INTERRUPTED, BenchRequest

    progress, start = Stderr(), began()  # before the imports, which take time as well
    request = BenchRequest(args, progress, time.monotonic() - start)
    names = device_names(args.on)
    document: dict[str, Any] = {"kind": "bench", "runs": [], "cards": []}
    codes = []
    for name in names:
        with bench_on(name, progress) as bench:
            if len(names) > 1:
                print(f"\non {name}")  # noqa: T201
            request.begin(bench, start if name == names[0] else time.monotonic())
            if args.dry_run:
                request.print_forecast()
                continue
            codes.append(_carry_out(request, document, {} if name is None else {"on": name}))
        if codes and codes[-1] == INTERRUPTED:
            break
    if args.json and codes:
        save(Path(args.json), document)
    if len(names) > 1 and codes:
        print("\n".join(["", *across(document["runs"])]))  # noqa: T201
    return max(codes, default=0)


def across(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Format each candidate's worst and median speed-up over all devices and settings."""
    from statistics import median

    found: dict[str, list[tuple[float, str]]] = {}
    for run in runs:
        for c in run.get("comparisons", []):
            if c["ratio"] is not None and not c.get("error"):
                found.setdefault(c["candidate"]["model"], []).append((c["ratio"], run["on"]))
    lines = []
    for name, ratios in found.items():
        (worst, where), places = min(ratios), {place for _, place in ratios}
        middle = median(ratio for ratio, _ in ratios)
        lines.append(
            f"{name} on {len(places)} devices: worst {worst:.2f}x on {where}, median {middle:.2f}x"
        )
    return lines


def _carry_out(request: BenchRequest, document: dict[str, Any], place: Mapping[str, str]) -> int:
    from pathlib import Path

    from trimtab.core.files import STDOUT
    from trimtab.runtime_bench.measure.values import save

    from .bench_request import INTERRUPTED

    args = request.args
    codes = [0]
    settings = request.sweep()
    for index, setting in enumerate(settings):
        code, entry = request.measure(setting, settings_left=len(settings) - index)
        document["runs"].append({**place, **setting, **entry})
        codes.append(code)
        if args.json and args.json not in STDOUT:  # so that a later failure loses nothing
            save(Path(args.json), document)
        if code == INTERRUPTED:
            return code
    request.print_sweep()
    if request.has_cards:
        document["cards"] += [{**place, **costs} for costs in request.startup_costs()]
    return max(codes)
