"""The subjects of a measurement, and the reporter that turns their samples into values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trimtab.core.errors import OptionError
from trimtab.core.load import read_proto
from trimtab.core.model import Model
from trimtab.core.ort.engines import Engine
from trimtab.core.ort.session import Feeds, SessionConfig

from ..machine.environment import Environment
from ..machine.noise_check import Snapshot, check_noise
from ..stats.verdict import decide, evidence, interval
from .contenders.contender import Contender
from .contenders.program import Program
from .feeds import describe
from .sampling import BlockPair
from .timing import Runs, mean_cost
from .values import Comparison, Measurement

ModelOrPath = Model | str | Path
Models = Sequence[ModelOrPath]


@dataclass(frozen=True)
class OnEngine:
    """A model on an engine of its own, whatever engine the others of a measurement have."""

    model: ModelOrPath
    engine: Engine


#: Whatever has startup costs, and whatever can be timed.
Startable = ModelOrPath | OnEngine
Timed = Startable | Program


def in_memory(model: Startable) -> Model:
    """Return a model, read from its file where it is not in memory.

    Raises:
        ModelError: the file cannot be used.
    """
    if isinstance(model, OnEngine):
        model = model.model
    return model if isinstance(model, Model) else Model.load(model)


@dataclass(frozen=True)
class Subject:
    """Subject of a measurement: a model in memory, the file that a session loads, or a program.

    Size and digest are taken at the start, since the file may have been removed at the end. The
    size of a program is 0. Without an engine of its own it has that of the measurement.
    """

    source: Model | Path | Program
    name: str
    size_bytes: int
    digest: str
    loaded: Model | None = None
    engine: Engine | None = None

    @classmethod
    def of(cls, source: Timed) -> Subject:
        """Make a subject of a model in memory, a file or a program.

        Raises:
            ModelError: the file cannot be used.
        """
        if isinstance(source, Program):
            return cls(source, source.text, 0, source.digest)
        if isinstance(source, OnEngine):
            plain = cls.of(source.model)
            return replace(plain, name=f"{plain.name} on {source.engine}", engine=source.engine)
        if isinstance(source, Model):
            fixed = source.fixed()  # each session in this process is built from the same bytes
            return cls(fixed, source.name, fixed.size_bytes, source.digest, source)
        model = Model.load(source)
        return cls(Path(source), model.name, size_bytes(Path(source)), model.digest, model)

    @property
    def onnx(self) -> Model | Path:
        """Model in memory or file.

        Raises:
            OptionError: it is a program.
        """
        if isinstance(self.source, Program):
            raise OptionError(
                "is a command or a function, which only this machine measures",
                where=self.name,
                hint="Run `trimtab bench` there",
            )
        return self.source

    def config(self, common: SessionConfig) -> SessionConfig:
        """Return the configuration of its sessions in a measurement."""
        return common if self.engine is None else self.engine.applied(common)


def models_of(subjects: Sequence[Subject]) -> list[Model]:
    """Return the models among the subjects."""
    return [s.loaded for s in subjects if s.loaded is not None]


@dataclass(frozen=True)
class Reporter:
    """Reporter that turns samples into measurements and comparisons."""

    config: SessionConfig
    feeds: Feeds
    before: Snapshot
    after: Snapshot
    canary_ns: Sequence[int]
    interrupted: bool

    def measurement(
        self, subject: Subject, contender: Contender, slots: Sequence[Runs]
    ) -> Measurement:
        """Build the measurement of a model from its slots, in the order they were taken."""
        switches = tuple(n for runs in slots for n in runs.switches)
        return Measurement(
            subject.name,
            subject.digest,
            subject.size_bytes,
            tuple(n for runs in slots for n in runs.ns),
            switches,
            Environment.here(self.before.gpu),
            subject.config(self.config) if subject.loaded else None,
            check_noise(self.before, self.after, canary_ns=self.canary_ns, switches=switches),
            describe(self.feeds),
            self.interrupted,
            contender.placement,
            mean_cost([(len(runs.ns), runs.cpu_ns) for runs in slots]),
            mean_cost([(len(runs.ns), runs.instructions) for runs in slots]),
        )

    def comparison(
        self,
        base: Subject,
        candidate: Subject,
        pair: BlockPair,
        alpha: float,
        resolution: float,
        *,
        renewed: bool,
    ) -> Comparison:
        """Build the comparison of a pair, with its verdict at the stop."""
        test = pair.test
        low, high = interval(test, alpha=alpha, resolution=resolution)
        return Comparison(
            self.measurement(base, pair.base, pair.base_runs),
            self.measurement(candidate, pair.candidate, pair.candidate_runs),
            math.exp(test.estimate()) if test.blocks else math.nan,
            low,
            high,
            decide(test, alpha=alpha, resolution=resolution, renewed=renewed),
            alpha,
            resolution,
            tuple(test.log_ratios),
            evidence(test, resolution),
            self.interrupted,
            str(pair.error) if pair.error else None,
            renewed,
        )


def size_bytes(source: ModelOrPath) -> int:
    """Return the size of the file in bytes, including external data."""
    if isinstance(source, Model):
        return source.size_bytes
    path = Path(source)
    return sum(f.stat().st_size for f in [path, *(path.parent / n for n in weight_files(path))])


def weight_files(path: Path) -> set[str]:
    """Return the names of the files beside a model that hold its weights."""
    return {
        entry.value
        for tensor in read_proto(path).graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
