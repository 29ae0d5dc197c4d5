"""Budgets: what a model may cost, as values.

A budget is a name, a limit and the kind of evidence that decides it. The file that people write
them in is read by `budget_file`, the evidence is weighed by `gate`.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from trimtab.core.errors import InputError, OptionError, nearest
from trimtab.core.text import bytes_text, duration_text
from trimtab.core.units import duration, size

from ..stats.e_process import PairedTest
from ..stats.verdict import Ruled

Kind = Literal["tail", "ratio", "start", "memory", "size", "quality", "share", "provider"]
#: `p95_quiet` looks only at runs that no other task interrupted: another quantity than p95.
PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?)(_quiet)?")


@dataclass(frozen=True)
class Rule:
    """How one kind of budget is written and decided.

    Attributes:
        kind: what evidence it takes.
        read: text or number to limit: nanoseconds, bytes, a factor or a part of one.
        statistical: decided by a test that errs with a bounded probability.
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
    """A part of one, from 0.02 or 2%.

    Raises:
        OptionError: it is none.
    """
    text = str(value).strip()
    hint = "Write it as 0.02 or 2%"
    number = _number(text.removesuffix("%"), "a part of one", hint)
    number = number / 100 if text.endswith("%") else number
    if not 0 <= number <= 1:
        raise OptionError(f"{value!r} does not lie between 0 and 1", hint=hint)
    return number


def _loss(value: Any) -> float:
    number = _number(str(value), "a number", "Write it in the metric's own unit, such as 0.01")
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
        raise OptionError(f"{value!r} is no name", hint="Write a file's or a provider's name")
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
    "provider": Rule("provider", _name),
}
#: For messages: percentiles are open-ended, these are the usual ones.
KNOWN = ("p50", "p90", "p95", "p99", "p95_quiet", *RULES, "tolerance")


def rule_of(name: str) -> Rule:
    """How the budget of that name is written and decided.

    Raises:
        OptionError: there is no such budget; the nearest is suggested.
    """
    if name in RULES:
        return RULES[name]
    match = PERCENTILE.fullmatch(name)
    if match and 0 < float(match[1]) < 100:
        return Rule("tail", _time_ns, statistical=True)
    raise OptionError(f"unknown budget {name!r}", hint=nearest(name, KNOWN))


@dataclass(frozen=True)
class Budget:
    """One limit.

    Attributes:
        name: as it is written: p95, speedup, size, ...
        limit: nanoseconds, bytes, a factor or a part of one; 0 where the limit is a name.
        text: the limit as a reader writes it.
        against: the model that `speedup` and `no_slower_than` compare with, or the provider.
        tolerance: how much slower `no_slower_than` allows, 0.02 for 2%.
        line: in the file, 0 where it comes from elsewhere.
    """

    name: str
    limit: float = 0.0
    text: str = ""
    against: str = ""
    tolerance: float = 0.0
    line: int = 0

    @classmethod
    def of(cls, name: str, value: Any, *, against: str = "", line: int = 0) -> Budget:
        """A budget from its name and its value as text or number.

        Raises:
            OptionError: no such budget, or a value that it cannot have.
        """
        limit = rule_of(name).read(value)
        if isinstance(limit, str):
            return cls(name, text=limit, against=against or limit, line=line)
        return cls(name, float(limit), str(value), against, line=line)

    @property
    def kind(self) -> Kind:
        """What evidence it takes."""
        return rule_of(self.name).kind

    @property
    def statistical(self) -> bool:
        """Whether it takes its part of the error rate."""
        return rule_of(self.name).statistical

    @property
    def quantile(self) -> float:
        """Of a percentile, 0.95 for p95; the median for start-up times."""
        match = PERCENTILE.fullmatch(self.name)
        return float(match[1]) / 100 if match else 0.5

    @property
    def quiet(self) -> bool:
        """Whether it looks only at runs without an involuntary context switch."""
        return self.name.endswith("_quiet")

    def told(self, value: float) -> str:
        """A value of this budget's kind as text."""
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
        name: for reports; the model's where none is given.
        model: file or `module:callable`.
        budgets: in the order they are written.
        baseline: the float original, for `speedup` and `drop`.
        data: evaluation data, which are also what the model is fed while it is measured.
        metric: of quality.
        provider: execution provider of every session.
        threads: intra-op threads; all usable ones where None.
        shapes: of inputs with dynamic axes, by name.
        resolution: a relative budget is held if the model is proved to be within this much of it.
        on: devices that each must hold it; where the command says where nothing is named.
        where: file and line, for messages.
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

    def of_kind(self, *kinds: Kind) -> list[Budget]:
        """The budgets that take this evidence."""
        return [b for b in self.budgets if b.kind in kinds]


def count_statistical(gates: Sequence[Gate]) -> int:
    """Number of budgets that share the error rate of a run, at least 1."""
    return max(1, sum(b.statistical for gate in gates for b in gate.budgets))


def check(gate: Gate, at: Callable[[int], str]) -> Gate:
    """Refuse budgets that contradict each other or lack what decides them.

    Args:
        gate: to check.
        at: makes the place in a message from a line.

    Raises:
        InputError: names the line and what to do.
    """
    by_name = {b.name: b for b in gate.budgets}
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


def _check_order(tails: Sequence[Budget], at: Callable[[int], str]) -> None:
    """A higher percentile is never smaller, so its limit may not be either."""
    for quiet in (False, True):
        ordered = sorted((b for b in tails if b.quiet == quiet), key=lambda b: b.quantile)
        for low, high in itertools.pairwise(ordered):
            if high.limit < low.limit:
                raise InputError(
                    f"{low} can never bind, since {high} is stricter",
                    where=at(max(low.line, high.line)),
                    hint="Remove one, or give the higher percentile the larger limit",
                )


def slowest_allowed(budget: Budget) -> float:
    """ln(reference / model) at the limit: ln 1.5 for `speedup: 1.5`, -ln 1.02 for 2% tolerance."""
    return math.log(budget.limit) if budget.name == "speedup" else -math.log1p(budget.tolerance)


def ratio_verdict(test: PairedTest, budget: Budget, alpha: float, resolution: float) -> Ruled:
    """Whether the blocks prove the budget broken, or held within the resolution, or neither."""
    limit, boundary = math.log(1 / alpha), slowest_allowed(budget)
    if test.evidence_below(boundary) >= limit:
        return "fail"
    if test.evidence_above(boundary - math.log1p(resolution)) >= limit:
        return "pass"
    return "inconclusive"
