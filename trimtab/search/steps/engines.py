"""Execution providers as one more choice of a candidate: the best files so far on each engine.

An engine computes otherwise than the target's own: a candidate on it is one of its own, judged on
its own answers and measured there, beside the same file on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trimtab.core.ort.accelerators import CPU, check_installed
from trimtab.core.ort.engines import Engine
from trimtab.core.ort.inventory import inventory
from trimtab.core.ort.session import available_providers
from trimtab.core.target import PRESETS, Target

from ..recipe import Recipe
from ..result import Result, cost
from ..run import Search
from .plan import SearchPlan, claims_no_speed

#: Files of the search that are tried on each engine, beside the float model.
FILES = 2


def read_engines(names: Sequence[str]) -> list[Engine]:
    """Return the engines of names such as `openvino`; of `auto` all that start here.

    Raises:
        OptionError: one is not installed.
    """
    if list(names) == ["auto"]:
        return [Engine(state.provider) for state in inventory() if state.state == "ready"]
    found = [Engine.of(name) for name in dict.fromkeys(names)]
    for engine in found:
        check_installed(engine.provider, available_providers())
    return found


def try_engines(search: Search, engines: Sequence[Engine], plan: SearchPlan | None = None) -> None:
    """Try the best files so far on each engine beyond the CPU, and measure them there.

    With a plan also in the form that the engine wants, where this machine's kernels want another.
    """
    beyond = beyond_cpu(engines)
    if not beyond:
        return
    recipes = worth_trying(search.good())
    for engine in beyond:
        search.attempt("engines", [*recipes, *own_form(plan, engine)], engine)
    search.measure("engines")


def beyond_cpu(engines: Sequence[Engine]) -> list[Engine]:
    """Return the engines other than the CPU's own, on which everything is tried anyway."""
    return [engine for engine in engines if engine.provider != CPU]


def worth_trying(kept: Sequence[Result]) -> list[Recipe]:
    """Return the recipes of the float model and of the best others: what is fast there is open."""
    ranked = sorted(kept, key=lambda r: cost(r, "latency"))
    recipes = [r.recipe for r in ranked if r.recipe is not None and r.engine is None]
    plain = [recipe for recipe in recipes if claims_no_speed(recipe)]
    return [*plain[:1], *[recipe for recipe in recipes if recipe not in plain][:FILES]]


def own_form(plan: SearchPlan | None, engine: Engine) -> list[Recipe]:
    """Return the recipe most likely to do on an engine, for its own target."""
    target = next((t for t in PRESETS.values() if t.provider == engine.provider), None)
    if plan is None or target is None:
        return []
    return [_for(target, plan, recipe) for recipe in replace(plan, target=target).first()]


def _for(target: Target, plan: SearchPlan, recipe: Recipe) -> Recipe:
    """Return a recipe for a target; rewrites for the kernels of this CPU are left out."""
    steps = (*plan.start(), *plan.middle(recipe))
    threads = plan.target.threads
    name = f"{recipe.name} (form of {target.name})"
    return replace(recipe, name=name, passes=steps, target=replace(target, threads=threads))
