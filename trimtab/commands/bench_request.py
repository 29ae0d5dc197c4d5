"""The options of `trimtab bench`, checked before anything is measured, and their measurements."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimtab.core.batches import items_of
from trimtab.core.context import check_seed
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError, RunError
from trimtab.core.fields import convert
from trimtab.core.files import check_output_file
from trimtab.core.model import Model
from trimtab.core.ort.accelerators import check_installed
from trimtab.core.ort.engines import Engine, engine_config
from trimtab.core.ort.given_feeds import given_feeds
from trimtab.core.ort.session import Feeds, SessionConfig, available_providers
from trimtab.core.progress import Progress
from trimtab.core.target import thread_counts
from trimtab.core.units import duration, inner_share, shape
from trimtab.runtime_bench.bench.bench import Bench, Timing
from trimtab.runtime_bench.measure.contenders.program import Program
from trimtab.runtime_bench.measure.contenders.programs import PROGRAMS
from trimtab.runtime_bench.measure.engines import spread
from trimtab.runtime_bench.measure.forecast import forecast, forecast_lines
from trimtab.runtime_bench.measure.startup import StartupCosts
from trimtab.runtime_bench.measure.subject import ModelOrPath, Startable, Timed
from trimtab.runtime_bench.measure.text import (
    SweepRow,
    comparison_lines,
    measurement_lines,
    plot_lines,
    startup_lines,
    sweep_lines,
)
from trimtab.runtime_bench.measure.values import Comparison, Measurement
from trimtab.runtime_bench.measure.workers.io_binding import with_cuda_graph

from ..open_model import open_model
from .data_options import say

#: Exit code after Ctrl-C.
INTERRUPTED = 130
#: Fresh processes per model; its startup costs are the medians over them.
PROCESSES = 3
#: Part of the time that is kept for startup costs, which also get what the runs leave.
STARTUP_SHARE = 0.25
#: Most of the time that is kept for the report and the end of all processes, which take about as
#: long as the imports did: both take long on a busy machine.
END_SHARE = 0.15
#: Least part of the time, and seconds, that a measurement gets whatever came before it.
LEAST_SHARE, LEAST_SECONDS = 0.2, 1.0
#: Seconds by which the command may end late, or a tenth of the limit where that is more: starting
#: takes them where the limit is a short one.
LATE_SECONDS, LATE_SHARE = 2.0, 0.1
#: Least seconds that a fresh process takes beside loading and running, and how many times as long
#: as the imports of this one it may take, since a busy machine is slower at some times than others.
PROCESS_SECONDS, SLOWER = 0.5, 2.0
#: Options of a session, which a program does not have.
_OF_MODELS = (
    *("data", "shape", "batch", "threads", "provider", "base_provider", "cuda_graph"),
    *("in_process", "concurrency", "on"),
)


#: Value of --threads that means 1, 2, 4, ... and all.
EACH = "each"


class BenchRequest:
    """Request of a user, and the bench that measures it within the time."""

    bench: Bench
    end: float

    def __init__(self, args: argparse.Namespace, progress: Progress, imported: float) -> None:
        self.args, self.progress = args, progress
        # A fresh process imports about what this one did, in `imported` seconds.
        self._process_seconds = max(PROCESS_SECONDS, SLOWER * imported)
        self.seconds = duration(args.max_time, "--max-time")
        self.alpha = inner_share(args.alpha, "--alpha")
        self.resolution = inner_share(args.resolution, "--resolution")
        self.seed = check_seed(convert(int, args.seed, where="--seed"), "--seed")
        self.shapes = dict(shape(text) for text in args.shape)
        self._each = args.threads == EACH
        self.threads = [] if self._each else _numbers(args.threads, "--threads")
        self.batches: Sequence[int | None] = _numbers(args.batch, "--batch") or [None]
        self.callers = _numbers(args.concurrency, "--concurrency") or [1]
        self._swept: list[SweepRow] = []
        if args.in_process and max(self.callers) > 1:
            raise OptionError("needs processes", where="--concurrency", hint="Drop --in-process")
        if args.cuda_graph and max(self.callers) > 1:
            raise OptionError("has one set of tensors, for one caller", where="--cuda-graph")
        if args.dry_run and args.on:
            raise OptionError("predicts for this machine", where="--dry-run", hint="Drop --on")
        began = time.monotonic()
        self.base_model: Model | None = None
        self.timed = self._programs() if args.programs else self._models()
        if args.aa:
            if len(self.timed) > 1:
                what = "measures the base against itself, without CANDIDATE"
                raise OptionError(what, where="--aa")
            self.timed *= 2
        self._open_seconds = (time.monotonic() - began) / len(self.timed)
        self._run_seconds = 0.0

    def _programs(self) -> list[Timed]:
        if self.args.base is not None:
            raise OptionError(
                "is a model, and programs are measured against programs",
                where=self.args.base,
                hint="Give each program by its own --command or --callable",
            )
        for name in _OF_MODELS:
            if getattr(self.args, name):
                where = f"--{name.replace('_', '-')}"
                raise OptionError("is about models, not programs", where=where, hint="Drop it")
        if self.args.json:
            check_output_file(self.args.json, parents=True)
        return [PROGRAMS[kind](text) for kind, text in self.args.programs]

    def _models(self) -> list[Timed]:
        args = self.args
        if args.base is None:
            raise OptionError(
                "there is nothing to measure", hint="Give BASE, or --command, or --callable"
            )
        if args.json:
            check_output_file(args.json, args.base, *args.candidates, parents=True)
        if args.cuda_graph and self._spreads:
            hint = "Give --provider cuda:enable_cuda_graph=1 instead"
            raise OptionError("is about a single --provider", where="--cuda-graph", hint=hint)
        if args.on is None:  # refuse a missing provider before any model is opened
            for text in [*args.provider, args.base_provider or "cpu"]:
                check_installed(Engine.of(text).provider, available_providers())
        base, self.base_model = _open(args.base)
        found = [base, *(_open(spec)[0] for spec in args.candidates)]
        say(args.data, self.base_model, judges=False)
        if not self._spreads:
            return list(found)
        engines, base_engine = args.provider or ["cpu"], args.base_provider or "cpu"
        return spread(found, engines, base_engine, here=args.on is None)

    @property
    def _spreads(self) -> bool:
        """True where each model is measured on engines of its own."""
        return len(self.args.provider) > 1 or self.args.base_provider is not None

    @property
    def has_cards(self) -> bool:
        """True where startup costs are wanted, and something that has them is measured."""
        return bool(self.args.card and not self.args.in_process and self.base_model is not None)

    def begin(self, bench: Bench, start: float) -> None:
        """Measure on a bench from now on, within the time that began at `start`.

        Raises:
            RunError: the time is over before processes that measure could have started.
        """
        ending = min(END_SHARE * self.seconds, self._process_seconds / SLOWER)
        self.bench, self.end = bench, start + self.seconds - ending
        late = max(LATE_SECONDS, LATE_SHARE * self.seconds)
        if self.args.in_process or self.left() + late >= self._process_seconds:
            return
        gone = time.monotonic() - start
        raise RunError(
            f"starting took {gone:.1f} s, and the processes that measure take about as long: "
            f"nothing can be measured within {self.seconds:g} s",
            hint=f"Give --max-time {4 * gone + 2:.0f}s or more, or stop other work here",
        )

    def left(self) -> float:
        """Return the seconds that are left of the time."""
        return max(0.0, self.end - time.monotonic())

    def sweep(self) -> list[dict[str, Any]]:
        """Return all combinations of threads, batch and callers; of programs the only one, {}."""
        if self.base_model is None:
            return [{}]
        most = self.bench.environment().cpus
        threads = thread_counts(most) if self._each else self.threads or [most]
        found = [{"threads": t, "batch": b} for t in threads for b in self.batches]
        if self.callers == [1]:
            return found
        return [{**setting, "callers": n} for setting in found for n in self.callers]

    def measure(self, setting: dict[str, Any], settings_left: int) -> tuple[int, dict[str, Any]]:
        """Measure one combination and print it; return the exit code and the document's entry.

        Raises:
            RunError: not even one run of each model fits into the time.
        """
        how, feeds = self._timing(setting, settings_left), self._feeds(setting)
        per_second = setting.get("callers", 1) > 1
        if len(self.timed) == 1:
            found = self.bench.measure(self.timed, feeds, how, self.progress)
            self._print(measurement_lines(found, per_second=per_second), found, setting)
            self._note(found, setting)
            entry: dict[str, Any] = {"measurements": [m.to_json() for m in found]}
            return (INTERRUPTED if found[0].interrupted else 0), entry
        base, *candidates = self.timed
        compared = self.bench.compare(base, candidates, feeds, how, self.progress)
        if not any(c.blocks or c.interrupted for c in compared):
            raise RunError(next(c.error for c in compared if c.error) or "")
        shown = [compared[0].base, *(c.candidate for c in compared)]
        self._print(comparison_lines(compared, per_second=per_second), shown, setting)
        self._note(shown, setting)
        return self._code(compared), {"comparisons": [c.to_json() for c in compared]}

    def print_sweep(self) -> None:
        """Print latency and throughput of all settings in one table, where there are several."""
        if len({(row.threads, row.batch, row.callers) for row in self._swept}) > 1:
            print("\n".join(["", *sweep_lines(self._swept)]))  # noqa: T201

    def startup_costs(self) -> list[dict[str, Any]]:
        """Measure the startup costs of each model in fresh processes, and print them.

        As many processes are started as fit into what is left of the time.
        """
        timed = self.timed[:1] if self.args.aa else self.timed
        models = [m for m in timed if not isinstance(m, Program)]
        each = self._process_seconds + self._open_seconds + 5 * self._run_seconds
        rounds = self.left() / (each * len(models))
        if rounds < 1:
            self.progress.say(
                f"startup costs are left out: they take about {each * len(models):.0f} s, and "
                f"{self.left():.0f} s are left; --no-card gives their time to the runs"
            )
            return []
        arena = rounds >= 2
        found = self._costs(models, each * (1 + arena), arena=arena)
        if found:
            print("\n".join(["", *startup_lines(found)]))  # noqa: T201
        return [c.to_json() for c in found]

    def _costs(
        self, models: Sequence[Startable], each: float, *, arena: bool
    ) -> list[StartupCosts]:
        setting = self.sweep()[0]
        how, feeds = self._timing(setting, 1), self._feeds(setting)
        found: dict[int, StartupCosts] = {}
        failed: set[int] = set()
        for _ in self.progress.track(range(PROCESSES), "startup costs", PROCESSES):
            active = [i for i in range(len(models)) if i not in failed]
            if each * len(active) > self.left():
                break
            for index in active:
                began = time.monotonic()
                if each > self.left():
                    break
                try:
                    more, _ = self.bench.startup_costs(models[index], feeds, how, 1, arena=arena)
                except RunError as error:
                    failed.add(index)
                    self.progress.say(str(error))
                    continue
                each = max(each, time.monotonic() - began)
                found[index] = found[index].joined(more) if index in found else more
        return [found[index] for index in sorted(found)]

    def print_forecast(self) -> None:
        """Run each model a few times, and print how long the whole takes."""
        settings = self.sweep()
        how, feeds = self._timing(settings[0], len(settings)), self._feeds(settings[0])
        found = forecast(
            self.timed,
            feeds,
            how.config,
            how.max_seconds,
            resolution=how.resolution,
            seed=how.seed,
        )
        cards = 0.0
        if self.has_cards:
            processes = len(set(map(id, self.timed))) * PROCESSES * 2
            cards = processes * (self._process_seconds + self._open_seconds + 4 * found.run_seconds)
        opened = self.seconds - how.max_seconds - self._reserve()
        print("\n".join(forecast_lines(found, opened, cards, self.seconds)))  # noqa: T201

    def _reserve(self) -> float:
        """Return the seconds kept for startup costs; none where they would not suffice."""
        share = STARTUP_SHARE * self.seconds
        needed = (self._process_seconds + self._open_seconds) * len(self.timed)
        return share if self.has_cards and share >= needed else 0.0

    def _config(self, threads: int) -> SessionConfig:
        one = self.args.provider[0] if self.args.provider and not self._spreads else None
        config = engine_config(one, threads)
        return with_cuda_graph(config) if self.args.cuda_graph else config

    def _feeds(self, setting: dict[str, Any]) -> Feeds:
        if self.base_model is None:
            return {}
        batch = setting["batch"]
        if self.args.data is None:
            return given_feeds(self.base_model, self.shapes, batch=batch or 1, seed=self.seed)
        data = Dataset.open(self.args.data, batch=batch or 1).bind(self.base_model)
        if batch is None or data.stream is not None:
            return items_of(self.base_model, data)(0)
        return next(iter(data)).feeds

    def _timing(self, setting: dict[str, Any], settings_left: int) -> Timing:
        least = min(LEAST_SHARE * self.seconds, LEAST_SECONDS)
        return Timing(
            self._config(setting.get("threads", 1)),
            max_seconds=max(least, self.left() - self._reserve()) / settings_left,
            alpha=self.alpha,
            resolution=self.resolution,
            seed=self.seed,
            in_process=self.args.in_process,
            concurrency=setting.get("callers", 1),
        )

    def _note(self, found: Sequence[Measurement], setting: dict[str, Any]) -> None:
        """Note the slowest model's run, by which startup costs are planned, and all for a table."""
        numbers = (setting.get(name) or 1 for name in ("threads", "batch", "callers"))
        self._swept += [SweepRow(m, *numbers) for m in found[:1]]
        self._swept += [replace(self._swept[-1], measurement=m) for m in found[1:]]
        slowest = max((m.median_ns or 0.0 for m in found), default=0.0)
        self._run_seconds = max(self._run_seconds, slowest / 1e9)

    def _code(self, compared: Sequence[Comparison]) -> int:
        if any(c.interrupted for c in compared):
            return INTERRUPTED
        if any(c.error for c in compared):
            return 2
        verdict = compared[0].verdict
        if not self.args.aa or verdict == "same":
            return 0
        return 3 if verdict == "inconclusive" else 1

    def _print(
        self, lines: Sequence[str], shown: Sequence[Measurement], setting: dict[str, Any]
    ) -> None:
        import sys

        parts = [f"{name} {value}" for name, value in setting.items() if value]
        unicode = "utf" in (sys.stdout.encoding or "").lower()
        plot = plot_lines(shown) if sys.stdout.isatty() and unicode else []
        titled = len(self.sweep()) > 1 or max(self.callers) > 1
        head = ["", ", ".join(parts)] if titled else []
        print("\n".join([*head, *lines, *plot]))  # noqa: T201


def _open(spec: str) -> tuple[ModelOrPath, Model]:
    """Return the source that a session loads, and the model; the session loads a file itself."""
    model = open_model(spec)
    path = Path(spec)
    return (path if path.is_file() else model), model


def _numbers(text: str | None, option: str) -> list[int]:
    if text is None:
        return []
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = [0]
    if min(found) < 1:
        raise OptionError(f"{text!r} is not a number above 0, nor a list of such", where=option)
    return found
