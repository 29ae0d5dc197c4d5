"""Measurement of the facts that the budgets of a gate need, and no others.

Untimed facts come first; then the model interleaved with each reference; then the model alone; then
its start-up in fresh processes. Each part ends once its budgets are decided, and leaves its time to
the next. After Ctrl-C the rest is skipped and the facts so far count.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.core.batches import items_of
from trimtab.core.dataset import Dataset
from trimtab.core.errors import InputError, OptionError, RunError
from trimtab.core.metric import evaluate, find_limited
from trimtab.core.model import Model
from trimtab.core.ort.accelerators import check_installed
from trimtab.core.ort.given_feeds import given_feeds
from trimtab.core.ort.int8_share import int8_share
from trimtab.core.ort.session import Feeds, SessionConfig, available_providers
from trimtab.core.progress import Progress, Silent
from trimtab.core.runner import OnEngineBeside, Remembering, Runner

from ..bench.bench import Bench, LocalBench, Timing
from ..bench.budgets import Budget, Gate
from ..machine.providers import nodes_by_provider
from ..measure.contenders.program import Program
from ..measure.contenders.programs import PROGRAMS
from ..measure.subject import ModelOrPath, OnEngine, Startable, Subject, Timed, in_memory
from ..stats.percentiles import fewest_runs
from .verdicts import GateFacts

OpenModel = Callable[[str], ModelOrPath]
#: Fresh processes where no start-up time is tested.
FEW_PROCESSES = 3
#: Least time for a part, whatever the parts before it took.
LEAST_SECONDS = 1.0


def open_file(name: str) -> ModelOrPath:
    """Return the path of a model; sessions read the file themselves, as in production."""
    return Path(name)


@dataclass
class Collector:
    """Measures the facts of one gate.

    Attributes:
        alpha: error rate of each statistical budget.
        seconds: time limit of the timed parts together, start-up excluded.
        seed: random seed of the block order.
        open_model: function from a name in the gate to a model or file.
        in_process: true for sessions in this process, for tests.
        feeds: inputs of the model; rows of the data by default, else random values.
        runner: runs models for their quality where their outputs are the device's own; here where
            None.
    """

    gate: Gate
    alpha: float
    seconds: float = 30.0
    seed: int = 0
    progress: Progress = field(default_factory=Silent)
    open_model: OpenModel = open_file
    in_process: bool = False
    feeds: Feeds | None = None
    bench: Bench = field(default_factory=LocalBench)
    runner: Runner | None = None
    _end: float = 0.0
    _found: dict[str, Any] = field(default_factory=dict)
    _failures: dict[str, str] = field(default_factory=dict)

    def collect(self) -> GateFacts:
        """Measure and return the facts.

        Raises:
            InputError: the gate's files do not fit together.
        """
        self._failures, self._found = {}, {}
        measured = self._open(self.gate.model)
        subject = Subject.of(measured)
        self._found |= {"size_bytes": subject.size_bytes, "digest": subject.digest}
        try:
            self._measure(measured, subject.loaded)
        except KeyboardInterrupt:
            self._found["interrupted"] = True
        except RunError as error:
            if error.where not in {None, "session.run", subject.name}:
                raise  # a reference that cannot be run is bad input, not the model's fault
            self._found["broken"] = str(error)
        return GateFacts(**self._found, failures=self._failures)

    @property
    def config(self) -> SessionConfig:
        """Configuration of each session of this gate."""
        threads = self.gate.threads or self.bench.environment().cpus
        return self.gate.engine.applied(SessionConfig(threads=threads))

    def _open(self, name: str) -> Timed:
        """Open what a name in the gate stands for."""
        if self.gate.subject == "model":
            return self.open_model(name)
        return PROGRAMS[self.gate.subject](name, self.gate.folder)

    def _measure(self, measured: Timed, loaded: Model | None) -> None:
        """Measure what the budgets need; a program only has times."""
        if isinstance(self.bench, LocalBench) and self._provider_is_missing():
            return
        self._check_measurable()
        feeds = self._feeds(loaded) if loaded is not None else {}
        if loaded is not None:
            self._inspect(loaded, feeds)
        self._end = time.monotonic() + self.seconds
        self._compare(measured, feeds)
        self._alone(measured, feeds)
        if not isinstance(measured, Program):
            self._start_up(measured, feeds)

    def _check_measurable(self) -> None:
        """Refuse budgets of what a device does not measure, before all else is measured."""
        unmeasured = self.bench.unmeasured
        for budget in self.gate.budgets:
            if budget.kind in unmeasured:
                raise InputError(
                    f"budget {budget.name!r}: {unmeasured[budget.kind]}",
                    where=f"{self.gate.where}, on {', '.join(self.gate.on)}",
                    hint="Leave it out of the budgets of that device",
                )

    def _inspect(self, loaded: Model, feeds: Feeds) -> None:
        """Find the facts about a model that take no time."""
        if self.gate.of_kind("provider"):
            placed = nodes_by_provider(loaded, self.config)
            self._found["providers"] = {
                name: dict(collections.Counter(op for _, op in nodes))
                for name, nodes in placed.items()
            }
        if self.gate.of_kind("share"):
            self._found["share"] = int8_share(loaded, self.config, feeds)
        if self.gate.of_kind("quality"):
            self._quality(loaded)

    def _provider_is_missing(self) -> bool:
        """Return whether the provider is not installed, which breaks a budget on it.

        Raises:
            OptionError: it is not installed, and no budget names it.
        """
        try:
            check_installed(self.gate.provider, available_providers())
        except OptionError as error:
            if not self.gate.of_kind("provider"):
                raise
            why = str(error)
        else:
            return False
        self._found["providers"] = {}
        kinds = {b.kind for b in self.gate.budgets} - {"provider", "size"}
        self._failures.update(dict.fromkeys(kinds, why))
        return True

    def _feeds(self, model: Model) -> Feeds:
        if self.feeds is not None:
            return self.feeds
        if self.gate.data and not self.gate.shapes:
            return items_of(model, Dataset.open(self.gate.data))(0)
        try:
            return given_feeds(model, self.gate.shapes, batch=1)
        except OptionError as error:
            hint = f"In a budgets file that is `shape: {{NAME: 1x3x224x224}}`. {error.hint or ''}"
            raise InputError(error.what, where=self.gate.where, hint=hint.strip()) from error

    def _quality(self, model: Model) -> None:
        assert self.gate.data is not None
        assert self.gate.baseline is not None
        base = in_memory(self.open_model(self.gate.baseline))
        data = Dataset.open(self.gate.data)
        limits = {b.metric: b.limit for b in self.gate.of_kind("quality") if b.metric}
        engine, config = self.gate.baseline_engine, self.config
        runner: Runner = Remembering(base, self.runner)
        if engine is not None:  # the baseline stays where it is, as the truth of the other too
            config = engine.applied(self.config)
            runner = OnEngineBeside(base, self.gate.engine, runner)
        metric, _ = find_limited(limits or 0.0, self.gate.metric, data)
        self._found["quality"] = tuple(
            evaluate(
                m,
                data,
                metric,
                reference=base,
                config=config,
                progress=self.progress,
                runner=runner,
            )
            for m in (model, base)
        )

    def _compare(self, model: Timed, feeds: Feeds) -> None:
        """Compare the model with each reference, until the budgets that name it are decided."""
        by_reference: dict[str, list[Budget]] = {}
        for budget in self.gate.of_kind("ratio"):
            by_reference.setdefault(budget.against, []).append(budget)
        self._found["comparisons"] = {}
        parts = len(by_reference) + bool(self.gate.of_kind("tail"))
        for position, (reference, budgets) in enumerate(by_reference.items()):
            found = self.bench.compare(
                self._reference(reference),
                [model],
                feeds,
                self._timing(self._share_of_time(parts - position), budgets),
                self.progress,
            )[0]
            self._found["comparisons"][reference] = found
            if found.error is not None and found.error.startswith(found.candidate.model):
                self._found["broken"] = found.error
            if found.interrupted:
                raise KeyboardInterrupt

    def _reference(self, name: str) -> Timed:
        """Open what the model is compared with; the baseline may have an engine of its own."""
        opened, engine = self._open(name), self.gate.baseline_engine
        if engine is None or name != self.gate.baseline or isinstance(opened, Program | OnEngine):
            return opened
        return OnEngine(opened, engine)

    def _timing(self, seconds: float, budgets: Sequence[Budget] = ()) -> Timing:
        return Timing(
            self.config,
            max_seconds=seconds,
            alpha=self.alpha,
            resolution=self.gate.resolution,
            seed=self.seed,
            in_process=self.in_process,
            budgets=tuple(budgets),
        )

    def _alone(self, model: Timed, feeds: Feeds) -> None:
        budgets = self.gate.of_kind("tail")
        if not budgets:
            return
        timing = self._timing(self._share_of_time(1), budgets)
        solo = self._found["solo"] = self.bench.measure([model], feeds, timing, self.progress)[0]
        if solo.interrupted:
            raise KeyboardInterrupt

    def _start_up(self, model: Startable, feeds: Feeds) -> None:
        if not self.gate.of_kind("start", "memory"):
            return
        tested = bool(self.gate.of_kind("start"))
        processes = fewest_runs(0.5, self.alpha) if tested else FEW_PROCESSES
        self.progress.say(f"starting {processes} fresh processes")
        how = self._timing(self.seconds)
        found = self.bench.startup_costs(model, feeds, how, processes, arena=False)
        self._found["startup_costs"], self._found["startup_noise_check"] = found

    def _share_of_time(self, parts_left: int) -> float:
        return max(LEAST_SECONDS, (self._end - time.monotonic()) / parts_left)
