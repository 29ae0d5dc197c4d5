"""Values of a gate: measured facts and verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trimtab.core.metric import Quality
from trimtab.core.ort.int8_share import Int8Share

from ..bench.budgets import Budget
from ..machine.noise_check import NoiseCheck
from ..measure.startup import StartupCosts
from ..measure.values import Comparison, Measurement
from ..stats.verdict import LimitVerdict


@dataclass(frozen=True)
class GateFacts:
    """Facts measured for one gate; None for those not needed or not available.

    Attributes:
        comparisons: the model (candidate) against each reference (base), by name of the reference.
        solo: measurement of the model alone.
        startup_costs: its load time, first run and peak memory in fresh processes.
        startup_noise_check: noise of the machine while the start-up costs were measured.
        size_bytes: size of its file.
        quality: quality of the model and of the baseline.
        share: share of it that runs in int8.
        providers: number of nodes by operator, by execution provider.
        digest: digest of the model.
        failures: reasons why a fact is missing, by kind of budget.
        broken: error of a model that crashed, hung or was refused; empty where it runs.
        interrupted: true where the user stopped it.
    """

    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    solo: Measurement | None = None
    startup_costs: StartupCosts | None = None
    startup_noise_check: NoiseCheck = field(default_factory=NoiseCheck)
    size_bytes: int | None = None
    quality: tuple[Quality, Quality] | None = None
    share: Int8Share | None = None
    providers: Mapping[str, Mapping[str, int]] | None = None
    digest: str = ""
    failures: Mapping[str, str] = field(default_factory=dict)
    broken: str = ""
    interrupted: bool = False


@dataclass(frozen=True)
class BudgetVerdict:
    """The verdict on one budget.

    Attributes:
        evidence: one sentence about the figures.
        value: estimate in the unit of the budget, None where there is none.
        low: lower end of its interval, where it has one.
        high: upper end.
        unfit: true where it fails, but the machine is too noisy to prove it.
    """

    budget: Budget
    verdict: LimitVerdict
    evidence: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unfit: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON values; times in nanoseconds, sizes in bytes."""
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
