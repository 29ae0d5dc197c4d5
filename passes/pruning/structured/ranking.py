"""Order in which the channels of each group go, and the loss with each of them."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from trimtab.core.batches import fixed_rows
from trimtab.core.context import Context
from trimtab.core.data import Floats
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError, unknown
from trimtab.core.memo import MemoKind
from trimtab.core.model import Model
from trimtab.core.text import shape_text

from ..dependency.graph import DependencyGraph, Group
from .budget import LossCurve
from .data_importance import least_squares, mean_output
from .importance import fpgm, l1, l2, normalize_by_group, weight_scores
from .moments import Feeds
from .taylor import ROWS, taylor

Criterion = Literal["auto", "l1", "l2", "fpgm", "mean_output", "least_squares", "taylor", "random"]
Importance = Criterion | Callable[..., Any]
#: Curves found last: one model is often pruned to several strengths.
CURVES: MemoKind[list[LossCurve]] = MemoKind("loss curves", 4)


@dataclass(frozen=True, eq=False)
class ImportanceRequest:
    """Fields of `PruneChannels` that decide in which order channels go."""

    criterion: Importance
    samples: int
    protect: tuple[str, ...]
    heads: Literal["whole", "narrow"]
    data: Dataset | None

    def resolved(self, batches: list[Feeds] | None) -> Importance:
        """Return the criterion, with `auto` decided by whether there are data."""
        if self.criterion == "auto":
            return "least_squares" if batches else "l2"
        return self.criterion


def usable_groups(graph: DependencyGraph, protect: Sequence[str]) -> list[Group]:
    """Return the groups with more than one unit that no pattern protects.

    Raises:
        OptionError: a pattern matches no operator with channels.
    """
    producers: dict[str, set[int]] = {}
    for row in graph.weight_axes:
        if row.produces:
            producers.setdefault(row.label, set()).update(map(int, row.units))
    kept: set[int] = set()
    for pattern in protect:
        names = [n for n in producers if fnmatch.fnmatchcase(n, pattern)]
        if not names:
            raise unknown("operator", pattern, producers, where="prune-channels, protect")
        kept.update(*(producers[n] for n in names))
    groups = [g for g in graph.groups if not kept.intersection(map(int, g.units))]
    return [g for g in groups if len(g.units) > 1]


def loss_curves(
    model: Model,
    graph: DependencyGraph,
    groups: list[Group],
    request: ImportanceRequest,
    batches: list[Feeds] | None,
    ctx: Context,
) -> list[LossCurve]:
    """Return a curve for each group, computed once for the same model, data and criterion."""
    criterion = request.resolved(batches)
    if callable(criterion):
        return _curves(graph, groups, _own_scores(criterion, graph))
    data = request.data or ctx.data
    own = (request.samples, request.protect, request.heads, ctx.seed)
    key = (model.digest, criterion, data.digest if data is not None and batches else None, *own)
    found = ctx.memo.get(CURVES, key)
    if found is None and criterion == "least_squares":
        found = least_squares(model, graph, groups, batches or [], ctx)
    elif found is None:
        found = _curves(graph, groups, _scores(model, graph, criterion, request, batches, ctx))
    else:
        return found
    ctx.memo.put(CURVES, key, found)
    return found


def _curves(graph: DependencyGraph, groups: list[Group], scores: Floats) -> list[LossCurve]:
    scores = normalize_by_group(graph, scores)
    return [LossCurve.of_scores(g, scores) for g in groups]


def _scores(
    model: Model,
    graph: DependencyGraph,
    criterion: str,
    request: ImportanceRequest,
    batches: list[Feeds] | None,
    ctx: Context,
) -> Floats:
    """Return a score of each unit, (units,), by any other criterion."""
    if criterion == "mean_output":
        return mean_output(model, graph, batches or [], ctx)
    if criterion == "taylor":
        data = ctx.dataset(request.data, model, purpose="importance taylor").take(request.samples)
        return taylor(model, graph, data.sized(fixed_rows(model) or ROWS), ctx)
    if criterion == "random":  # the control that any criterion has to beat
        return np.random.default_rng(ctx.seed).random(graph.num_units)
    return weight_scores(graph, {"l1": l1, "l2": l2, "fpgm": fpgm}[criterion])


def _own_scores(criterion: Callable[..., Any], graph: DependencyGraph) -> Floats:
    """Return the scores of a user's callable, checked."""
    scores = np.asarray(criterion(graph), np.float64)
    if scores.shape != (graph.num_units,) or not np.isfinite(scores).all() or (scores < 0).any():
        raise OptionError(
            f"an importance has to return {graph.num_units} finite scores of at least 0, one for "
            f"each unit; it returned shape {shape_text(scores.shape)}",
            where="prune-channels, importance",
            hint="DependencyGraph.unit_of gives the unit of each channel id of its weights",
        )
    return scores
