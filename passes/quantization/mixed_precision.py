"""Mixed precision: the layers that stay float so that a metric falls by no more than a given drop.

Each layer is quantized alone, all others float, with one set of ranges; the change of the outputs
ranks the layers. Bisection then finds the shortest prefix of the ranking that has to stay float,
and single layers return to int8, more and more at once, where the metric allows it.
So a network of n layers costs n cheap comparisons and about log2(n) + `STEPS_BACK` evaluations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir

from trimtab.core.batches import fitting
from trimtab.core.context import Context
from trimtab.core.data import Floats
from trimtab.core.dataset import Dataset
from trimtab.core.errors import PassError
from trimtab.core.metric import Metric, Quality, evaluate, find_metric, fitted
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig
from trimtab.core.target import usable_cpus

from .layer_costs import rank_by_cost
from .output_error import float_outputs

#: Builds the model in which these nodes, and those the user excluded, stay float.
Write = Callable[[Sequence[str]], ir.Model]

#: Held-out samples that rank the layers; the metric sees all of them.
RANKING_SAMPLES = 64
#: Evaluations spent on returning single layers to int8.
STEPS_BACK = 6
#: Classification metrics: their layers are ranked by divergence.
_CLASSES = frozenset({"top1", "top5", "agreement"})


@dataclass(frozen=True)
class MixedPrecision:
    """The float nodes that were chosen, and how the metric changed on the way.

    Attributes:
        float_nodes: nodes that stay float, in the order of the ranking.
        ranking: every node and its sensitivity, the most sensitive first.
        curve: for each evaluation the number of float nodes and the drop.
        drop: of the metric with this choice.
        metric: name of the metric.
    """

    float_nodes: list[str]
    ranking: list[tuple[str, float]]
    metric: str
    drop: float
    curve: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Return the choice as JSON values."""
        return {
            "metric": self.metric,
            "drop": round(self.drop, 6),
            "float": list(self.float_nodes),
            "curve": self.curve,
            "ranking": [[name, float(f"{sensitivity:.4g}")] for name, sensitivity in self.ranking],
        }


def choose_float_nodes(
    model: Model,
    nodes: Sequence[str],
    held_out: Dataset,
    max_drop: float,
    ctx: Context,
    metric: str,
    *,
    write: Write,
) -> MixedPrecision:
    """Choose the nodes of a prepared model that have to stay float.

    Args:
        model: the float model.
        nodes: names of those that may be quantized.
        held_out: samples that no range was made from.
        max_drop: how much the metric may fall, in its own unit.
        ctx: for progress, and for the clock where there is one.
        metric: a metric's name; if empty, top-1 where samples have labels, else fidelity to float.
        write: builds the quantized model, without a new calibration.

    Raises:
        PassError: the metric falls by more even where only the last layer is int8.
    """
    chosen = find_metric(metric or None, held_out)
    held_out = fitting(model, held_out)
    chosen = fitted(chosen, model, held_out, runner=ctx.runner)
    ranking = _rank_layers(model, nodes, write, held_out, chosen, ctx)
    config = SessionConfig.for_evaluation(ctx.target, threads=usable_cpus())
    evaluator = partial(evaluate, config=config, runner=ctx.runner)
    search = _FloatNodeSearch(model, write, held_out, chosen, max_drop, evaluator)
    order = [node for node, _ in ranking]
    float_nodes = search.return_to_int8(order[: search.smallest_prefix(order)])
    drop = search.drops[frozenset(float_nodes)]
    return MixedPrecision(float_nodes, ranking, chosen.name, drop, search.curve)


@dataclass
class _FloatNodeSearch:
    """Evaluations of the metric, at most one for each set of float nodes."""

    model: Model
    write: Write
    held_out: Dataset
    metric: Metric
    max_drop: float
    evaluator: Callable[..., Quality]
    curve: list[dict[str, Any]] = field(default_factory=list)
    drops: dict[frozenset[str], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.base = self._quality(self.model)

    def _quality(self, candidate: Model) -> Quality:
        return self.evaluator(candidate, self.held_out, self.metric, reference=self.model)

    def allows(self, float_nodes: Sequence[str]) -> bool:
        """Return whether the metric stays within the drop with these nodes float."""
        key = frozenset(float_nodes)
        if key not in self.drops:
            candidate = dataclasses.replace(self.model, ir=self.write(float_nodes))
            self.drops[key] = self._quality(candidate).drop_from(self.base)[0]
            self.curve.append({"float": len(key), "drop": round(self.drops[key], 6)})
        return self.drops[key] <= self.max_drop

    def smallest_prefix(self, order: Sequence[str]) -> int:
        """Return how many of the most sensitive nodes have to stay float."""
        if self.allows([]):
            return 0
        low, high = 0, len(order) - 1  # low does not suffice
        if high < 1 or not self.allows(order[:high]):
            least = min(self.drops.values())
            raise PassError(
                f"{self.metric.name} falls by at least {least:.4f} with anything in int8, "
                f"{self.max_drop:g} is allowed",
                where=f"{self.model.name}, max_drop={self.max_drop:g}",
                hint="Allow a larger drop, or quantize the weights alone (quantize-weights)",
            )
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.allows(order[:middle]) else (middle, high)
        return high

    def return_to_int8(self, float_nodes: Sequence[str]) -> list[str]:
        """Return the nodes that still have to stay float; the least sensitive are tried first."""
        kept = list(float_nodes)
        # The bisection has just shown that the last one is needed.
        waiting, size = kept[-2::-1], 1
        for _ in range(STEPS_BACK):
            back = set(waiting[:size])
            if not back:
                break
            fewer = [node for node in kept if node not in back]
            if self.allows(fewer):
                kept, waiting, size = fewer, waiting[size:], 2 * size
            elif size > 1:
                size //= 2
            else:
                waiting = waiting[1:]
        return kept


def _rank_layers(
    model: Model,
    nodes: Sequence[str],
    write: Write,
    held_out: Dataset,
    metric: Metric,
    ctx: Context,
) -> list[tuple[str, float]]:
    """Rank nodes by sensitivity, per nanosecond that int8 saves where there is a clock."""
    few = fitting(model, held_out.take(RANKING_SAMPLES))
    expected = float_outputs(model, few, ctx.target)
    distances = _divergences if metric.name in _CLASSES else _cosine_distances
    ranking: list[tuple[str, float]] = []
    for node in ctx.progress.track(nodes, "ranking layers", len(nodes)):
        others = [n for n in nodes if n != node]
        got = float_outputs(dataclasses.replace(model, ir=write(others)), few, ctx.target)
        values = [d for batch in zip(expected, got, strict=True) for d in distances(*batch)]
        ranking.append((node, float(np.mean(values)) if values else 0.0))
    ranking.sort(key=lambda pair: -pair[1])  # which keeps the graph's order among equals
    return ranking if ctx.clock is None else rank_by_cost(model, ranking, write, few, ctx)


def _cosine_distances(expected: Sequence[Floats], got: Sequence[Floats]) -> list[float]:
    """Return one minus the cosine of each sample's outputs."""
    values: list[float] = []
    for pair in zip(expected, got, strict=True):
        a, b = map(_rows, pair)
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        values += (1 - (a * b).sum(axis=1) / np.maximum(norms, 1e-12)).tolist()
    return values


def _divergences(expected: Sequence[Floats], got: Sequence[Floats]) -> list[float]:
    """Return the Kullback-Leibler divergence of the softmax of each sample's first output."""
    p, q = _log_softmax(_rows(expected[0])), _log_softmax(_rows(got[0]))
    return list((np.exp(p) * (p - q)).sum(axis=1))


def _rows(array: Floats) -> Floats:
    """Return an output as rows of one sample."""
    return array.reshape(len(array), -1)


def _log_softmax(logits: Floats) -> Floats:
    shifted: Floats = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
