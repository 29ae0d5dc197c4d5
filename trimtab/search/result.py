"""Results of a search as values and as JSON: constraints, candidates, and what was chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from trimtab.core.errors import BudgetError, OptionError, nearest, unknown
from trimtab.core.metric import Quality
from trimtab.core.model import Model

from .loss import LossEvidence
from .recipe import Recipe

if TYPE_CHECKING:
    from trimtab.runtime_bench.measure.subject import OnEngine
    from trimtab.runtime_bench.measure.values import Comparison

SCHEMA = 1
#: Figure to minimize: time of one caller's run, time of a run under load, size of the file,
#: multiply-accumulates, or bytes moved by a run.
Goal = Literal["latency", "throughput", "size", "macs", "bytes"]
#: Goals that are measured times: speed-ups decide.
TIMES: tuple[Goal, ...] = ("latency", "throughput")
#: Of a claim: the evidence proves it, proves the contrary, or reaches across the limit.
Standing = Literal["proved", "refuted", "open"]


@dataclass(frozen=True)
class Constraints:
    """Limits that a result must satisfy, None for no limit, and the goal.

    Attributes:
        max_drop: largest loss of the metric against the original, in the metric's own unit.
        max_drops: the same by metric, where several are limited; `max_drop` is that of the first.
        min_speedup: smallest speed-up over the original; the interval's lower end must reach it.
        max_latency_ns: largest latency at `percentile`, in nanoseconds.
        percentile: percentile that `max_latency_ns` limits.
        max_size: largest file, in bytes.
        max_rss: largest peak memory of a process above the runtime's own, in bytes.
        goal: figure that is minimized among the candidates that satisfy the limits.
        batch: rows of a run, where the goal is throughput (default 1).
        callers: callers that run at once, where the goal is throughput (default: all CPUs).
    """

    max_drop: float = 0.01
    min_speedup: float | None = None
    max_latency_ns: float | None = None
    percentile: float = 95.0
    max_size: int | None = None
    max_rss: int | None = None
    goal: Goal = "latency"
    batch: int | None = None
    callers: int | None = None
    max_drops: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.goal not in get_args(Goal):
            raise unknown("goal", self.goal, get_args(Goal))
        for limit in (self.max_drop, *self.max_drops.values()):
            if not 0 <= limit < math.inf:
                raise OptionError(
                    f"max_drop is {limit}, must be 0 or more",
                    hint="Write it in the metric's own unit: 0.01 is one point of top-1",
                )
        self._check_load()
        for name in ("min_speedup", "max_latency_ns", "max_size", "max_rss", "batch", "callers"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise OptionError(f"{name} is {value}, must be above 0")

    @property
    def limits_time(self) -> bool:
        """True where the clock decides whether a candidate may be chosen."""
        return self.min_speedup is not None or self.max_latency_ns is not None

    def _check_load(self) -> None:
        if self.goal == "throughput" and self.max_latency_ns is not None:
            raise OptionError(
                "a run under load has no latency to limit",
                where="max_latency, goal throughput",
                hint="Give min_speedup, which is that of the throughput, or the goal latency",
            )
        if self.goal != "throughput" and (self.batch, self.callers) != (None, None):
            raise OptionError(
                "are of the goal throughput",
                where="batch, callers",
                hint="Give --goal throughput, or drop them",
            )

    @classmethod
    def of(cls, value: Constraints | Mapping[str, Any] | None) -> Constraints:
        """Read constraints as people write them: `{"max_drop": 0.01, "max_size": "4MB"}`.

        `max_latency` may be written as on the command line, `p95=5ms`, and `max_drop` may be a
        mapping of metrics to their limits: `{"map": 0.01, "miou": 0.02}`.

        Raises:
            OptionError: an unknown name, or a value that is not valid.
        """
        if value is None or isinstance(value, Constraints):
            return value or cls()
        from trimtab.core.fields import convert
        from trimtab.core.units import percentile, size

        known = [*(f.name for f in fields(cls)), "max_latency"]
        values: dict[str, Any] = {}
        for name, entry in value.items():
            if name not in known:
                text, hint = f"there is no constraint {name!r}", nearest(name, known)
                raise OptionError(text, where="constraints", hint=hint)
            if name == "max_latency":
                values["percentile"], seconds = percentile(str(entry), "constraints, max_latency")
                values["max_latency_ns"] = seconds * 1e9
            elif name in {"max_size", "max_rss"}:
                values[name] = None if entry is None else size(entry, f"constraints, {name}")
            elif name == "goal":
                values[name] = entry
            elif name in {"batch", "callers"}:
                values[name] = convert(int | None, entry, where=f"constraints, {name}")
            elif name in {"max_drop", "max_drops"}:
                values |= _losses(entry)
            else:
                factor = entry.removesuffix("x") if isinstance(entry, str) else entry  # 1.5x
                values[name] = convert(float | None, factor, where=f"constraints, {name}")
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Return the limits that are set, and the goal."""
        plain = {k: v for k, v in self.__dict__.items() if v is not None}
        plain["max_drops"] = dict(self.max_drops)
        if not self.max_drops:
            plain.pop("max_drops")
        if self.max_latency_ns is None:
            plain.pop("percentile")
        return plain


def _losses(entry: Any) -> dict[str, Any]:
    """Return `max_drop` and `max_drops` of one limit, or of a mapping of metrics to theirs."""
    if isinstance(entry, Mapping):
        limits = {str(name): _limit(limit) for name, limit in entry.items()}
        return {"max_drop": next(iter(limits.values())), "max_drops": limits} if limits else {}
    return {} if entry is None else {"max_drop": _limit(entry)}


def _limit(entry: Any) -> float:
    from trimtab.core.fields import convert

    limit: float = convert(float, entry, where="constraints, max_drop")
    return limit


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """One candidate: recipe, model, size, quality, comparison.

    Attributes:
        name: name of the recipe.
        recipe: passes that make it; None for the original.
        model: None where it could not be made.
        size_bytes: size of the saved file.
        selection: quality on the split that decides.
        test: quality on the split that nothing was calibrated or chosen on.
        comparison: comparison with the original, measured in one run; None for the original.
        measured_as: name of the candidate whose comparison this is, where it runs the same kernels
            on the same shapes and was measured for both.
        failure: reason why it could not be made or measured.
        macs: multiply-accumulates of one row, None where not counted.
        moved_bytes: bytes that the operators of one run read and write, None where not counted.
        rss_bytes: peak memory of a process above the runtime's own, None where not measured.
        predicted: speed-up that a cost model predicts, where the target is not this machine.
        confirmation: comparison of the fresh run in which the winner was measured again.
        dropped: reason why the search went on without it, though it could be made.
        stage: stage of the search that made it.
        loss: what the items that confirm tell of its loss.
        kept_answers: part of the original's answers that it gives on all rows of the data, where
            labelled items are few.
        standing: where the speed-up that it needs stands after the fresh run.
        engine: engine that it runs on, such as `openvino`; None for the target's own. Its answers
            and times are that engine's, the original's are the target's.
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
    macs: int | None = None
    moved_bytes: int | None = None
    rss_bytes: float | None = None
    predicted: float | None = None
    confirmation: Comparison | None = None
    dropped: str | None = None
    stage: str = ""
    loss: LossEvidence | None = None
    kept_answers: float | None = None
    standing: Standing | None = None
    engine: str | None = None

    @property
    def subject(self) -> Model | OnEngine:
        """Model of a candidate that could be made, on its engine where it has one of its own."""
        from trimtab.core.ort.engines import Engine
        from trimtab.runtime_bench.measure.subject import OnEngine

        assert self.model is not None
        return OnEngine(self.model, Engine.of(self.engine)) if self.engine else self.model

    def __repr__(self) -> str:
        known = [self.failure or self.dropped, self.selection, self.comparison]
        return f"<Result {self.name}: {', '.join(str(one) for one in known if one is not None)}>"

    def to_json(self) -> dict[str, Any]:
        """Return everything but the model itself as JSON values."""
        values = {name: value for name, value in self.__dict__.items() if name != "model"}
        if self.measured_as is not None:
            values["comparison"] = None  # the samples stand once, with the one that was measured
        return {n: v.to_json() if hasattr(v, "to_json") else v for n, v in values.items()}


def cost(result: Result, goal: Goal) -> float:
    """Return the figure of a candidate that the goal minimizes; infinite where it is not known.

    A latency counts as a share of the original's, which was measured beside it.
    """
    if goal in TIMES:
        known = result.comparison.ratio if result.comparison is not None else result.predicted
        return 1 / known if known else math.inf
    size = None if result.model is None else result.size_bytes
    figure = {"size": size, "macs": result.macs, "bytes": result.moved_bytes}[goal]
    return math.inf if figure is None else float(figure)


def frontier(results: Sequence[Result], goal: Goal) -> tuple[Result, ...]:
    """Return the candidates that none beats, the smallest cost first."""
    known = [
        (cost(r, goal), -r.selection.merit, r)
        for r in results
        if r.failure is None and r.selection is not None and math.isfinite(cost(r, goal))
    ]
    best: list[Result] = []
    least_loss = math.inf
    for _, loss, result in sorted(known, key=lambda entry: entry[:2]):
        if loss < least_loss:
            best.append(result)
            least_loss = loss
    return tuple(best)


@dataclass(frozen=True, eq=False)
class OutcomeData:
    """Results of a search as values; `Outcome` adds the ways to show and save them.

    Attributes:
        original: the input model, with its quality.
        results: every candidate, in the order of the plan.
        chosen: the best that satisfies all constraints; None where none does.
        why: reasons in sentences, for people.
        constraints: limits and goal of the search.
        data: source and number of items of each split.
        looks: number of candidates that were evaluated on the test split, until one was confirmed.
        decisions: decisions in order, each with its evidence.
        effort: seconds, trials, steps made and steps taken from the cache.
        marks: caveats about the evidence: shared data, predicted latencies.
        evidence: layers, rounding errors, widths and lineage of the winner, for the report.
        advice: what would give a better answer, in one sentence.
    """

    original: Result
    results: tuple[Result, ...]
    chosen: Result | None
    why: tuple[str, ...]
    constraints: Constraints
    data: Mapping[str, Any] = field(default_factory=dict)
    looks: int = 1
    decisions: tuple[Mapping[str, Any], ...] = ()
    effort: Mapping[str, Any] = field(default_factory=dict)
    marks: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)
    advice: str = ""

    @property
    def frontier(self) -> tuple[Result, ...]:
        """Candidates that none beats in both quality and goal, the best of the goal first."""
        return frontier(self.results, self.constraints.goal)

    @property
    def model(self) -> Model:
        """The chosen model.

        Raises:
            BudgetError: no candidate satisfies the constraints.
        """
        if self.chosen is None or self.chosen.model is None:
            raise BudgetError("no candidate satisfies the constraints", hint=" ".join(self.why))
        return self.chosen.model

    def to_json(self) -> dict[str, Any]:
        """Return the whole outcome as one document with a `schema` number."""
        return {
            "schema": SCHEMA,
            "kind": "optimize",
            "constraints": self.constraints.to_json(),
            "data": dict(self.data),
            "original": self.original.to_json(),
            "results": [r.to_json() for r in self.results],
            "chosen": self.chosen.name if self.chosen else None,
            "frontier": [r.name for r in self.frontier],
            "looks": self.looks,
            "why": list(self.why),
            "marks": list(self.marks),
            "decisions": [dict(d) for d in self.decisions],
            "effort": dict(self.effort),
            "evidence": dict(self.evidence),
            "advice": self.advice,
        }
