"""Calls of a bench that came as messages, and what it says as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trimtab.core.errors import RunError
from trimtab.core.model import Model
from trimtab.core.ort.session import Feeds
from trimtab.core.progress import Progress

from ..bench.bench import Bench, Timing
from ..measure.compare import ModelOrPath
from ..measure.protocol import Message


def answer_of(
    bench: Bench,
    what: str,
    models: Sequence[ModelOrPath],
    feeds: Feeds,
    how: Timing,
    progress: Progress,
    **more: object,
) -> Message:
    """Have a bench carry out a call.

    Args:
        bench: measures.
        what: compare, measure, card or diagnosis.
        models: the base first; of a diagnosis the baseline last.
        feeds: of one run.
        how: how long and how surely.
        progress: where to tell.
        more: `processes` and `arena` of a card; `profiled` of a diagnosis, and the model's `name`.

    Raises:
        RunError: no such call, or it failed.
    """
    base, *others = models
    if what == "compare":
        compared = bench.compare(base, others, feeds, how, progress)
        return {"comparisons": [c.to_json() for c in compared]}
    if what == "measure":
        return {"measurements": [m.to_json() for m in bench.measure(models, feeds, how, progress)]}
    if what == "card":
        processes, arena = int(str(more["processes"])), bool(more["arena"])
        card, fitness = bench.startup_costs(base, feeds, how, processes, arena=arena)
        return {"card": card.to_json(), "fitness": fitness.to_json()}
    if what == "diagnosis":
        # The model is called as it is at home, not as the file that holds it here.
        named = base if isinstance(base, Model) else Model.load(base)
        named = replace(named, name=str(more["name"]))
        baseline, profiled = others[0] if others else None, bool(more["profiled"])
        told, made = bench.diagnosis(named, baseline, feeds, how, profiled=profiled)
        return {"lines": list(told), "document": made}
    raise RunError(f"does not know the call {what!r}", where="device")
