"""Budgets: limits on the costs of a model, as values.

A budget is a name, a limit and the kind of evidence that decides it. `gate.budget_file` reads the
file that people write, `gate.rules` weighs the evidence.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from trimtab.core.errors import InputError, OptionError, nearest
from trimtab.core.ort.engines import Engine
from trimtab.core.text import bytes_text, duration_text
from trimtab.core.units import duration, share, size

from ..stats.e_process import PairedTest
from ..stats.verdict import LimitVerdict

#: `tail` is a percentile: histories on disk have this word.
Kind = Literal["tail", "ratio", "start", "memory", "size", "quality", "share", "provider"]
#: What a gate is about: a model, or a program of one kind of `contenders.programs`.
SubjectKind = Literal["model", "command", "callable"]
SUBJECT_KINDS: tuple[SubjectKind, ...] = get_args(SubjectKind)
#: `p95_quiet` counts only runs that no other task interrupted: a different quantity from p95.
PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?)(_quiet)?")


@dataclass(frozen=True)
class Rule:
    """Rule of one kind of budget.

    Attributes:
        kind: kind of evidence.
        read: parser from text or number to the limit: nanoseconds, bytes, a factor or a fraction.
        statistical: true if decided by a test with a bounded error probability.
    """

    kind: Kind
    read: Callable[[Any], Any]
    statistical: bool = False


def _time_ns(value: Any) -> float:
    if isinstance(value, int | float):
        raise OptionError(f"{value} has no unit", hint=f"Write {value}ms or {value}s")
    return duration(value) * 1e9


def _factor(value: Any) -> float:
    text = str(value).strip().removesuffix("x")
    number = _number(text, "a factor", "Write it as 1.5")
    if number <= 0:
        raise OptionError(f"{value!r} is not above 0", hint="Write it as 1.5")
    return number


def fraction(value: Any) -> float:
    """Parse a fraction of 1, written as 0.02 or 2%.

    Raises:
        OptionError: the text is not a fraction.
    """
    text = str(value).strip()
    hint = "Write it as 0.02 or 2%"
    number = _number(text.removesuffix("%"), "a fraction", hint)
    number = number / 100 if text.endswith("%") else number
    if not 0 <= number <= 1:
        raise OptionError(f"{value!r} does not lie between 0 and 1", hint=hint)
    return number


def _loss(value: Any) -> float:
    try:
        number = share(value)
    except OptionError as error:
        hint = "Write it in the metric's own unit, such as 0.01 or 1%"
        raise OptionError(error.what, hint=hint) from None
    if number < 0:
        raise OptionError(f"{value!r} is below 0", hint="A drop of 0 asks for no loss at all")
    return number


def _number(text: str, kind: str, hint: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not abs(number) < float("inf"):
        raise OptionError(f"{text!r} is not {kind}", hint=hint)
    return number


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise OptionError(f"{value!r} is not a name", hint="Write a file's or a provider's name")
    return value.strip()


RULES: dict[str, Rule] = {
    "speedup": Rule("ratio", _factor, statistical=True),
    "no_slower_than": Rule("ratio", _name, statistical=True),
    "load": Rule("start", _time_ns, statistical=True),
    "first": Rule("start", _time_ns, statistical=True),
    "rss": Rule("memory", size),
    "size": Rule("size", size),
    "drop": Rule("quality", _loss),
    "int8_share": Rule("share", fraction),
    "provider": Rule("provider", lambda value: Engine.of(_name(value)).provider),
}
#: Words between a budget of losses and the metric that it is of.
LOSS_OF = " of "
#: Names to suggest: any percentile is valid, these are the usual ones.
KNOWN = ("p50", "p90", "p95", "p99", "p95_quiet", *RULES, "tolerance")


def rule_of(name: str) -> Rule:
    """Return the rule of the budget with this name.

    Raises:
        OptionError: there is no such budget; the nearest is suggested.
    """
    plain, several, _ = name.partition(LOSS_OF)
    if name in RULES or (several and plain == "drop"):
        return RULES[plain]
    match = PERCENTILE.fullmatch(name)
    if match and 0 < float(match[1]) < 100:
        return Rule("tail", _time_ns, statistical=True)
    raise OptionError(f"unknown budget {name!r}", hint=nearest(name, KNOWN))


@dataclass(frozen=True)
class Budget:
    """A limit.

    Attributes:
        name: name in the file: p95, speedup, size, ...
        limit: nanoseconds, bytes, a factor or a fraction; 0 if the limit is a name.
        text: the limit as written in the file.
        against: model that `speedup` and `no_slower_than` compare with, or the provider.
        tolerance: slowdown that `no_slower_than` allows, 0.02 for 2%.
        line: line in the file; 0 if it does not come from a file.
    """

    name: str
    limit: float = 0.0
    text: str = ""
    against: str = ""
    tolerance: float = 0.0
    line: int = 0

    @classmethod
    def of(cls, name: str, value: Any, *, against: str = "", line: int = 0) -> Budget:
        """Make a budget of its name and its value as text or number.

        Raises:
            OptionError: there is no such budget, or it cannot have this value.
        """
        limit = rule_of(name).read(value)
        if isinstance(limit, str):
            return cls(name, text=limit, against=against or limit, line=line)
        return cls(name, float(limit), str(value), against, line=line)

    @property
    def kind(self) -> Kind:
        """Kind of evidence."""
        return rule_of(self.name).kind

    @property
    def metric(self) -> str:
        """Metric that a budget of losses names; empty where it names none."""
        return self.name.partition(LOSS_OF)[2] if self.kind == "quality" else ""

    @property
    def statistical(self) -> bool:
        """True if it takes its share of the error rate."""
        return rule_of(self.name).statistical

    @property
    def quantile(self) -> float:
        """Quantile of a percentile, 0.95 for p95; 0.5 for start-up times."""
        match = PERCENTILE.fullmatch(self.name)
        return float(match[1]) / 100 if match else 0.5

    @property
    def quiet(self) -> bool:
        """True if it counts only runs without an involuntary context switch."""
        return self.name.endswith("_quiet")

    def value_text(self, value: float) -> str:
        """Format a value of this budget's kind."""
        if self.kind in {"tail", "start"}:
            return duration_text(value)
        if self.kind in {"memory", "size"}:
            return bytes_text(value)
        if self.kind == "ratio":
            return f"{value:.3f}x"
        return f"{value:.4f}" if self.kind == "quality" else f"{value:.1%}"

    def __str__(self) -> str:
        spread = f" (tolerance {self.tolerance:g})" if self.tolerance else ""
        return f"{self.name}: {self.text}{spread}"


@dataclass(frozen=True)
class Gate:
    """A model and its budgets.

    Attributes:
        name: name for reports (default the model's).
        model: file or `module:callable`; of a program the command line or `module:callable`.
        budgets: budgets in the order of the file.
        baseline: float original, for `speedup` and `drop`.
        data: evaluation data, which also feed the model while it is measured.
        metric: quality metric.
        provider: execution provider of every session.
        provider_options: options of the provider.
        baseline_engine: engine of the baseline, where it is another than the model's.
        threads: intra-op threads (default all usable ones).
        shapes: shapes by name of inputs with dynamic axes.
        resolution: a relative budget is held if the model is proved to be within this much of it.
        on: devices of which each must hold it (default the command's).
        where: file and line, for messages.
        subject: kind of the model and what it is compared with.
        folder: folder in which programs run.
    """

    name: str
    model: str
    budgets: tuple[Budget, ...]
    baseline: str | None = None
    data: str | None = None
    metric: str | None = None
    provider: str = "CPUExecutionProvider"
    threads: int | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    resolution: float = 0.05
    on: tuple[str, ...] = ()
    where: str = "budgets"
    subject: SubjectKind = "model"
    folder: str = ""
    provider_options: Mapping[str, str] = field(default_factory=dict)
    baseline_engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """Provider of the model with its options."""
        return Engine(self.provider, self.provider_options)

    @property
    def runs_on(self) -> str:
        """Execution provider of a model, and its options; the kind of a program."""
        if self.subject != "model":
            return self.subject
        return str(self.engine) if self.provider_options else self.provider

    def of_kind(self, *kinds: Kind) -> list[Budget]:
        """Return the budgets of these kinds."""
        return [b for b in self.budgets if b.kind in kinds]


def count_statistical(gates: Sequence[Gate]) -> int:
    """Count the budgets that share the error rate of a run, at least 1."""
    return max(1, sum(b.statistical for gate in gates for b in gate.budgets))


def check(gate: Gate, at: Callable[[int], str]) -> Gate:
    """Refuse budgets that contradict each other or lack what decides them.

    Raises:
        InputError: the budgets are invalid; the message names the line and what to do.
    """
    by_name = {b.name.partition(LOSS_OF)[0]: b for b in gate.budgets}
    if gate.metric and any(b.metric for b in gate.budgets):
        raise InputError(
            "`drop:` names metrics, and `metric:` names another",
            where=at(by_name["drop"].line),
            hint="Remove `metric:`",
        )
    for budget in gate.budgets:
        if gate.subject != "model" and budget.kind not in {"tail", "ratio"}:
            raise InputError(
                f"budget {budget.name!r} is about models, and this gate is about a {gate.subject}",
                where=at(budget.line),
                hint="A program can have percentiles (p95), speedup and no_slower_than",
            )
    for name, wanted in (("speedup", "baseline"), ("drop", "baseline"), ("drop", "data")):
        if name in by_name and not getattr(gate, wanted):
            raise InputError(
                f"budget {name!r} needs `{wanted}:`",
                where=at(by_name[name].line),
                hint=f"Add `{wanted}: FILE` beside `model:`, or remove the budget",
            )
    speedup = by_name.get("speedup")
    if speedup and speedup.limit > 1 and gate.baseline == gate.model:
        raise InputError(
            "no model is faster than itself, and the baseline is the model",
            where=at(speedup.line),
            hint="Name the float original as `baseline:`",
        )
    _check_order([b for b in gate.budgets if b.kind == "tail"], at)
    wanted_provider = by_name.get("provider")
    if wanted_provider and wanted_provider.against != gate.provider:
        raise InputError(
            f"asks for {wanted_provider.against}, and the gate runs on {gate.provider}",
            where=at(wanted_provider.line),
            hint="Make `provider:` of the gate and of its budgets the same, or give one of them",
        )
    return gate


def _check_order(percentiles: Sequence[Budget], at: Callable[[int], str]) -> None:
    """Refuse a higher percentile with a lower limit, since it is never smaller."""
    for quiet in (False, True):
        ordered = sorted((b for b in percentiles if b.quiet == quiet), key=lambda b: b.quantile)
        for low, high in itertools.pairwise(ordered):
            if high.limit < low.limit:
                raise InputError(
                    f"{low} can never bind, since {high} is stricter",
                    where=at(max(low.line, high.line)),
                    hint="Remove one, or give the higher percentile the larger limit",
                )


def slowest_allowed(budget: Budget) -> float:
    """Return ln(reference / model) at the limit: ln 1.5 for `speedup: 1.5`, -ln 1.02 for 2%."""
    return math.log(budget.limit) if budget.name == "speedup" else -math.log1p(budget.tolerance)


def ratio_verdict(
    test: PairedTest, budget: Budget, alpha: float, resolution: float
) -> LimitVerdict:
    """Decide whether the blocks prove the budget broken, or held within the resolution."""
    limit, boundary = math.log(1 / alpha), slowest_allowed(budget)
    if test.evidence_below(boundary) >= limit:
        return "fail"
    if test.evidence_above(boundary - math.log1p(resolution)) >= limit:
        return "pass"
    return "inconclusive"
