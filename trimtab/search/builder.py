"""Builder of candidates: recipes become models pass by pass; a common beginning is made once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from trimtab.core.context import Context
from trimtab.core.errors import PassError, TrimtabError
from trimtab.core.model import Model
from trimtab.core.target import Target
from trimtab.passes.base import Pass

from .recipe import Recipe
from .result import Result
from .store import ResultStore, key_of, source_of
from .time_budget import timed_as

REWRITES = "apply-rewrites"


@dataclass(frozen=True)
class Builder:
    """Builder of candidates.

    Attributes:
        original: model that every recipe starts from.
        ctx: target, seed, clock.
        store: models of the steps made so far.
        machine: class of the machine that measures, for passes that decide by time.
        seconds: most seconds that a pass of each kind took so far, see `timed_as`.
    """

    original: Model
    ctx: Context
    store: ResultStore
    machine: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    def build(self, recipe: Recipe, stage: str = "", target: Target | None = None) -> Result:
        """Make the candidate of a recipe, with its `failure` where a pass refuses or fails.

        A pass that decides by measured time is resolved first, so that the recipe makes the same
        bytes again on any machine. It is made for a target, by default that of the search. Outside
        of a stage nothing is said about it.
        """
        model, ctx = self.original, replace(self.ctx, target=target or self.ctx.target)
        recipe = replace(
            recipe, model=model.name, digest=model.digest, target=ctx.target, seed=ctx.seed
        )
        start, steps = time.monotonic(), list[Pass]()
        ctx = replace(ctx, original=model)
        for step in recipe.passes:
            begun = time.monotonic()
            try:
                resolved = self._resolved(step, model, ctx)
                after = self._step(resolved, model, ctx)
                self._took(step, time.monotonic() - begun)
                if step.name() == REWRITES and after.digest == model.digest:
                    continue  # it found nothing to do: neither file nor recipe need name it
                steps.append(resolved)
                model = after
            except Exception as error:  # noqa: BLE001 - a custom pass may do anything
                return Result(recipe.name, recipe, failure=_failure(step, error), stage=stage)
        made = replace(model, name=recipe.name)
        recipe = replace(recipe, passes=tuple(steps))
        if stage:
            self.ctx.progress.say(f"made {recipe.name} in {time.monotonic() - start:.1f} s")
        return Result(recipe.name, recipe, made, made.size_bytes, stage=stage)

    def _took(self, step: Pass, seconds: float) -> None:
        kind = timed_as(step)
        self.seconds[kind] = max(seconds, self.seconds.get(kind, 0.0))

    def model(self, recipe: Recipe) -> Model:
        """Make the model of a recipe, or of the beginning of one.

        Raises:
            PassError: a pass refuses or breaks a promise.
        """
        made = self.build(recipe)
        if made.model is None:
            raise PassError(made.failure or "was not made", where=recipe.name)
        return made.model

    def _resolved(self, step: Pass, model: Model, ctx: Context) -> Pass:
        if not step.decides_by_time():
            return step
        key = key_of("settle", **self._parts(step, model, ctx), machine=self.machine)
        found = self.store.value(key, lambda: step.resolved(model, ctx).to_json())
        return _changed(step, found)

    def _step(self, step: Pass, model: Model, ctx: Context) -> Model:
        key = key_of("step", **self._parts(step, model, ctx))

        def make() -> Model:
            made = step(model, ctx)
            if made.lineage and made.lineage[-1].notes.get("stopped") == "interrupted":
                raise KeyboardInterrupt  # half of a training is no step to go on from
            return made

        return self.store.model(key, make)

    def _parts(self, step: Pass, model: Model, ctx: Context) -> dict[str, object]:
        own = type(step)
        return {
            "input": model.digest,
            # Two ways may lead to one graph, and lineage is part of the file.
            "lineage": [s.to_json() for s in model.lineage],
            "pass": step.name(),
            "source": "" if own.__module__.startswith("trimtab.") else source_of(own),
            "params": step.to_json(),
            "data": ctx.data.digest if ctx.data is not None else None,
            "original": self.original.digest,
            "target": ctx.target.to_json(),
            "seed": ctx.seed,
        }


def _changed(step: Pass, resolved: Mapping[str, Any]) -> Pass:
    """Return a pass with the fields that resolving changed; data in memory are kept."""
    before, known = step.to_json(), step.fields()
    names = [n for n in known if resolved.get(n) != before.get(n)]
    made = type(step).from_json({n: resolved[n] for n in names if n in resolved})
    return step.with_fields(**{n: getattr(made, n) for n in names})


def _failure(step: Pass, error: Exception) -> str:
    known = isinstance(error, TrimtabError)
    text = str(error if known else PassError(f"{type(error).__name__}: {error}"))
    return text if step.name() in text else f"pass {step.name()}: {text}"
