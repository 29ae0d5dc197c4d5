"""The plan of a pruning: groups, their loss curves, the widths that they keep."""

from __future__ import annotations

import collections
import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.context import Context
from trimtab.core.errors import OptionError, unknown
from trimtab.core.model import Model

from ...graph.weights import label as node_label
from ..dependency.groups import Group, Labels
from .budget import Budget, Curve, Layer, layers, macs_of, uniform, widths
from .data_importance import least_squares, mean_output
from .importance import by_group, fpgm, l1, l2, random_scores, weight_scores
from .residual_branches import additions, branch_readers
from .weight_repair import Feeds

if TYPE_CHECKING:
    from ..channels import PruneChannels


@dataclass(frozen=True)
class Aim:
    """What a user asks for: the share of channels that goes, or the share of cost that stays."""

    kind: Literal["ratio", "macs", "latency", "widths"]
    share: float


@dataclass(frozen=True, eq=False)
class Plan:
    """What goes.

    Attributes:
        groups: the groups that were considered.
        kept: for each, how many classes stay.
        dead: the classes that go; of a group that goes altogether all but one.
        emptied: the readers of groups that go altogether.
        predicted: share of the latency that the table says will stay, None where none was made.
    """

    groups: list[Group]
    kept: NDArray[np.int64]
    dead: list[int]
    emptied: list[ir.Node] = field(default_factory=list)
    predicted: float | None = None


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


def choose(
    model: Model,
    labels: Labels,
    groups: list[Group],
    options: PruneChannels,
    batches: list[Feeds] | None,
    ctx: Context,
) -> Plan:
    """Which channels go.

    Raises:
        OptionError: a cost that no widths reach; the least one is told.
    """
    curves = loss_curves(model, labels, groups, options, batches, ctx)
    int8 = options.precision == "int8"
    prefer = ctx.target.int8_block // 2 if int8 else ctx.target.float_block
    steps = [widths(len(g.classes), g.width, options.block, prefer) for g in groups]
    steps = _limited(groups, steps, options)
    readers = branch_readers(labels, groups) if options.branches else {}
    steps = [[0, *s] if number in readers else s for number, s in enumerate(steps)]
    aim, predicted = options.aim, None
    if aim.kind == "widths":
        kept = _as_told(groups, options.widths or {}, readers)
    elif aim.kind == "ratio":
        kept = _by_ratio(groups, curves, steps, aim.share, options.scope)
    else:
        cost_of, found = macs_of(labels), layers(labels, groups)
        if aim.kind == "latency":
            from .latency_table import some, table, with_additions

            steps = [some(s) for s in steps]  # what is measured, since a staircase has no between
            cost_of = table(labels, groups, steps, ctx, options.cache, int8=int8)
            if int8:  # a float sum is made within the convolution before it
                sums = additions(labels, found, readers)
                cost_of, found = with_additions(cost_of, labels, sums, ctx), [*found, *sums]
        budget = Budget(groups, curves, steps, found, cost_of)
        if aim.kind == "latency":
            budget.fixed = max(0.0, options.whole_ns(model, ctx) - budget.cost)
        if aim.kind == "macs" and options.scope == "local":
            _spend_evenly(budget, aim, groups, steps)
        else:
            predicted = _spend(budget, aim)
        predicted = predicted if aim.kind == "latency" else None
        kept = budget.kept
    dead = [
        int(c)
        for curve, count in zip(curves, kept, strict=True)
        for c in curve.order[: len(curve.order) - max(int(count), 1)]
    ]
    emptied = [node for number, node in readers.items() if kept[number] == 0]
    return Plan(groups, kept, dead, emptied, predicted)


#: Curves found last, by what they depend on: one model is often pruned to several strengths.
_KNOWN: dict[tuple[Any, ...], list[Curve]] = {}
_KEPT = 4


def _limited(
    groups: list[Group], steps: list[list[int]], options: PruneChannels
) -> list[list[int]]:
    """Without the widths at which a group alone would cost more quality than it may."""
    if not options.sensitivity:
        return steps
    from .sensitivity import Sensitivity

    found = Sensitivity.read(options.sensitivity)
    least = [len(g.classes) * (1 - found.limit(g.name, options.group_drop)) for g in groups]
    return [[w for w in s if w >= low] for s, low in zip(steps, least, strict=True)]


def loss_curves(
    model: Model,
    labels: Labels,
    groups: list[Group],
    options: PruneChannels,
    batches: list[Feeds] | None,
    ctx: Context,
) -> list[Curve]:
    """A curve for each group, found once for the same model, data and criterion."""
    criterion = options.criterion(batches)
    if callable(criterion):
        return _new_curves(model, labels, groups, options, batches, ctx)
    data = options.data or ctx.data
    own = (options.samples, options.protect, options.heads, ctx.seed)
    key = (model.digest, criterion, data.digest if data is not None and batches else None, *own)
    if key not in _KNOWN:
        _KNOWN[key] = _new_curves(model, labels, groups, options, batches, ctx)
        while len(_KNOWN) > _KEPT:
            _KNOWN.pop(next(iter(_KNOWN)))
    return _KNOWN[key]


def _new_curves(
    model: Model,
    labels: Labels,
    groups: list[Group],
    options: PruneChannels,
    batches: list[Feeds] | None,
    ctx: Context,
) -> list[Curve]:
    """What each group loses with its first 0, 1, ... channels, by the importance that is asked."""
    criterion = options.criterion(batches)
    if criterion == "least_squares":
        return least_squares(model, labels, groups, batches or [], ctx)
    if criterion == "mean_output":
        scores = mean_output(model, labels, batches or [], ctx)
    elif criterion == "taylor":
        scores = _taylor(model, labels, options, ctx)
    elif criterion == "random":
        scores = random_scores(labels, ctx.seed)
    elif callable(criterion):
        scores = _own_scores(criterion, labels)
    else:
        scores = weight_scores(labels, {"l1": l1, "l2": l2, "fpgm": fpgm}[criterion])
    scores = by_group(labels, scores)
    return [Curve.of_scores(g, scores) for g in groups]


def _taylor(
    model: Model, labels: Labels, options: PruneChannels, ctx: Context
) -> NDArray[np.float64]:
    from .taylor import ROWS, taylor

    data = ctx.dataset(options.data, model, purpose="importance taylor").take(options.samples)
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


def _named(groups: Sequence[Group]) -> list[str]:
    """A name for each group; an operator that makes several numbers them."""
    seen: collections.Counter[str] = collections.Counter()
    names = []
    for group in groups:
        seen[group.name] += 1
        number = seen[group.name]
        names.append(group.name if number == 1 else f"{group.name}#{number}")
    return names


def widths_of(plan: Plan) -> dict[str, int]:
    """How many channels each group that loses some keeps."""
    pairs = zip(_named(plan.groups), plan.groups, plan.kept, strict=True)
    return {
        name: int(count) * group.width for name, group, count in pairs if count < len(group.classes)
    }


def _as_told(
    groups: list[Group], wanted: Mapping[str, int], readers: Mapping[int, ir.Node]
) -> NDArray[np.int64]:
    """Classes that each group keeps, by name.

    Raises:
        OptionError: no such group, or a number of channels that it cannot keep.
    """
    names = _named(groups)
    for name in wanted:
        if name not in names:
            raise unknown("group of channels", name, names, where="prune-channels, widths")
    kept = []
    for number, (name, group) in enumerate(zip(names, groups, strict=True)):
        full = len(group.classes) * group.width
        channels = wanted.get(name, full)
        least = 0 if number in readers else group.width
        if channels % group.width or not least <= channels <= full:
            raise OptionError(
                f"{name} cannot keep {channels} of its {full} channels",
                where="prune-channels, widths",
                hint=f"Name a multiple of {group.width} from {least} to {full}",
            )
        kept.append(channels // group.width)
    return np.array(kept, np.int64)


def _by_ratio(
    groups: list[Group],
    curves: list[Curve],
    steps: list[list[int]],
    ratio: float,
    scope: str,
) -> NDArray[np.int64]:
    if scope == "local":
        return uniform(groups, steps, ratio)
    own = [Layer(number, (0,), ({number: g.width},)) for number, g in enumerate(groups)]
    budget = Budget(groups, curves, steps, own, _length)
    budget.descend(budget.cost * (1 - ratio))
    return budget.kept


def _length(_: int, lengths: tuple[int, ...]) -> float:
    """The cost that counts channels."""
    return float(lengths[0])


def _spend(budget: Budget, aim: Aim) -> float:
    """Descend to the share of the cost that is asked; the share that it becomes."""
    whole = budget.cost
    budget.descend(aim.share * whole)
    reached = budget.cost / whole
    # Told by the way down, not by the least widths: on a staircase narrower may be slower.
    if reached > aim.share * (1 + 1e-9):
        raise OptionError(
            f"{aim.kind}={aim.share:g} is below what any widths reach",
            where="prune-channels",
            hint=f"The least is {reached:.3f}; a smaller block may reach less",
        )
    return reached


def _spend_evenly(budget: Budget, aim: Aim, groups: list[Group], steps: list[list[int]]) -> None:
    """The least ratio, the same for all groups, whose cost is at most what is asked."""
    whole = budget.cost
    for ratio in np.linspace(0, 1, 201):
        budget.kept = uniform(groups, steps, float(ratio))
        if budget.cost <= aim.share * whole:
            return
