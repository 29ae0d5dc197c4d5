"""What a gate knows and what it says: facts in, rulings out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trimtab.core.metric import Quality
from trimtab.core.ort.int8_share import Int8Share

from ..bench.budgets import Budget
from ..machine.noise_check import Fitness
from ..measure.startup import Card
from ..measure.values import Comparison, Measurement

Ruled = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True)
class Facts:
    """What was measured for one gate; what was not, or could not be, is None.

    Attributes:
        comparisons: the model (candidate) against each reference (base), by the reference's name.
        solo: the model alone.
        card: its start-up costs.
        start_fitness: of the machine while the card was made.
        size_bytes: of its file.
        quality: of the model and of the baseline.
        share: what of it runs in int8.
        providers: number of nodes by operator, by the provider that they run on.
        digest: of the model.
        failures: why something could not be measured, by the kind of budget it was for.
        broken: the model itself crashed, hung or was refused.
        interrupted: the user stopped it.
    """

    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    solo: Measurement | None = None
    card: Card | None = None
    start_fitness: Fitness = field(default_factory=Fitness)
    size_bytes: int | None = None
    quality: tuple[Quality, Quality] | None = None
    share: Int8Share | None = None
    providers: Mapping[str, Mapping[str, int]] | None = None
    digest: str = ""
    failures: Mapping[str, str] = field(default_factory=dict)
    broken: str = ""
    interrupted: bool = False


@dataclass(frozen=True)
class Ruling:
    """The verdict on one budget.

    Attributes:
        budget: which.
        verdict: pass, fail or inconclusive.
        evidence: one sentence.
        value: the estimate in the budget's own unit, None where there is none.
        low: lower end of its interval, where it has one.
        high: upper end.
        unfit: it would have failed on a quiet machine; on this one it proves nothing.
    """

    budget: Budget
    verdict: Ruled
    evidence: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unfit: bool = False

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values; times in nanoseconds, sizes in bytes."""
        return {
            "budget": self.budget.name,
            "limit": self.budget.limit or self.budget.text,
            "text": str(self.budget),
            "line": self.budget.line,
            "verdict": self.verdict,
            "evidence": self.evidence,
            "value": self.value,
            "low": self.low,
            "high": None if self.high is None or math.isinf(self.high) else self.high,
            "unfit": self.unfit,
        }
