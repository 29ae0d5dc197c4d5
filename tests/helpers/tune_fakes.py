"""Clock that only counts operators, and helpers of the tests of Tune."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import graphs
from rewrite_cases import NORM

from trimtab.core.context import Context, Ratio
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.target import Target
from trimtab.passes.tuning.tune import Tune


@dataclass
class CountingClock:
    """Clock for which the time of a model is the sum of its operators' costs.

    Attributes:
        cost: cost by operator; 1 where absent.
        spread: half of the width of intervals, relative.
        takes: called with the seconds of each measurement.
    """

    cost: dict[str, float] = field(default_factory=dict)
    spread: float = 0.01
    takes: Callable[[float], None] = lambda seconds: None
    asked: list[float] = field(default_factory=list)
    cost_of: Callable[[Any, Any], float] | None = None

    def total(self, model: Model, feeds: Any) -> float:
        if self.cost_of is not None:
            return self.cost_of(model, feeds)
        return 10.0 + sum(self.cost.get(op, 1.0) for op in graphs.ops(model))

    def compare(
        self,
        base: Model,
        candidate: Model,
        feeds: Any,
        config: Any,
        seconds: float,
        decide: tuple[float, ...] = (),
    ) -> Ratio:
        self.asked.append(seconds)
        self.takes(seconds)
        value = self.total(base, feeds) / self.total(candidate, feeds)
        return Ratio(value, value * (1 - self.spread), value * (1 + self.spread))

    def median_ns(
        self, models: Sequence[Model], feeds: Any, config: Any, seconds: float
    ) -> list[float]:
        self.takes(seconds)
        return [1000 * self.total(m, feeds) for m in models]


def context(clock: Any, data: Dataset | None = None) -> Context:
    # A machine of no class, for which no rule is known to win beforehand.
    return Context(target=Target.named("generic-qdq"), clock=clock, data=data)


def tuned(model: Model, clock: Any, data: Dataset | None = None, **fields: Any) -> Model:
    return Tune(**fields)(model, context(clock, data))


def notes(model: Model) -> dict[str, Any]:
    return dict(model.lineage[-1].notes)


def norms() -> Model:
    return graphs.model_of(NORM % "Add")


SUM_WINS = {"Sum": 0.1, "Add": 5.0}
