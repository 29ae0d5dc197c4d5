"""The order in which the channels of each group go, and what is lost with them."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError, unknown
from trimtab.core.memo import MemoKind
from trimtab.core.model import Model

from ...graph.weights import label as node_label
from ..dependency.groups import Group, Labels
from .budget import Curve
from .data_importance import least_squares, mean_output
from .importance import by_group, fpgm, l1, l2, random_scores, weight_scores
from .taylor import ROWS, taylor
from .weight_repair import Feeds

Criterion = Literal["auto", "l1", "l2", "fpgm", "mean_output", "least_squares", "taylor", "random"]
Importance = Criterion | Callable[..., Any]
#: Curves found last: one model is often pruned to several strengths.
CURVES: MemoKind[list[Curve]] = MemoKind("loss curves", 4)


@dataclass(frozen=True, eq=False)
class ImportanceRequest:
    """How channels are ranked.

    Attributes:
        criterion: by which channels are scored, or a callable that scores them.
        samples: how many samples of the data are used.
        protect: operators whose outputs keep all channels, as patterns of their names.
        heads: where an axis splits, whether whole heads go or all become narrower.
        data: calibration data; the context's where None.
    """

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


def usable_groups(labels: Labels, protect: Sequence[str]) -> list[Group]:
    """Groups with more than one channel that no pattern protects.

    Raises:
        OptionError: a pattern that matches no operator with channels.
    """
    makers: dict[str, set[int]] = {}
    for sink in labels.weights:
        for axis, classes in labels.axes_of(sink):
            if axis != sink.into:
                makers.setdefault(node_label(sink.node), set()).update(map(int, classes))
    kept: set[int] = set()
    for pattern in protect:
        names = [n for n in makers if fnmatch.fnmatchcase(n, pattern)]
        if not names:
            raise unknown("operator", pattern, makers, where="prune-channels, protect")
        kept.update(*(makers[n] for n in names))
    groups = [g for g in labels.groups if not kept.intersection(map(int, g.classes))]
    return [g for g in groups if len(g.classes) > 1]


def loss_curves(
    model: Model,
    labels: Labels,
    groups: list[Group],
    request: ImportanceRequest,
    batches: list[Feeds] | None,
    ctx: Context,
) -> list[Curve]:
    """A curve for each group, found once for the same model, data and criterion."""
    criterion = request.resolved(batches)
    if callable(criterion):
        return _new_curves(model, labels, groups, request, batches, ctx)
    data = request.data or ctx.data
    own = (request.samples, request.protect, request.heads, ctx.seed)
    key = (model.digest, criterion, data.digest if data is not None and batches else None, *own)
    found = ctx.memo.get(CURVES, key)
    if found is None:
        found = _new_curves(model, labels, groups, request, batches, ctx)
        ctx.memo.put(CURVES, key, found)
    return found


def _new_curves(
    model: Model,
    labels: Labels,
    groups: list[Group],
    request: ImportanceRequest,
    batches: list[Feeds] | None,
    ctx: Context,
) -> list[Curve]:
    """What each group loses with its first 0, 1, ... channels, by the importance that is asked."""
    criterion = request.resolved(batches)
    if criterion == "least_squares":
        return least_squares(model, labels, groups, batches or [], ctx)
    if criterion == "mean_output":
        scores = mean_output(model, labels, batches or [], ctx)
    elif criterion == "taylor":
        scores = _taylor(model, labels, request, ctx)
    elif criterion == "random":
        scores = random_scores(labels, ctx.seed)
    elif callable(criterion):
        scores = _own_scores(criterion, labels)
    else:
        scores = weight_scores(labels, {"l1": l1, "l2": l2, "fpgm": fpgm}[criterion])
    scores = by_group(labels, scores)
    return [Curve.of_scores(g, scores) for g in groups]


def _taylor(
    model: Model, labels: Labels, request: ImportanceRequest, ctx: Context
) -> NDArray[np.float64]:
    data = ctx.dataset(request.data, model, purpose="importance taylor").take(request.samples)
    fixed = [s.shape[0] for s in model.inputs if s.shape and isinstance(s.shape[0], int)]
    return taylor(model, labels, data.sized(fixed[0] if fixed else ROWS), ctx)


def _own_scores(criterion: Callable[..., Any], labels: Labels) -> NDArray[np.float64]:
    """Scores of a user's callable, checked."""
    scores = np.asarray(criterion(labels), np.float64)
    if scores.shape != (labels.count,) or not np.isfinite(scores).all() or (scores < 0).any():
        raise OptionError(
            f"an importance has to return {labels.count} finite scores of at least 0, one for each "
            f"class; it returned shape {scores.shape}",
            where="prune-channels, importance",
            hint="Labels.class_of gives the class of each label of labels.weights",
        )
    return scores
