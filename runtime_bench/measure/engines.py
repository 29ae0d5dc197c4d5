"""Models on several engines: each pair is measured as a contender of its own."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.core.errors import OptionError
from trimtab.core.ort.accelerators import check_installed
from trimtab.core.ort.engines import Engine
from trimtab.core.ort.session import available_providers

from .contenders.program import Program
from .subject import OnEngine, Timed


def spread(
    models: Sequence[Timed], engines: Sequence[str], base_engine: str = "cpu", *, here: bool = True
) -> list[Timed]:
    """Return each model on each engine, the first one on `base_engine` before all others.

    A device that is not `here` looks itself whether it has the engines.

    Raises:
        OptionError: an engine is not installed here, or one is named twice, or a program is given.
    """
    base = Engine.of(base_engine)
    wanted = [Engine.of(text) for text in engines]
    for engine in (base, *wanted) if here else ():
        check_installed(engine.provider, available_providers())
    for position, engine in enumerate(wanted):
        if engine in wanted[:position]:
            raise OptionError("is given twice", where=f"--provider {engine}", hint="Drop one")
    found: list[Timed] = [_on(models[0], base)]
    for number, model in enumerate(models):
        rest = [engine for engine in wanted if number or engine != base]
        found += [_on(model, engine) for engine in rest]
    return found


def _on(model: Timed, engine: Engine) -> OnEngine:
    if isinstance(model, Program | OnEngine):
        raise OptionError("is about models, not programs", where="--provider", hint="Drop it")
    return OnEngine(model, engine)
