"""Measure models against each other in one run, and say which is faster with what certainty.

Blocks of base and candidate alternate in random order, each model in its own process, until every
candidate has a verdict: faster, slower, same (within --resolution), or inconclusive at --max-time.
With a GPU's --provider tensors stay on the device; copies there and back are reported separately.

Exit code 0 after measuring, whatever the verdict, even an inconclusive one; use `gate` to decide.
With --aa 1 if the base differs from itself, 3 if inconclusive. 2 for bad input, or a model that
cannot run.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.core.model import Model
    from trimtab.core.ort.session import Feeds, SessionConfig
    from trimtab.core.progress import Progress
    from trimtab.runtime_bench.bench.bench import Bench, Timing
    from trimtab.runtime_bench.measure.compare import ModelOrPath

SUMMARY = "measure models against each other"
INTERRUPTED = 130
#: Fresh processes per model; its startup costs are the medians over them.
PROCESSES = 3


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add = parser.add_argument
    add("base", metavar="BASE", help=".onnx file, or module:callable")
    add("candidates", nargs="*", metavar="CANDIDATE", help="models that take the same inputs")
    add("--data", metavar="DATA", help="data whose first rows are fed (default: random numbers)")
    add("--shape", action="append", default=[], metavar="NAME=1x3x224x224", help="input shape")
    add("--batch", metavar="1,8,32", help="size of a dynamic leading axis; a list is a sweep")
    add("--threads", metavar="1,2", help="intra-op threads; a list is a sweep (default: all)")
    add("--provider", metavar="P", help="execution provider")
    add("--cuda-graph", action="store_true", help="capture a CUDA graph and replay it")
    add("--max-time", metavar="30s", default="30s", help="time limit of all measurements")
    add("--json", metavar="FILE", help="write every sample as JSON")
    add("--aa", action="store_true", help="measure the base against itself: must come out same")
    add("--in-process", action="store_true", help="run all sessions in this process")
    add("--concurrency", metavar="N", help="measure throughput with N concurrent callers")
    add("--card", action=argparse.BooleanOptionalAction, default=True, help="load time and memory")
    add("--on", metavar="DEVICE", help="measure there: ssh://user@host, or names of `device`")
    add("--resolution", metavar="0.05", default="0.05", help="relative difference taken as none")
    add("--alpha", metavar="0.01", default="0.01", help="bound on the rate of wrong verdicts")
    add("--seed", metavar="N", default="0", help="random seed of blocks and inputs (default 0)")


def execute(args: argparse.Namespace) -> int:
    """Measure, print, write."""
    from trimtab.core.progress import Stderr
    from trimtab.runtime_bench.open import bench_on, device_names

    progress = Stderr()
    request = _Request(args, progress)
    names = device_names(args.on)
    document: dict[str, Any] = {"kind": "bench", "runs": [], "cards": []}
    codes = []
    for name in names:
        with bench_on(name, progress) as bench:
            if len(names) > 1:
                print(f"\non {name}")  # noqa: T201
            codes.append(_carry_out(request, bench, document, {} if name is None else {"on": name}))
        if codes[-1] == INTERRUPTED:
            return INTERRUPTED
    if len(names) > 1:
        print("\n".join(["", *across(document["runs"])]))  # noqa: T201
    return max(codes)


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


def _carry_out(
    request: _Request, bench: Bench, document: dict[str, Any], place: Mapping[str, str]
) -> int:
    from pathlib import Path

    from trimtab.runtime_bench.measure.values import save

    args = request.args
    request.bench = bench
    codes = [0]
    for settings in request.sweep():
        code, entry = request.measure(**settings)
        document["runs"].append({**place, **settings, **entry})
        codes.append(code)
        if args.json:  # after each, so that a later failure loses nothing
            save(Path(args.json), document)
        if code == INTERRUPTED:
            return code
    if args.card and not args.in_process:
        document["cards"] += [{**place, **costs} for costs in request.startup_costs()]
        if args.json:
            save(Path(args.json), document)
    return max(codes)


class _Request:
    """The options, checked before anything is measured, and then the bench that measures."""

    bench: Bench

    def __init__(self, args: argparse.Namespace, progress: Progress) -> None:
        from trimtab.core.errors import OptionError
        from trimtab.core.fields import convert
        from trimtab.core.files import check_output_file
        from trimtab.core.units import duration, shape

        from .data_options import say

        if args.aa and args.candidates:
            raise OptionError("measures the base against itself, without CANDIDATE", where="--aa")
        self.args, self.progress = args, progress
        self.seconds = duration(args.max_time)
        self.alpha = convert(float, args.alpha, where="--alpha")
        self.resolution = convert(float, args.resolution, where="--resolution")
        self.seed = convert(int, args.seed, where="--seed")
        self.shapes = dict(shape(text) for text in args.shape)
        self.threads = _numbers(args.threads, "--threads")
        self.batches: Sequence[int | None] = _numbers(args.batch, "--batch") or [None]
        self.concurrency = (_numbers(args.concurrency, "--concurrency") or [1])[0]
        if args.json:
            check_output_file(args.json, args.base, *args.candidates, parents=True)
        if args.in_process and self.concurrency > 1:
            raise OptionError("needs processes", where="--concurrency", hint="Drop --in-process")
        if args.cuda_graph and self.concurrency > 1:
            raise OptionError("has one set of tensors, for one caller", where="--cuda-graph")
        if args.on is None:
            self._check_provider()
        self.base, self.base_model = _open(args.base)
        candidates = [args.base] if args.aa else args.candidates
        self.candidates = [_open(spec)[0] for spec in candidates]
        say(args.data, self.base_model)

    def _check_provider(self) -> None:
        """Refuse a provider that is not installed before any model is opened."""
        from trimtab.core.ort.accelerators import check_installed
        from trimtab.core.ort.session import available_providers

        check_installed(self._config(1).provider, available_providers())

    def sweep(self) -> list[dict[str, Any]]:
        """Return all combinations of threads and batch."""
        threads = self.threads or [self.bench.environment().cpus]
        return [{"threads": t, "batch": b} for t in threads for b in self.batches]

    def measure(self, threads: int, batch: int | None) -> tuple[int, dict[str, Any]]:
        """Measure one combination and print it; return the exit code and the document's entry."""
        from trimtab.runtime_bench.measure.text import comparison_lines, measurement_lines

        how = self._timing(threads)
        feeds, per_second = self._feeds(batch), self.concurrency > 1
        if not self.candidates:
            found = self.bench.measure([self.base], feeds, how, self.progress)
            self._print(measurement_lines(found, per_second=per_second), found, threads, batch)
            entry: dict[str, Any] = {"measurements": [m.to_json() for m in found]}
            return (INTERRUPTED if found[0].interrupted else 0), entry
        compared = self.bench.compare(self.base, self.candidates, feeds, how, self.progress)
        shown = [compared[0].base, *(c.candidate for c in compared)]
        self._print(comparison_lines(compared, per_second=per_second), shown, threads, batch)
        entry = {"comparisons": [c.to_json() for c in compared]}
        return self._code(compared), entry

    def startup_costs(self) -> list[dict[str, Any]]:
        """Measure the startup costs of each model in fresh processes, and print them."""
        from trimtab.core.errors import RunError
        from trimtab.core.ort.accelerators import CPU
        from trimtab.runtime_bench.measure.text import startup_lines

        how = self._timing(self.sweep()[0]["threads"])
        arena = how.config.provider == CPU
        feeds = self._feeds(self.batches[0])
        models = [self.base] if self.args.aa else [self.base, *self.candidates]
        found = []
        for model in self.progress.track(models, "startup costs", len(models)):
            try:
                found.append(self.bench.startup_costs(model, feeds, how, PROCESSES, arena=arena)[0])
            except RunError as error:
                self.progress.say(str(error))
        if found:
            print("\n".join(["", *startup_lines(found)]))  # noqa: T201
        return [c.to_json() for c in found]

    def _config(self, threads: int) -> SessionConfig:
        from trimtab.core.ort.session import SessionConfig
        from trimtab.runtime_bench.measure.io_binding import with_cuda_graph

        config = SessionConfig(self.args.provider or "CPUExecutionProvider", threads)
        return with_cuda_graph(config) if self.args.cuda_graph else config

    def _feeds(self, batch: int | None) -> Feeds:
        from trimtab.core.batches import items_of
        from trimtab.core.dataset import Dataset
        from trimtab.core.ort.given_feeds import given_feeds

        if self.args.data is None:
            return given_feeds(self.base_model, self.shapes, batch=batch or 1, seed=self.seed)
        data = Dataset.open(self.args.data, batch=batch or 1).bind(self.base_model)
        if batch is None or data.stream is not None:
            return items_of(self.base_model, data)(0)
        return next(iter(data)).feeds

    def _timing(self, threads: int) -> Timing:
        from trimtab.runtime_bench.bench.bench import Timing

        return Timing(
            self._config(threads),
            max_seconds=self.seconds / len(self.sweep()),
            alpha=self.alpha,
            resolution=self.resolution,
            seed=self.seed,
            in_process=self.args.in_process,
            concurrency=self.concurrency,
        )

    def _code(self, compared: Sequence[Any]) -> int:
        if any(c.interrupted for c in compared):
            return INTERRUPTED
        if any(c.error for c in compared):
            return 2
        verdict = compared[0].verdict
        if not self.args.aa or verdict == "same":
            return 0
        return 3 if verdict == "inconclusive" else 1

    def _print(
        self, lines: Sequence[str], shown: Sequence[Any], threads: int, batch: int | None
    ) -> None:
        import sys

        from trimtab.runtime_bench.measure.text import plot_lines

        title = f"threads {threads}" + (f", batch {batch}" if batch else "")
        title += f", {self.concurrency} callers" if self.concurrency > 1 else ""
        unicode = "utf" in (sys.stdout.encoding or "").lower()
        plot = plot_lines(shown) if sys.stdout.isatty() and unicode else []
        titled = len(self.sweep()) > 1 or self.concurrency > 1
        print("\n".join([*(["", title] if titled else []), *lines, *plot]))  # noqa: T201


def _open(spec: str) -> tuple[ModelOrPath, Model]:
    """Return the source that a session loads, and the model; the session loads a file itself."""
    from pathlib import Path

    from ..open_model import open_model

    model = open_model(spec)
    path = Path(spec)
    return (path if path.is_file() else model), model


def _numbers(text: str | None, option: str) -> list[int]:
    from trimtab.core.errors import OptionError

    if text is None:
        return []
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = [0]
    if min(found) < 1:
        raise OptionError(f"{text!r} is not a number above 0, nor a list of such", where=option)
    return found
