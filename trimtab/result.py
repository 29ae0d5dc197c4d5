"""What a search found: results, the chosen one and why, as values and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trimtab.core.metric import Quality
from trimtab.core.model import Model
from trimtab.recipe import Recipe

if TYPE_CHECKING:
    from trimtab.runtime_bench.values import Comparison

SCHEMA = 1


@dataclass(frozen=True)
class Constraints:
    """What a result must hold; None asks for nothing.

    Attributes:
        max_drop: largest loss of the metric against the original, in the metric's own unit.
        min_speedup: least speed-up over the original; the interval's lower end must reach it.
        max_latency_ns: largest latency at `percentile`, in nanoseconds.
        percentile: which percentile `max_latency_ns` speaks of.
        max_size: largest file, in bytes.
    """

    max_drop: float = 0.01
    min_speedup: float | None = None
    max_latency_ns: float | None = None
    percentile: float = 95.0
    max_size: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The constraints that ask for something."""
        plain = {k: v for k, v in self.__dict__.items() if v is not None}
        if self.max_latency_ns is None:
            plain.pop("percentile")
        return plain


@dataclass(frozen=True, eq=False)
class Result:
    """One candidate: recipe, model, size, quality, comparison.

    Attributes:
        name: of the recipe.
        recipe: how it is made; None for the original.
        model: None where it could not be made.
        size_bytes: of the saved file.
        selection: quality on the part that decides.
        test: quality on the part that nothing was calibrated or chosen on.
        comparison: against the original, measured in one run; None for the original.
        measured_as: the candidate whose comparison this is, where that one runs the same kernels
            on the same shapes and was measured for both.
        failure: why it could not be made or measured.
    """

    name: str
    recipe: Recipe | None = None
    model: Model | None = None
    size_bytes: int = 0
    selection: Quality | None = None
    test: Quality | None = None
    comparison: Comparison | None = None
    measured_as: str | None = None
    failure: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Everything but the model itself."""
        return {
            "name": self.name,
            "recipe": self.recipe.to_json() if self.recipe else None,
            "size_bytes": self.size_bytes,
            "selection": self.selection.to_json() if self.selection else None,
            "test": self.test.to_json() if self.test else None,
            "comparison": self._comparison_json(),
            "measured_as": self.measured_as,
            "failure": self.failure,
        }

    def _comparison_json(self) -> dict[str, Any] | None:
        # The samples stand once, with the candidate that was measured.
        measured = self.comparison is not None and self.measured_as is None
        return self.comparison.to_json() if measured and self.comparison else None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What `optimize` returns.

    Attributes:
        original: the model as given, with its quality.
        results: every candidate, in the order of the plan.
        chosen: the best that holds all constraints; None where none does.
        why: reasons in sentences, for people.
        constraints: what was asked.
        data: which part of the data served what.
        looks: candidates that were confirmed on the test part, until one held.
    """

    original: Result
    results: tuple[Result, ...]
    chosen: Result | None
    why: tuple[str, ...]
    constraints: Constraints
    data: Mapping[str, Any] = field(default_factory=dict)
    looks: int = 1

    @property
    def model(self) -> Model:
        """The chosen model.

        Raises:
            BudgetError: no candidate holds the constraints.
        """
        if self.chosen is None or self.chosen.model is None:
            from trimtab.core.errors import BudgetError

            raise BudgetError("no candidate holds the constraints", hint=" ".join(self.why))
        return self.chosen.model

    def to_json(self) -> dict[str, Any]:
        """The whole outcome as one document with a `schema` number."""
        return {
            "schema": SCHEMA,
            "kind": "optimize",
            "constraints": self.constraints.to_json(),
            "data": dict(self.data),
            "original": self.original.to_json(),
            "results": [r.to_json() for r in self.results],
            "chosen": self.chosen.name if self.chosen else None,
            "looks": self.looks,
            "why": list(self.why),
        }
