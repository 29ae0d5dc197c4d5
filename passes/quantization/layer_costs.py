"""What it costs to leave a layer float: measured nanoseconds of the whole network.

A float layer between int8 ones also pays for the conversions around it, which no profile of the
layer alone would show.
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

#: Layers that are timed: those that do most harm. The others stay int8 in all likelihood.
TIMED = 12
#: Seconds of measurement for each of them.
SECONDS = 0.5
#: Differences below this part of the network's time cannot be told from none.
SMALLEST_PART = 0.01


def by_time(
    model: Model,
    ranking: Sequence[tuple[str, float]],
    write: Callable[[Sequence[str]], ir.Model],
    data: Dataset,
    ctx: Context,
) -> list[tuple[str, float]]:
    """The ranking by harm for each nanosecond that int8 saves; beyond `TIMED` it stays as it was.

    Args:
        model: the float model.
        ranking: nodes and the harm that each does in int8, the most harmful first.
        write: makes the model in which the given nodes stay float.
        data: its first sample is what the models run on.
        ctx: with a clock.
    """
    clock = ctx.need_clock("mixed precision by milliseconds")
    timed = list(ranking[:TIMED])
    floats = [[], *([node] for node, _ in timed)]
    models = [dataclasses.replace(model, ir=write(nodes)) for nodes in floats]
    feeds = next(iter(fitting(model, data, rows=1))).feeds
    config = SessionConfig.of(ctx.target)
    base, *each = clock.median_ns(models, feeds, config, SECONDS * len(models))
    least = SMALLEST_PART * base
    worth = {
        node: harm / max(ns - base, least) for (node, harm), ns in zip(timed, each, strict=True)
    }
    timed.sort(key=lambda pair: -worth[pair[0]])
    return timed + list(ranking[TIMED:])
