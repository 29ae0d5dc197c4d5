"""A metric as a value, and the quality that it finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ..callables import is_callable_spec
from ..data import Array, Floats
from ..model import Model

#: Loss that rounding explains.
ROUNDING = 1e-12
#: (outputs by name, labels or the reference's outputs) -> one score, or one per item (N,)
Score = Callable[[Mapping[str, Array], Any], Any]
#: Half of a 95% interval in standard errors.
Z95 = 1.96
#: Number of changes that may be expected where none was seen: the 97.5% quantile of Gamma(1/2).
UNSEEN = 2.51
#: Distance of an interval's end from which it is told beside a value of three digits.
VISIBLE = 0.005


@dataclass(frozen=True)
class Metric:
    """A named measure of quality; higher is better unless it says otherwise.

    Attributes:
        name: name on the command line.
        score: called per batch for `itemwise` metrics, else once for all data.
        itemwise: true where the value is the mean of scores (N,) computed batch by batch.
        wants: second argument of `score`: labels, outputs of the reference, or either: labels
            where the data have them.
        needs: what the data have to hold, for the list of metrics.
        lower_is_better: true of error rates.
        finish: function from the scores of all batches to the value, for a metric that pools what
            `score` returns per batch instead of taking its mean.
        fit: function from the reference (or the model, where there is none), its outputs on some
            batches to the metric itself, for a metric that depends on what the outputs are.
        configure: function from options (`map:head=yolox`) to the metric that has them.
        spec: what the metric was asked for by, with its options; empty where that is its name.
        limit: largest loss that is allowed, where several metrics are limited together.
        others: further metrics with their limits, evaluated beside this one.
    """

    name: str
    score: Score
    itemwise: bool
    wants: Literal["labels", "reference", "either"] = "labels"
    needs: str = ""
    lower_is_better: bool = False
    finish: Callable[[Sequence[Any]], Pooled] | None = None
    fit: Callable[[Model, Sequence[Mapping[str, Array]]], Metric] | None = None
    configure: Callable[[Mapping[str, str]], Metric] | None = None
    spec: str = ""
    limit: float | None = None
    others: tuple[Metric, ...] = ()

    @property
    def text(self) -> str:
        """Text that finds the metric again: its name with its options, or `module:callable`."""
        return self.spec or self.name

    @property
    def title(self) -> str:
        """Name for people, with its options where there are any."""
        return self.name if is_callable_spec(self.spec) else self.text

    @property
    def by_batch(self) -> bool:
        """True where `score` is called with one batch after the other."""
        return self.itemwise or self.finish is not None


@dataclass(frozen=True)
class OutputQuality:
    """Value of one output of a model.

    Attributes:
        name: name of the output.
        kind: what the output is, in words.
        value: 0 to 1, 1 where the output is the reference's.
        loss: squared error relative to the output's size, which tells apart what decisions do not.
    """

    name: str
    kind: str
    value: float
    loss: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {"name": self.name, "kind": self.kind, "value": self.value, "loss": self.loss}


@dataclass(frozen=True, eq=False)
class Pooled:
    """Value of a metric that is a ratio of sums over items.

    Attributes:
        value: value over all items.
        items: (N,) each item's part, whose mean is the value and whose spread is its error; empty,
            as by default, where a value cannot be taken apart.
        outputs: value of each output, where outputs are judged one by one.
        unit: least that an item can lose, as one decision of those in it.
    """

    value: float
    items: Floats = field(default_factory=lambda: np.zeros(0))
    outputs: tuple[OutputQuality, ...] = ()
    unit: float = 1.0

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% interval of a value from 0 to 1; None of a single item.

        Items that are all alike show no spread. Of so few that none has lost a decision, 2.5 may
        have: the end of the posterior of a rate by Jeffreys' prior, Gamma(1/2).
        """
        error = _standard_error(self.items)
        if error is None:
            return None
        below = Z95 * error if error else UNSEEN * self.unit / len(self.items)
        return max(0.0, self.value - below), min(1.0, self.value + Z95 * error)


@dataclass(frozen=True)
class MetricDrop:
    """Loss of a metric against the original.

    Attributes:
        metric: name of the metric.
        drop: its loss, in its own unit.
        limit: largest loss that is allowed.
    """

    metric: str
    drop: float
    limit: float

    @property
    def broken(self) -> bool:
        """True where more is lost than allowed; sums differ in the last bits with their order."""
        return self.drop > self.limit + ROUNDING

    def in_units_of(self, limit: float) -> float:
        """Return the loss in the unit of another metric: both reach their limits at once."""
        return self.drop * max(limit, ROUNDING) / max(self.limit, ROUNDING)

    def __str__(self) -> str:
        return f"loses {self.drop:.4f} of {self.metric}, {self.limit:g} is allowed"


@dataclass(frozen=True, eq=False, repr=False)
class Quality:
    """Value of a metric for a model on a dataset.

    Attributes:
        metric: name of the metric.
        value: higher is better unless `lower_is_better`.
        items: scores (N,) where the metric has one per item, else None.
        count: number of evaluated items.
        outputs: value of each output, where outputs are judged one by one; the worst is the value.
        lower_is_better: true of error rates.
        limit: largest loss that is allowed, where several metrics are limited together.
        others: values of the further metrics.
        spec: what finds the metric again, where that is not its name.
        unit: least that an item can lose, as one decision; 0 where it may be anything.
    """

    metric: str
    value: float
    items: Array | None
    count: int
    outputs: tuple[OutputQuality, ...] = field(default=())
    lower_is_better: bool = False
    limit: float | None = None
    others: tuple[Quality, ...] = ()
    spec: str = ""
    unit: float = 0.0

    def __repr__(self) -> str:
        return f"<Quality {self.metric} {self.value:.4f} on {self.count} items>"

    @property
    def merit(self) -> float:
        """The value, negative where a lower one is better."""
        return -self.value if self.lower_is_better else self.value

    @property
    def standard_error(self) -> float | None:
        """Standard error of the value, None without scores per item."""
        return _standard_error(self.items)

    @property
    def half_interval(self) -> float | None:
        """Half of the value's 95% interval, None without scores per item."""
        return _half_interval(self.items, self.unit)

    @property
    def loss(self) -> float:
        """Mean loss of the outputs; 0 where outputs are not judged one by one."""
        return float(np.mean([output.loss for output in self.outputs])) if self.outputs else 0.0

    def drop_from(self, base: Quality) -> tuple[float, float | None]:
        """Return the loss against `base`, with its paired standard error or None."""
        return base.merit - self.merit, _standard_error(self._lost_items(base))

    def drop_text(self, base: Quality) -> str:
        """Return the loss against `base` with half of its paired 95% interval, as text."""
        half = _half_interval(self._lost_items(base), max(self.unit, base.unit))
        paired = "" if half is None else " (paired, 95%)"
        return f"drop {base.merit - self.merit:+.4f}{spread_text(half)}{paired}"

    def _lost_items(self, base: Quality) -> Array | None:
        if self.items is None or base.items is None or len(self.items) != len(base.items):
            return None
        return base.items - self.items

    def losses_from(self, base: Quality, limit: float) -> list[MetricDrop]:
        """Return the loss of this metric, of which `limit` is allowed, and of each further one."""
        pairs = [(self, base, limit)]
        pairs += [(a, b, a.limit or 0.0) for a, b in zip(self.others, base.others, strict=False)]
        return [MetricDrop(a.metric, a.drop_from(b)[0], allowed) for a, b, allowed in pairs]

    def to_json(self) -> dict[str, Any]:
        """Return value, standard error and count as JSON values."""
        plain: dict[str, Any] = {
            "metric": self.metric,
            "value": self.value,
            "standard_error": self.standard_error,
            "count": self.count,
        }
        if self.lower_is_better:
            plain["lower_is_better"] = True
        if self.outputs:
            plain["outputs"] = [output.to_json() for output in self.outputs]
        if self.others:
            plain["others"] = [{**q.to_json(), "limit": q.limit} for q in self.others]
        return plain


def spread_text(half: float | None) -> str:
    """Return ` ± 0.0040` of half of an interval; empty where that is unknown."""
    return "" if half is None else f" ± {half:.4f}"


def with_interval(value: float, interval: Sequence[float] | None) -> str:
    """Return `0.986 [0.930, 1.000]`; the value alone where its interval is unknown or narrow."""
    if interval is None or max(value - interval[0], interval[1] - value) < VISIBLE:
        return f"{value:.3f}"
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _standard_error(items: Array | None) -> float | None:
    if items is None or len(items) < 2:
        return None
    return float(np.std(items, ddof=1) / np.sqrt(len(items)))


def _half_interval(items: Array | None, unit: float) -> float | None:
    """Return half of a 95% interval of the mean; items that are all alike show no spread."""
    error = _standard_error(items)
    if error is None or items is None:
        return None
    return Z95 * error if error else min(UNSEEN * unit / len(items), 1.0)


def first_output(outputs: Mapping[str, Array]) -> Array:
    """Return the first output."""
    return next(iter(outputs.values()))


def ratio_items(kept: Floats, whole: Floats) -> Floats:
    """Return each item's part (N,) in the ratio of two sums, whose mean is that ratio.

    The linear approximation of a ratio's dependence on its items, by which its error is known.
    """
    if not whole.sum():
        return np.ones(len(whole))
    ratio = kept.sum() / whole.sum()
    return np.asarray(ratio + (kept - ratio * whole) / whole.mean())


def values_text(quality: Quality) -> str:
    """Return the value of each metric as text."""
    return ", ".join(f"{q.metric} {q.value:.4f}" for q in (quality, *quality.others))
