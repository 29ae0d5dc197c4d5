"""Base of the benches that measure elsewhere: calls as messages, answers as values."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from trimtab.core.ort.session import Feeds
from trimtab.core.progress import Progress
from trimtab.core.target import Target

from ..bench.bench import TextAndJson, Timing
from ..machine.environment import Environment
from ..machine.noise_check import NoiseCheck
from ..measure.startup import StartupCosts
from ..measure.subject import Models, Startable, Subject, Timed
from ..measure.values import Comparison, Measurement
from ..measure.workers.protocol import Message
from .bundles import with_identity


class Closeable(contextlib.AbstractContextManager[Any]):
    """Base of what a `with` closes at its end."""

    def close(self) -> None:
        """Release everything."""

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclass(frozen=True)
class RemoteCall:
    """A call of `dispatch`, with JSON values as options; messages from there are reported."""

    command: str
    subjects: Sequence[Subject]
    feeds: Feeds
    how: Timing
    progress: Progress
    options: Mapping[str, Any] = field(default_factory=dict)


class RemoteBench(Closeable, ABC):
    """Bench whose calls travel as messages and run elsewhere; `facts` describe the device."""

    facts: Message
    progress: Progress
    unmeasured: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def request(self, call: RemoteCall) -> Message:
        """Run a call there and return the answer.

        Raises:
            TrimtabError: the error that was raised there.
            RunError: the device is gone.
        """

    def compare(
        self,
        base: Timed,
        candidates: Sequence[Timed],
        feeds: Feeds,
        how: Timing,
        progress: Progress,
    ) -> list[Comparison]:
        """See `Bench`."""
        subjects = [Subject.of(m) for m in (base, *candidates)]
        options = _engines(subjects)
        answer = self.request(RemoteCall("compare", subjects, feeds, how, progress, options))
        found = [Comparison.from_json(c) for c in answer["comparisons"]]
        return [
            replace(
                c, base=with_identity(c.base, subjects[0]), candidate=with_identity(c.candidate, s)
            )
            for c, s in zip(found, subjects[1:], strict=True)
        ]

    def measure(
        self, models: Sequence[Timed], feeds: Feeds, how: Timing, progress: Progress
    ) -> list[Measurement]:
        """See `Bench`."""
        subjects = [Subject.of(m) for m in models]
        options = _engines(subjects)
        answer = self.request(RemoteCall("measure", subjects, feeds, how, progress, options))
        found = [Measurement.from_json(m) for m in answer["measurements"]]
        return [with_identity(m, s) for m, s in zip(found, subjects, strict=True)]

    def startup_costs(
        self, model: Startable, feeds: Feeds, how: Timing, processes: int, *, arena: bool
    ) -> tuple[StartupCosts, NoiseCheck]:
        """See `Bench`."""
        subject = Subject.of(model)
        options = {"processes": processes, "arena": arena, **_engines([subject])}
        answer = self.request(RemoteCall("card", [subject], feeds, how, self.progress, options))
        found = StartupCosts.from_json(answer["card"])
        costs = replace(found, model=subject.name, size_bytes=subject.size_bytes)
        return costs, NoiseCheck.from_json(answer["fitness"])

    def diagnosis(
        self, models: Models, feeds: Feeds, how: Timing, *, profiled: bool
    ) -> TextAndJson:
        """See `Bench`."""
        subjects = [Subject.of(m) for m in models]
        options = {"profiled": profiled, "name": subjects[0].name}
        call = RemoteCall("diagnosis", subjects, feeds, how, self.progress, options)
        answer = self.request(call)
        return answer["lines"], answer["document"]

    def environment(self) -> Environment:
        """See `Bench`."""
        return Environment.from_json(self.facts["environment"])

    def target(self, threads: int | None) -> Target:
        """See `Bench`."""
        found = Target(**self.facts["target"])
        return replace(found, threads=threads or found.threads)


def _engines(subjects: Sequence[Subject]) -> dict[str, Any]:
    """Return the option that names the engine of each model; none where all have the common one."""
    names = [str(s.engine) if s.engine else None for s in subjects]
    return {"engines": names} if any(names) else {}
