"""Plan of a pruning: the widths that groups keep, and the units that go."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.context import Context
from trimtab.core.errors import OptionError, unknown
from trimtab.core.model import Model

from ..dependency.graph import DependencyGraph, Group
from .budget import (
    ChannelBudget,
    LossCurve,
    PrunableLayer,
    allowed_widths,
    mac_cost,
    prunable_layers,
    uniform_widths,
)
from .latency_table import evenly_spaced, latencies, latency_cost, with_additions
from .moments import Feeds
from .ranking import ImportanceRequest, loss_curves
from .residual_branches import branch_readers, residual_additions
from .sensitivity import Sensitivity


@dataclass(frozen=True)
class Goal:
    """Share of the channels to remove, or of the cost to keep."""

    kind: Literal["ratio", "macs", "latency", "widths"]
    share: float


@dataclass(frozen=True, eq=False)
class PruningRequest:
    """Fields of `PruneChannels` that decide how many channels each group keeps, and which."""

    goal: Goal
    ranking: ImportanceRequest
    widths: Mapping[str, int]
    precision: Literal["float", "int8"]
    scope: Literal["global", "local"]
    block: int | None
    branches: bool
    cache: str
    sensitivity: str
    group_drop: float


@dataclass(frozen=True, eq=False)
class PruningPlan:
    """Units of channels to remove.

    Attributes:
        groups: groups that could lose channels.
        kept: (groups,) number of units that stay.
        removed: units that go; all but one of a group that goes as a whole.
        removed_branches: the readers of groups that go as a whole.
        predicted: share of the latency that stays by the table, None without a table.
    """

    groups: list[Group]
    kept: NDArray[np.int64]
    removed: list[int]
    removed_branches: list[ir.Node] = field(default_factory=list)
    predicted: float | None = None


def choose(
    model: Model,
    graph: DependencyGraph,
    groups: list[Group],
    request: PruningRequest,
    batches: list[Feeds] | None,
    ctx: Context,
) -> PruningPlan:
    """Choose the channels that go from these groups.

    Raises:
        OptionError: no widths reach the cost; the message names the least one.
    """
    curves = loss_curves(model, graph, groups, request.ranking, batches, ctx)
    int8 = request.precision == "int8"
    prefer = ctx.target.int8_block // 2 if int8 else ctx.target.float_block
    choices = [allowed_widths(len(g.units), g.width, request.block, prefer) for g in groups]
    choices = _within_sensitivity(groups, choices, request)
    readers = branch_readers(graph, groups) if request.branches else {}
    choices = [[0, *s] if number in readers else s for number, s in enumerate(choices)]
    goal, predicted = request.goal, None
    if goal.kind == "widths":
        kept = _as_requested(groups, request.widths, readers)
    elif goal.kind == "ratio":
        kept = _by_ratio(groups, curves, choices, goal.share, request.scope)
    else:
        cost_of, found = mac_cost(graph), prunable_layers(graph, groups)
        if goal.kind == "latency":
            # Measured widths alone: a staircase cannot be interpolated.
            choices = [evenly_spaced(s) for s in choices]
            cost_of = latency_cost(graph, groups, choices, ctx, request.cache, int8=int8)
            if int8:  # a float sum is fused into the convolution before it
                sums = residual_additions(graph, found, readers)
                cost_of, found = with_additions(cost_of, graph, sums, ctx), [*found, *sums]
        budget = ChannelBudget(groups, curves, choices, found, cost_of)
        if goal.kind == "latency":
            (whole,) = latencies([model], ctx, int8=int8, data=request.ranking.data)
            budget.fixed = max(0.0, whole - budget.cost)
            predicted = _narrow(budget, goal)
        elif request.scope == "local":
            _narrow_evenly(budget, goal, groups, choices)
        else:
            _narrow(budget, goal)
        kept = budget.kept
    removed = [
        int(unit)
        for curve, count in zip(curves, kept, strict=True)
        for unit in curve.order[: len(curve.order) - max(int(count), 1)]
    ]
    removed_branches = [node for number, node in readers.items() if kept[number] == 0]
    return PruningPlan(groups, kept, removed, removed_branches, predicted)


def _within_sensitivity(
    groups: list[Group], choices: list[list[int]], request: PruningRequest
) -> list[list[int]]:
    """Leave out widths at which a group alone would cost more quality than it may."""
    if not request.sensitivity:
        return choices
    found = Sensitivity.read(request.sensitivity)
    least = [len(g.units) * (1 - found.limit(g.name, request.group_drop)) for g in groups]
    return [[w for w in s if w >= low] for s, low in zip(choices, least, strict=True)]


def _unique_names(groups: Sequence[Group]) -> list[str]:
    """Return a name for each group; several groups of one operator are numbered."""
    seen: collections.Counter[str] = collections.Counter()
    names = []
    for group in groups:
        seen[group.name] += 1
        names.append(f"{group.name}#{seen[group.name]}" if seen[group.name] > 1 else group.name)
    return names


def widths_of(plan: PruningPlan) -> dict[str, int]:
    """Return how many channels each group that loses some keeps."""
    pairs = zip(_unique_names(plan.groups), plan.groups, plan.kept, strict=True)
    return {name: int(n) * group.width for name, group, n in pairs if n < len(group.units)}


def _as_requested(
    groups: list[Group], wanted: Mapping[str, int], readers: Mapping[int, ir.Node]
) -> NDArray[np.int64]:
    """Return the number of units that each group keeps, from channels by name.

    Raises:
        OptionError: no such group, or a number of channels that it cannot keep.
    """
    names = _unique_names(groups)
    for name in wanted:
        if name not in names:
            raise unknown("group of channels", name, names, where="prune-channels, widths")
    kept = []
    for number, (name, group) in enumerate(zip(names, groups, strict=True)):
        full = len(group.units) * group.width
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
    groups: list[Group], curves: list[LossCurve], choices: list[list[int]], ratio: float, scope: str
) -> NDArray[np.int64]:
    if scope == "local":
        return uniform_widths(groups, choices, ratio)
    own = [PrunableLayer(number, (0,), ({number: g.width},)) for number, g in enumerate(groups)]
    budget = ChannelBudget(groups, curves, choices, own, lambda _, lengths: float(lengths[0]))
    budget.descend(budget.cost * (1 - ratio))
    return budget.kept


def _narrow(budget: ChannelBudget, goal: Goal) -> float:
    """Narrow groups to the wanted share of the cost; return the share that is reached."""
    whole = budget.cost
    budget.descend(goal.share * whole)
    reached = budget.cost / whole
    # Judged by the reached cost, not by the least widths: on a staircase narrower may be slower.
    if reached > goal.share * (1 + 1e-9):
        raise OptionError(
            f"{goal.kind}={goal.share:g} is below what any widths reach",
            where="prune-channels",
            hint=f"The least is {reached:.3f}; a smaller block may reach less",
        )
    return reached


def _narrow_evenly(
    budget: ChannelBudget, goal: Goal, groups: list[Group], choices: list[list[int]]
) -> None:
    """Find the least ratio, the same for all groups, that reaches the wanted cost."""
    whole = budget.cost
    for ratio in np.linspace(0, 1, 201):
        budget.kept = uniform_widths(groups, choices, float(ratio))
        if budget.cost <= goal.share * whole:
            return
