"""Sensitivity of a model to each group of channels: quality without a part of that group alone.

The part that goes is the one that pruning would take first, and nothing is repaired, so this is the
worst case. Channels that go are masked, which verification proves to be the same.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError, unknown
from trimtab.core.metric import Metric, evaluate, find_metric, fitted
from trimtab.core.model import Model
from trimtab.core.runner import Remembering

from ..dependency.graph import Group, build_dependency_graph, prepare
from .data_importance import calibration_batches
from .ranking import ImportanceRequest, loss_curves, usable_groups
from .verify import mask

#: Shares of a group's channels to try.
RATIOS = (0.25, 0.5, 0.75)
SCHEMA = 1


@dataclass(frozen=True)
class GroupSensitivity:
    """Quality without a part of one group.

    Attributes:
        channels: number of the group's channels.
        operators: number of operators whose weights have these channels.
        quality: quality without each of the ratios.
    """

    name: str
    channels: int
    operators: int
    quality: tuple[float, ...]


@dataclass(frozen=True)
class Sensitivity:
    """Quality of a model against the share of each group that is gone.

    Attributes:
        metric: name of the metric; higher is better.
        whole: quality of the whole model.
        items: number of items that it was measured on.
        ratios: shares of the channels that went.
        groups: groups in the order of the graph.
        left_out: names of the groups for which there was no time; none of their channels may go.
    """

    metric: str
    whole: float
    items: int
    ratios: tuple[float, ...]
    groups: tuple[GroupSensitivity, ...]
    left_out: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return JSON values with a schema number."""
        groups = [dict(g.__dict__, quality=list(g.quality)) for g in self.groups]
        plain = dict(self.__dict__, ratios=list(self.ratios), groups=groups)
        plain["left_out"] = list(self.left_out)
        return {"schema": SCHEMA, **plain}

    @classmethod
    def read(cls, path: str | Path) -> Sensitivity:
        """Read the file that `trimtab doctor --prune --json` wrote.

        Raises:
            OptionError: the file does not exist or is another one.
        """
        try:
            plain = json.loads(Path(path).read_text())
            groups = tuple(
                GroupSensitivity(**{**g, "quality": tuple(g["quality"])}) for g in plain["groups"]
            )
            metric, whole, items = (plain[n] for n in ("metric", "whole", "items"))
            left_out = tuple(plain.get("left_out", ()))
            return cls(metric, whole, items, tuple(plain["ratios"]), groups, left_out)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise OptionError(
                f"cannot be read as a sensitivity ({type(error).__name__}: {str(error)[:120]})",
                where=str(path),
                hint="trimtab doctor MODEL --prune --data DATA --json FILE writes one",
            ) from error

    def limit(self, name: str, drop: float) -> float:
        """Return the share of a group that may go for at most this drop of quality.

        Between the measured ratios it is interpolated.

        Raises:
            OptionError: no such group.
        """
        known = {g.name: g for g in self.groups}
        if name in self.left_out:
            return 0.0
        if name not in known:
            raise unknown("group", name, known, where="prune-channels, sensitivity")
        last_ratio, last_drop = 0.0, 0.0
        for ratio, quality in zip(self.ratios, known[name].quality, strict=True):
            lost = self.whole - quality
            if lost > drop:
                part = (drop - last_drop) / (lost - last_drop)
                return last_ratio + (ratio - last_ratio) * max(part, 0.0)
            last_ratio, last_drop = ratio, lost
        return 1.0


def sensitivity(
    model: Model,
    ranking: ImportanceRequest,
    data: Dataset,
    ctx: Context,
    *,
    metric: str | Metric | None = None,
    ratios: Sequence[float] = RATIOS,
    seconds: float = math.inf,
) -> Sensitivity:
    """Measure a model's quality without parts of each of its groups.

    Args:
        model: is not changed.
        ranking: importance, heads, protected operators and number of samples.
        data: one half ranks channels, the other measures quality.
        ctx: progress, seed and runner.
        metric: by default top-1 where there are labels, else fidelity to the whole model.
        ratios: shares to try, ascending.
        seconds: time after which no further group is measured; those of most channels come first.

    Raises:
        DataError: the data do not fit.
        OptionError: an unknown metric or pattern.
    """
    started = time.monotonic()
    parts = data.bind(model).split({"ranking": 1, "quality": 1}, seed=ctx.seed)
    unseen = parts["quality"].take(ranking.samples)
    chosen = find_metric(metric, unseen)
    ranking = replace(ranking, data=parts["ranking"])
    work = prepare(model.clone())
    runner = Remembering(work, ctx.runner)
    chosen = fitted(chosen, work, unseen, runner=runner)
    graph = build_dependency_graph(work, whole=ranking.heads == "whole")
    groups = usable_groups(graph, ranking.protect)
    batches = calibration_batches(work, parts["ranking"], ranking.samples, ctx.progress)
    curves = loss_curves(work, graph, groups, ranking, batches, ctx) if groups else []
    measure = partial(evaluate, data=unseen, metric=chosen, reference=work, runner=runner)
    whole = measure(work)
    found: dict[int, GroupSensitivity] = {}
    order = sorted(range(len(groups)), key=lambda n: -_channels(groups[n]))
    for number in ctx.progress.track(order, "measuring groups", len(order)):
        group, curve = groups[number], curves[number]
        removed = [curve.order[: _count(group, ratio)] for ratio in ratios]
        quality = tuple(measure(mask(work, graph, units)).value for units in removed)
        members = len(group.members)
        found[number] = GroupSensitivity(group.name, _channels(group), members, quality)
        if time.monotonic() - started > seconds:
            break
    measured = tuple(found[number] for number in sorted(found))
    left_out = tuple(group.name for number, group in enumerate(groups) if number not in found)
    return Sensitivity(chosen.name, whole.value, whole.count, tuple(ratios), measured, left_out)


def _channels(group: Group) -> int:
    return len(group.units) * group.width


def _count(group: Group, ratio: float) -> int:
    size = len(group.units)
    return min(int(np.floor(size * ratio + 0.5)), size - 1)
