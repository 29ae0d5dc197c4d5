"""What a bench elsewhere is asked, and how its answers become values here."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from trimtab.core.ort.session import Feeds
from trimtab.core.progress import Progress
from trimtab.core.target import Target

from ..bench.bench import TextAndJson, Timing
from ..machine.environment import Environment
from ..machine.noise_check import NoiseCheck
from ..measure.compare import ModelOrPath
from ..measure.protocol import Message
from ..measure.startup import StartupCosts
from ..measure.subject import Subject
from ..measure.values import Comparison, Measurement
from .bundles import named


class Closeable(contextlib.AbstractContextManager[Any]):
    """Closed at the end of a `with`."""

    def close(self) -> None:
        """Give everything back."""

    def __exit__(self, *error: object) -> None:
        self.close()


class RemoteBench(Closeable, ABC):
    """A bench whose calls are carried out elsewhere, as messages.

    Attributes:
        facts: what the device told of itself.
        progress: where to tell what is waited for.
    """

    facts: Message
    progress: Progress

    @abstractmethod
    def ask_for(
        self,
        what: str,
        subjects: Sequence[Subject],
        feeds: Feeds,
        how: Timing,
        progress: Progress,
        **more: object,
    ) -> Message:
        """Have a call carried out.

        Args:
            what: compare, measure, card or diagnosis.
            subjects: models, the base first; of a diagnosis the baseline last.
            feeds: of one run.
            how: how long and how surely.
            progress: where to tell what is said there.
            more: what the call takes besides, JSON values.

        Returns:
            The agent's answer.

        Raises:
            TrimtabError: what was raised there.
            RunError: the device is gone.
        """

    def compare(
        self,
        base: ModelOrPath,
        candidates: Sequence[ModelOrPath],
        feeds: Feeds,
        how: Timing,
        progress: Progress,
    ) -> list[Comparison]:
        """See `Bench`."""
        subjects = [Subject.of(m) for m in (base, *candidates)]
        answer = self.ask_for("compare", subjects, feeds, how, progress)
        found = [Comparison.from_json(c) for c in answer["comparisons"]]
        return [
            replace(c, base=named(c.base, subjects[0]), candidate=named(c.candidate, s))
            for c, s in zip(found, subjects[1:], strict=True)
        ]

    def measure(
        self, models: Sequence[ModelOrPath], feeds: Feeds, how: Timing, progress: Progress
    ) -> list[Measurement]:
        """See `Bench`."""
        subjects = [Subject.of(m) for m in models]
        answer = self.ask_for("measure", subjects, feeds, how, progress)
        found = [Measurement.from_json(m) for m in answer["measurements"]]
        return [named(m, s) for m, s in zip(found, subjects, strict=True)]

    def startup_costs(
        self, model: ModelOrPath, feeds: Feeds, how: Timing, processes: int, *, arena: bool
    ) -> tuple[StartupCosts, NoiseCheck]:
        """See `Bench`."""
        subject = Subject.of(model)
        more = {"processes": processes, "arena": arena}
        answer = self.ask_for("card", [subject], feeds, how, self.progress, **more)
        found = StartupCosts.from_json(answer["card"])
        told = replace(found, model=subject.name, size_bytes=subject.size_bytes)
        return told, NoiseCheck.from_json(answer["fitness"])

    def diagnosis(
        self,
        model: ModelOrPath,
        baseline: ModelOrPath | None,
        feeds: Feeds,
        how: Timing,
        *,
        profiled: bool,
    ) -> TextAndJson:
        """See `Bench`."""
        subjects = [Subject.of(m) for m in (model, baseline) if m]
        more = {"profiled": profiled, "name": subjects[0].name}
        answer = self.ask_for("diagnosis", subjects, feeds, how, self.progress, **more)
        return answer["lines"], answer["document"]

    def environment(self) -> Environment:
        """See `Bench`."""
        return Environment.from_json(self.facts["environment"])

    def target(self, threads: int | None) -> Target:
        """See `Bench`."""
        found = Target(**self.facts["target"])
        return replace(found, threads=threads or found.threads)
