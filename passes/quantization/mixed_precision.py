"""Mixed precision: the layers that stay float so that a metric falls by no more than a given drop.

Each layer is quantized alone, all others float, with one set of ranges; the change of the outputs
ranks the layers. Where fidelity decides they are ranked in groups (`group_ranking`) by what they
cost for the time that int8 saves there, and layers that int8 makes slower stay float. Bisection
then finds the shortest prefix of the ranking that has to stay float, and single layers return to
int8, more and more at once, where the metric allows it. Where whole units lose too much, layers
are tried without the element-wise operators behind them.
So a network of n layers costs n cheap comparisons at most, and about log2(n) + 6 evaluations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from trimtab.core.batches import fitting
from trimtab.core.context import Context
from trimtab.core.data import Floats
from trimtab.core.dataset import Dataset
from trimtab.core.errors import PassError
from trimtab.core.metric import Metric, evaluate, find_limited, fitted, joint_loss
from trimtab.core.metrics.fidelity import FIDELITY
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig
from trimtab.core.runner import Remembering
from trimtab.core.target import usable_cpus

from .float_node_search import FloatNodeSearch, Write
from .group_ranking import Ranked, rank_groups
from .hold_out import judging_batches
from .judge import Judge
from .layer_costs import rank_by_cost, saved_alone
from .output_error import float_outputs
from .unit_gains import (
    Gain,
    gains_by_arithmetic,
    gains_by_clock,
    units_of,
    without_tails,
    worth_it,
)

#: Held-out samples that rank the layers; the metric sees all of them.
RANKING_SAMPLES = 64
#: Held-out samples that rank groups of layers.
GROUP_SAMPLES = 16
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
        slower: those of the float nodes that int8 makes slower.
        nodes: number of nodes that could have been in int8.
    """

    float_nodes: list[str]
    ranking: list[tuple[str, float]]
    metric: str
    drop: float
    curve: list[dict[str, Any]]
    slower: list[str]
    nodes: int

    def to_json(self) -> dict[str, Any]:
        """Return the choice as JSON values."""
        return {
            "metric": self.metric,
            "drop": round(self.drop, 6),
            "float": list(self.float_nodes),
            "slower": list(self.slower),
            "nodes": self.nodes,
            "curve": self.curve,
            "ranking": [[name, float(f"{sensitivity:.4g}")] for name, sensitivity in self.ranking],
        }


def choose_float_nodes(
    model: Model,
    nodes: Sequence[str],
    samples: tuple[Dataset, Dataset],
    max_drop: float | dict[str, float],
    ctx: Context,
    metric: str,
    *,
    write: Write,
    closest: bool = False,
    by_clock: bool = True,
) -> MixedPrecision:
    """Choose the nodes of a prepared model that have to stay float.

    Args:
        model: the float model.
        nodes: names of those that may be quantized.
        samples: those that ranges were made from, and others that were held out.
        max_drop: how much the metric may fall, in its own unit; of several metrics by name.
        ctx: for progress, and for the clock where there is one.
        metric: a metric's name; if empty, top-1 where samples have labels, else fidelity to float.
        write: builds the quantized model, without a new calibration.
        closest: choose the least drop where `max_drop` cannot be held.
        by_clock: time what layers gain, where the context has a clock.

    Raises:
        PassError: the metric falls by more even where only the last layer is int8, or with
            `closest` int8 makes every layer slower.
    """
    used, held_out = samples
    chosen, limit = find_limited(max_drop, metric or None, held_out)
    held_out = fitting(model, held_out)
    slower, gains, alone = list[str](), list[Gain](), list[Gain]()
    if chosen is FIDELITY and ctx.runner is None:
        judge = _judge(model, used, held_out, ctx)
        layers = _Layers(model, nodes, write, ctx)
        row = fitting(model, held_out, rows=1)
        all_gains = layers.gains(row if by_clock else None, none_fails=closest)
        slower = [name for unit, gain in all_gains for name in unit if gain <= 0]
        gains = [pair for pair in all_gains if pair[1] > 0]
        alone = without_tails(model.graph, gains) if closest else []
        rank = partial(layers.ranked, gains, judge)
        drop_of = _drop_by(judge)
    else:
        runner = Remembering(model, ctx.runner)
        chosen = fitted(chosen, model, held_out, runner=runner)
        rank = partial(_rank_layers, model, nodes, write, held_out, chosen, ctx)
        drop_of = _drop_of(model, held_out, chosen, limit, dataclasses.replace(ctx, runner=runner))
    search = FloatNodeSearch(model, write, _names(chosen), limit, drop_of, closest)
    search.take(slower, gains if ctx.clock else [])
    float_nodes = search.choose(rank)
    if float_nodes is None and alone != gains:
        kept = {name for unit, _ in alone for name in unit}
        tails = [name for unit, _ in gains for name in unit if name not in kept]
        search.take([*slower, *tails], alone if ctx.clock else [])
        ranked = [[pair for pair in unit if pair[0] in kept] for unit in search.units]
        float_nodes = search.choose(lambda: [unit for unit in ranked if unit])
    float_nodes = search.closest_to_float(nodes) if float_nodes is None else float_nodes
    drop = search.drops[frozenset(float_nodes)]
    ranking = [pair for unit in search.units for pair in unit]
    return MixedPrecision(
        float_nodes, ranking, _names(chosen), drop, search.curve, slower, len(nodes)
    )


def _judge(model: Model, used: Dataset, held_out: Dataset, ctx: Context) -> Judge:
    kept, also = judging_batches(model, used, held_out)
    return Judge(model, kept, ctx.target, also=also)


def _names(metric: Metric) -> str:
    return ", ".join(m.title for m in (metric, *metric.others))


def _drop_by(judge: Judge) -> Callable[[Model], float]:
    """Return the function from a candidate to the part of the answers that it loses."""
    return lambda candidate: 1 - judge.of(candidate).kept


def _drop_of(
    model: Model, held_out: Dataset, metric: Metric, limit: float, ctx: Context
) -> Callable[[Model], float]:
    """Return the function from a candidate to the fall of the metric nearest to its limit."""
    config = SessionConfig.for_evaluation(ctx.target, threads=usable_cpus())
    quality = partial(
        evaluate, data=held_out, metric=metric, reference=model, config=config, runner=ctx.runner
    )
    base = quality(model)
    return lambda candidate: joint_loss(quality(candidate), base, limit)


@dataclass(frozen=True)
class _Layers:
    """Units of nodes that may be quantized: what they gain in int8, and what they cost alone."""

    model: Model
    nodes: Sequence[str]
    write: Write
    ctx: Context

    def gains(self, row: Dataset | None, *, none_fails: bool) -> list[Gain]:
        """Return each unit and what it gains: time where there is a row and a clock, or arithmetic.

        Raises:
            PassError: nothing gains time, with `none_fails`; arithmetic decides without.
        """
        graph = self.model.graph
        units = units_of(graph, self.nodes)
        gains = gains_by_arithmetic(graph, units)
        if self.ctx.clock is not None and row is not None:
            timed = gains_by_clock(
                graph, units, partial(saved_alone, self.model, self._alone, row, self.ctx)
            )
            if worth_it(timed):
                gains = timed
            elif none_fails:
                raise PassError("int8 makes no layer clearly faster", where=self.model.name)
        return list(zip(units, gains, strict=True))

    def ranked(self, gains: Sequence[Gain], judge: Judge) -> list[list[Ranked]]:
        """Rank units by the answers that they cost alone, for what int8 gains there."""
        rows, batches = 0, 0
        for batch in judge.batches:
            if rows >= GROUP_SAMPLES:
                break
            rows, batches = rows + batch.size, batches + 1

        def cost_alone(names: Sequence[str]) -> float:
            return judge.of(self._alone(names), batches).shortfall(1.0)

        return rank_groups(gains, cost_alone, self.ctx.progress)

    def _alone(self, names: Sequence[str]) -> Model:
        """Return the model in which these nodes alone are in int8."""
        alone = set(names)
        others = [node for node in self.nodes if node not in alone]
        return dataclasses.replace(self.model, ir=self.write(others))


def _rank_layers(
    model: Model,
    nodes: Sequence[str],
    write: Write,
    held_out: Dataset,
    metric: Metric,
    ctx: Context,
) -> list[list[Ranked]]:
    """Rank nodes by sensitivity, per nanosecond that int8 saves where there is a clock."""
    few = fitting(model, held_out.take(RANKING_SAMPLES))
    expected = float_outputs(model, few, ctx.target)
    distances = _divergences if metric.name in _CLASSES else _cosine_distances
    ranking: list[Ranked] = []
    for node in ctx.progress.track(nodes, "ranking layers", len(nodes)):
        others = [n for n in nodes if n != node]
        got = float_outputs(dataclasses.replace(model, ir=write(others)), few, ctx.target)
        values = [d for batch in zip(expected, got, strict=True) for d in distances(*batch)]
        ranking.append((node, float(np.mean(values)) if values else 0.0))
    ranking.sort(key=lambda pair: -pair[1])  # which keeps the graph's order among equals
    ranking = ranking if ctx.clock is None else rank_by_cost(model, ranking, write, few, ctx)
    return [[pair] for pair in ranking]


def _cosine_distances(expected: Sequence[Floats], got: Sequence[Floats]) -> list[float]:
    """Return one minus the cosine of each sample's outputs."""
    values: list[float] = []
    for pair in zip(expected, got, strict=True):
        a, b = map(_rows, pair)
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        values += (1 - (a * b).sum(axis=1) / np.maximum(norms, 1e-12)).tolist()
    return values


def _divergences(expected: Sequence[Floats], got: Sequence[Floats]) -> list[float]:
    """Return the Kullback-Leibler divergence of the softmax of each sample's first output.

    A model that gives class numbers alone has none: its layers stay in their order.
    """
    if not expected:
        return []
    p, q = _log_softmax(_rows(expected[0])), _log_softmax(_rows(got[0]))
    return list((np.exp(p) * (p - q)).sum(axis=1))


def _rows(array: Floats) -> Floats:
    """Return an output as rows of one sample."""
    return array.reshape(len(array), -1)


def _log_softmax(logits: Floats) -> Floats:
    shifted: Floats = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
