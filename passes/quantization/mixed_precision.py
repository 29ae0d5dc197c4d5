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
    if chosen is FIDELITY and ctx.runner is None:
        layers = _Layers(model, nodes, write, _judge(model, used, held_out, ctx), ctx)
        row = fitting(model, held_out, rows=1) if by_clock and ctx.clock is not None else None
        search = FloatNodeSearch(model, write, _names(chosen), limit, layers.drop_of, closest)
        slower, float_nodes = layers.choose(search, row)
    else:
        runner = Remembering(model, ctx.runner)
        chosen = fitted(chosen, model, held_out, runner=runner)
        drop_of = _drop_of(model, held_out, chosen, limit, dataclasses.replace(ctx, runner=runner))
        search = FloatNodeSearch(model, write, _names(chosen), limit, drop_of, closest)
        rank = partial(_rank_layers, model, nodes, write, held_out, chosen, ctx)
        slower, float_nodes = [], search.choose(rank)
    if float_nodes is None:
        float_nodes = search.closest_to_float(nodes)
    return MixedPrecision(
        float_nodes,
        [pair for unit in search.units for pair in unit],
        _names(chosen),
        search.drops[frozenset(float_nodes)],
        search.curve,
        slower,
        len(nodes),
    )


def _judge(model: Model, used: Dataset, held_out: Dataset, ctx: Context) -> Judge:
    kept, also = judging_batches(model, used, held_out)
    return Judge(model, kept, ctx.target, also=also)


def _names(metric: Metric) -> str:
    return ", ".join(m.title for m in (metric, *metric.others))


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
    judge: Judge
    ctx: Context

    def drop_of(self, candidate: Model) -> float:
        """Return the part of the float model's answers that a candidate loses."""
        return 1 - self.judge.of(candidate).kept

    def choose(
        self, search: FloatNodeSearch, row: Dataset | None
    ) -> tuple[list[str], list[str] | None]:
        """Return the nodes that int8 makes slower, of which a row tells, and all that stay float.

        Raises:
            PassError: int8 makes no layer faster, where the closest to float is wanted.
        """
        units = units_of(self.model.graph, self.nodes)
        timed = None if row is None else self._timed(units, row)
        if timed is None and row is not None and search.closest:
            raise PassError("int8 makes no layer clearly faster", where=self.model.name)
        each = gains_by_arithmetic(self.model.graph, units) if timed is None else timed
        gains = list(zip(units, each, strict=True))
        slower = [name for unit, gain in gains for name in unit if gain <= 0]
        gains = [pair for pair in gains if pair[1] > 0]
        search.take(slower, gains if timed else ())
        float_nodes = search.choose(partial(self._ranked, gains))
        layers = without_tails(self.model.graph, gains)
        if float_nodes is None and search.closest and layers != gains:
            kept = {name for unit, _ in layers for name in unit}
            tails = [name for unit, _ in gains for name in unit if name not in kept]
            ranked = [[pair for pair in unit if pair[0] in kept] for unit in search.units]
            search.take([*slower, *tails], layers if timed else ())
            float_nodes = search.choose(lambda: [unit for unit in ranked if unit])
        return slower, float_nodes

    def _timed(self, units: Sequence[Sequence[str]], row: Dataset) -> list[float] | None:
        """Return the part of the time that each unit saves; None where no search is worth it."""
        saved = partial(saved_alone, self.model, self._alone, row, self.ctx)
        gains = gains_by_clock(self.model.graph, units, saved)
        return gains if worth_it(gains) else None

    def _ranked(self, gains: Sequence[Gain]) -> list[list[Ranked]]:
        """Rank units by the answers that they cost alone, for what int8 gains there."""
        judge = self.judge
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
