"""Acceptance of candidates: by their numbers, their int8 kernels and their time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal
from weakref import WeakKeyDictionary

from trimtab.core.context import Clock, Ratio
from trimtab.core.errors import RunError
from trimtab.core.model import Model
from trimtab.core.ort.int8_share import Int8Share, int8_share
from trimtab.core.ort.peak_memory import peak_bytes
from trimtab.core.ort.session import Feeds, Outputs, SessionConfig, build_session, run

from ..base import relative_error

Over = Literal["mean", "worst"]
Goal = Literal["latency", "size", "memory", "int8"]
#: Bytes of weights of all sessions of one screening, which live side by side.
SCREEN_BYTES = 2_000_000_000


@dataclass(frozen=True)
class Screening:
    """Rough speed-ups, measured side by side.

    Attributes:
        gains: speed-up of each model over the base.
        doubt: ratio of two measurements of the base in the same run, 1 on a quiet machine.
    """

    gains: list[float]
    doubt: float = 1.0


@dataclass
class CandidateJudge:
    """Comparison of candidates on the same feeds and configuration.

    Attributes:
        clock: clock that measures.
        config: configuration of the sessions.
        cases: feeds to measure with, one for each size that matters.
        samples: further feeds that the numbers must agree on: the user's data.
        over: "mean" or "worst" of several cases.
        goal: figure that a candidate must improve.
        tolerance: largest relative difference of any output.
        quantized: true where int8 kernels have to be kept.
    """

    clock: Clock
    config: SessionConfig
    cases: Sequence[Feeds]
    samples: Sequence[Feeds] = ()
    over: Over = "mean"
    goal: Goal = "latency"
    tolerance: float = 1e-5
    quantized: bool = False
    _expected: list[Outputs] = field(default_factory=list)
    # By the model itself, held weakly: the address of a dropped candidate goes to the next one.
    _shares: WeakKeyDictionary[Model, Int8Share] = field(default_factory=WeakKeyDictionary)
    _peaks: WeakKeyDictionary[Model, int] = field(default_factory=WeakKeyDictionary)

    def screen(self, base: Model, models: Sequence[Model], seconds: float) -> Screening:
        """Measure rough speed-ups of the models over the base, from medians taken side by side."""
        gains: list[float] = []
        doubts: list[float] = []
        per_chunk = max(1, int(SCREEN_BYTES / max(1, base.weight_bytes)) - 2)
        for start in range(0, len(models), per_chunk):
            chunk = models[start : start + per_chunk]
            share = seconds * len(chunk) / len(models) / len(self.cases)
            found = [self._side_by_side(base, chunk, feeds, share) for feeds in self.cases]
            doubts += [doubt for _, doubt in found]
            by_model = zip(*(logs for logs, _ in found), strict=True)
            gains += [math.exp(self._overall(logs)) for logs in by_model]
        return Screening(gains, math.exp(max(doubts)))

    def _overall(self, logs: Sequence[float]) -> float:
        return min(logs) if self.over == "worst" else sum(logs) / len(logs)

    def _side_by_side(
        self, base: Model, models: Sequence[Model], feeds: Feeds, seconds: float
    ) -> tuple[list[float], float]:
        """Measure log speed-ups, and the distance of two measurements of the base itself."""
        # The base twice: where even these differ, no rough figure of this run rejects anything.
        contenders = [base, base, *models]
        medians = self.clock.median_ns(contenders, feeds, self.config, seconds)
        one, two, *others = map(math.log, medians)
        return [(one + two) / 2 - log for log in others], abs(one - two)

    def compare(self, base: Model, candidate: Model, seconds: float) -> Ratio:
        """Measure the speed-up of the candidate over all cases."""
        share = seconds / len(self.cases)
        ratios = [
            self.clock.compare(base, candidate, feeds, self.config, share) for feeds in self.cases
        ]
        if self.over == "worst":
            return min(ratios, key=lambda r: r.low)
        figures = zip(*((r.value, r.low, r.high) for r in ratios), strict=True)
        logs = ([math.log(max(v, 1e-9)) for v in figure] for figure in figures)
        return Ratio(*(math.exp(sum(found) / len(found)) for found in logs))

    def difference(self, original: Model, candidate: Model) -> float:
        """Return the largest relative difference of any output, without onnxruntime's fusions."""
        plain = SessionConfig(provider=self.config.provider, level="basic")
        feeds = [*self.cases, *self.samples]
        if not self._expected:
            session = build_session(original, plain)
            self._expected += [run(session, one) for one in feeds]
        session = build_session(candidate, plain)
        return max(
            relative_error(array, got[name])
            for one, expected in zip(feeds, self._expected, strict=True)
            for got in [run(session, one)]
            for name, array in expected.items()
        )

    def objection(self, original: Model, current: Model, candidate: Model) -> str | None:
        """Return why a candidate may not be kept whatever its time; None where it may."""
        try:
            error = self.difference(original, candidate)
        except RunError as refused:
            return f"dropped, onnxruntime refuses it ({refused.what}): a bug of trimtab, report it"
        if error > self.tolerance:
            what = f"dropped, it changes the numbers by {error:.1e} on these data"
            if self.quantized:
                return f"{what}: float rounding that crosses int8 steps"
            return f"{what}: a bug of trimtab, please report it"
        if not self.quantized and self.goal != "int8":
            return None
        before, after = self._share(current), self._share(candidate)
        if after.int8_share < before.int8_share - 1e-6 or after.leftover_qdq > before.leftover_qdq:
            return (
                f"breaks int8 fusions: {before.leftover_qdq} conversions and "
                f"{before.int8_share:.0%} of the products in int8 became "
                f"{after.leftover_qdq} and {after.int8_share:.0%}"
            )
        return None

    def improves(self, current: Model, candidate: Model, ratio: Ratio) -> bool:
        """Return whether a candidate improves the goal, with statistical certainty for time."""
        if self.goal == "latency":
            return ratio.faster
        if ratio.slower:
            return False
        if self.goal == "size":
            return candidate.size_bytes < current.size_bytes
        if self.goal == "memory":
            return self._peak(candidate) < self._peak(current)
        before, after = self._share(current), self._share(candidate)
        return (-after.leftover_qdq, after.int8_share) > (-before.leftover_qdq, before.int8_share)

    def _peak(self, model: Model) -> int:
        if model not in self._peaks:
            self._peaks[model] = peak_bytes(model, self.config, self.cases[0])
        return self._peaks[model]

    def _share(self, model: Model) -> Int8Share:
        if model not in self._shares:
            self._shares[model] = int8_share(model, self.config, self.cases[0])
        return self._shares[model]
