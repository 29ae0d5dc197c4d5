"""Costs of leaving a layer float: measured nanoseconds of the whole network.

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

#: Most sensitive layers, which are timed; the others will most likely stay int8.
TIMED = 12
#: Seconds of measurement for each of them.
SECONDS = 0.5
#: Smallest difference, relative to the network's time, that can be measured.
SMALLEST_PART = 0.01


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
