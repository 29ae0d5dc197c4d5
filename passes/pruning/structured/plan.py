"""The plan of a pruning: groups, their loss curves, the widths that they keep."""

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

from ..dependency.groups import Group, Labels
from .budget import Budget, Curve, Layer, layers, macs_of, uniform, widths
from .latency_table import latencies, some, table, with_additions
from .ranking import ImportanceRequest, loss_curves
from .residual_branches import additions, branch_readers
from .sensitivity import Sensitivity
from .weight_repair import Feeds


@dataclass(frozen=True)
class Aim:
    """What a user asks for: the share of channels that goes, or the share of cost that stays."""

    kind: Literal["ratio", "macs", "latency", "widths"]
    share: float


@dataclass(frozen=True, eq=False)
class PruningRequest:
    """Everything that decides how many channels each group keeps, and which.

    Attributes:
        aim: how much goes.
        ranking: which channels go first.
        widths: for aim `widths`, how many channels each named group keeps.
        precision: kernels that will run, whose block and latency decide.
        scope: whether all groups lose the same share or are compared together.
        block: number of channels that widths are multiples of; the target's where None.
        branches: whether whole residual branches may go.
        cache: file of timed layers, empty for none.
        sensitivity: file that limits what each group loses, empty for none.
        group_drop: quality that a group alone may cost, in the unit of that file's metric.
    """

    aim: Aim
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


def choose(
    model: Model,
    labels: Labels,
    groups: list[Group],
    request: PruningRequest,
    batches: list[Feeds] | None,
    ctx: Context,
) -> Plan:
    """Which channels go.

    Raises:
        OptionError: a cost that no widths reach; the least one is told.
    """
    curves = loss_curves(model, labels, groups, request.ranking, batches, ctx)
    int8 = request.precision == "int8"
    prefer = ctx.target.int8_block // 2 if int8 else ctx.target.float_block
    steps = [widths(len(g.classes), g.width, request.block, prefer) for g in groups]
    steps = _limited(groups, steps, request)
    readers = branch_readers(labels, groups) if request.branches else {}
    steps = [[0, *s] if number in readers else s for number, s in enumerate(steps)]
    aim, predicted = request.aim, None
    if aim.kind == "widths":
        kept = _as_told(groups, request.widths, readers)
    elif aim.kind == "ratio":
        kept = _by_ratio(groups, curves, steps, aim.share, request.scope)
    else:
        cost_of, found = macs_of(labels), layers(labels, groups)
        if aim.kind == "latency":
            steps = [some(s) for s in steps]  # what is measured, since a staircase has no between
            cost_of = table(labels, groups, steps, ctx, request.cache, int8=int8)
            if int8:  # a float sum is made within the convolution before it
                sums = additions(labels, found, readers)
                cost_of, found = with_additions(cost_of, labels, sums, ctx), [*found, *sums]
        budget = Budget(groups, curves, steps, found, cost_of)
        if aim.kind == "latency":
            (whole,) = latencies([model], ctx, int8=int8, data=request.ranking.data)
            budget.fixed = max(0.0, whole - budget.cost)
        if aim.kind == "macs" and request.scope == "local":
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


def _limited(
    groups: list[Group], steps: list[list[int]], request: PruningRequest
) -> list[list[int]]:
    """Without the widths at which a group alone would cost more quality than it may."""
    if not request.sensitivity:
        return steps
    found = Sensitivity.read(request.sensitivity)
    least = [len(g.classes) * (1 - found.limit(g.name, request.group_drop)) for g in groups]
    return [[w for w in s if w >= low] for s, low in zip(steps, least, strict=True)]


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
