"""Calls of a bench that arrive as messages, and its results as JSON values."""

from __future__ import annotations

from dataclasses import replace

from trimtab.core.errors import RunError
from trimtab.core.ort.engines import Engine
from trimtab.core.ort.session import Feeds
from trimtab.core.progress import Progress

from ..bench.bench import Bench, Timing
from ..measure.subject import Models, OnEngine, Startable, in_memory
from ..measure.workers.protocol import Message

#: Calls of a bench by their names in messages; a card is start-up costs.
CALLS = frozenset({"compare", "measure", "card", "diagnosis"})


def dispatch(
    bench: Bench,
    command: str,
    models: Models,
    feeds: Feeds,
    how: Timing,
    progress: Progress,
    **options: object,
) -> Message:
    """Run a call on a bench and return the result as JSON values.

    The command is compare, measure, card (start-up costs; options `processes` and `arena`), or
    diagnosis (options `profiled` and the model's `name`). The base is the first of the models, for
    a diagnosis the baseline is the last. The option `engines` names those that models have of their
    own, null for the others.

    Raises:
        RunError: the command is unknown, or it failed.
    """
    base, *others = timed = _on_engines(models, options.pop("engines", None))
    if command == "compare":
        compared = bench.compare(base, others, feeds, how, progress)
        return {"comparisons": [c.to_json() for c in compared]}
    if command == "measure":
        return {"measurements": [m.to_json() for m in bench.measure(timed, feeds, how, progress)]}
    if command == "card":
        processes, arena = int(str(options["processes"])), bool(options["arena"])
        costs, noise_check = bench.startup_costs(base, feeds, how, processes, arena=arena)
        return {"card": costs.to_json(), "fitness": noise_check.to_json()}
    if command == "diagnosis":
        # The report names the model as the caller does, not the file that holds it here.
        named = [replace(in_memory(models[0]), name=str(options["name"])), *models[1:]]
        profiled = bool(options["profiled"])
        lines, document = bench.diagnosis(named, feeds, how, profiled=profiled)
        return {"lines": list(lines), "document": document}
    raise RunError(f"does not know the call {command!r}", where="device")


def _on_engines(models: Models, engines: object) -> list[Startable]:
    if not isinstance(engines, list):
        return list(models)
    pairs = zip(models, engines, strict=True)
    return [OnEngine(model, Engine.of(text)) if text else model for model, text in pairs]
