"""Gains of layers in int8 and their costs in float: measured nanoseconds of the whole network.

A float layer between int8 ones also pays for the conversions around it, which a profile of the
layer alone does not show.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import onnx_ir as ir

from trimtab.core.batches import fitting
from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig

from .file_size import plain_bytes

#: Most sensitive layers, which are timed; the others will most likely stay int8.
TIMED = 12
#: Seconds of measurement for each of them.
SECONDS = 0.5
#: Smallest difference, relative to the network's time, that can be measured.
SMALLEST_PART = 0.01
#: Runs of each group of layers that are timed, and their least time in seconds.
GROUP_RUNS, GROUP_SECONDS = 8, 0.03
#: Most models that are loaded at once, and bytes of their weights where there are more than two.
LOADED, LOADED_BYTES = 6, 12 << 20


def rank_by_cost(
    model: Model,
    ranking: Sequence[tuple[str, float]],
    write: Callable[[Sequence[str]], ir.Model],
    data: Dataset,
    ctx: Context,
) -> list[tuple[str, float]]:
    """Rank by sensitivity per nanosecond that int8 saves; beyond `TIMED` the order stays.

    The ranking has the most sensitive first; `write` builds the model in which these nodes stay
    float. The models run on the first sample; the context has a clock.
    """
    clock = ctx.need_clock("mixed precision by milliseconds")
    timed = list(ranking[:TIMED])
    float_nodes = [[], *([node] for node, _ in timed)]
    models = [dataclasses.replace(model, ir=write(nodes)) for nodes in float_nodes]
    feeds = next(iter(fitting(model, data, rows=1))).feeds
    config = SessionConfig.of(ctx.target)
    base, *each = clock.median_ns(models, feeds, config, SECONDS * len(models))
    least = SMALLEST_PART * base
    worth = {
        node: sensitivity / max(ns - base, least)
        for (node, sensitivity), ns in zip(timed, each, strict=True)
    }
    timed.sort(key=lambda pair: -worth[pair[0]])
    return timed + list(ranking[TIMED:])


def saved_alone(
    model: Model,
    alone: Callable[[Sequence[str]], Model],
    data: Dataset,
    ctx: Context,
    groups: Sequence[Sequence[str]],
) -> list[float]:
    """Return the part of a network's time that each group of nodes saves, alone in int8.

    Args:
        model: the float model.
        alone: builds the model in which these nodes alone are in int8.
        data: the first sample is fed.
        ctx: context with a clock.
        groups: names of nodes.
    """
    clock = ctx.need_clock("mixed precision by milliseconds")
    feeds, config = next(iter(data)).feeds, SessionConfig.of(ctx.target)
    together = min(max(LOADED_BYTES // max(plain_bytes(model), 1), 2), LOADED) - 1
    each = clock.median_ns([model], feeds, config, GROUP_SECONDS)[0] * 1e-9 * GROUP_RUNS
    saved: list[float] = []
    for start in range(0, len(groups), together):
        models = [model, *map(alone, groups[start : start + together])]
        seconds = max(each, GROUP_SECONDS) * len(models)
        base, *others = clock.median_ns(models, feeds, config, seconds)
        saved += [1 - ns / base for ns in others]
    return saved
