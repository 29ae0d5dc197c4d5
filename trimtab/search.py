"""`optimize`: make candidates, drop those that lose too much, measure the rest, choose, confirm.

Data that calibrates, data that chooses and data that confirms are disjoint. Measurement and choice
live elsewhere (`runtime_bench`, `choice`); this file is the order of work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.choice import explain, loses_too_much, objections, preference, speedup
from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, OptionError, TrimtabError
from trimtab.core.metric import Metric, Quality, evaluate, find_metric
from trimtab.core.model import Model
from trimtab.core.session import Feeds, SessionConfig
from trimtab.plan import plan
from trimtab.recipe import Recipe
from trimtab.result import Constraints, Outcome, Result
from trimtab.structure import structure

if TYPE_CHECKING:
    from trimtab.runtime_bench.values import Comparison

#: (original, candidates, feeds, context, seconds) -> a comparison for each candidate
Measure = Callable[[Model, Sequence[Model], Feeds, Context, float], "Sequence[Comparison]"]
#: Seconds of measurement a graph may take, when the evidence is slow to come.
SECONDS_PER_GRAPH = 15.0
#: Chance that any of the intervals misses its ratio, whenever the measurement stops.
ALPHA = 0.05


@dataclass(frozen=True)
class Parts:
    """Disjoint parts of the data: what calibrates, what chooses, what confirms."""

    calibration: Dataset
    selection: Dataset
    test: Dataset

    def to_json(self) -> dict[str, Any]:
        """Where each part comes from and how many items it has."""
        return {
            name: {"data": part.spec, "items": len(part), "part": part.part}
            for name, part in self.__dict__.items()
        }


def split_data(data: Dataset | Parts, evaluation: Dataset | None, *, seed: int = 0) -> Parts:
    """Disjoint parts: with one dataset all from it, with two calibration from the first.

    Raises:
        DataError: both hold the same items, or there are too few.
    """
    if isinstance(data, Parts):
        return data
    if evaluation is None:
        shares = {"calibration": 0.4, "selection": 0.3, "test": 0.3}
        return Parts(**data.split(shares, seed=seed))
    if data.overlaps(evaluation):
        raise DataError(
            "calibration and evaluation data hold the same items",
            where=f"{data.spec} and {evaluation.spec}",
            hint="Give disjoint data, or --data alone and let it be split",
        )
    halves = evaluation.split({"selection": 0.5, "test": 0.5}, seed=seed)
    return Parts(data, halves["selection"], halves["test"])


def optimize(
    model: Model,
    data: Dataset | Parts,
    *,
    eval_data: Dataset | None = None,
    metric: str | Metric | None = None,
    constraints: Constraints | None = None,
    recipes: Iterable[Recipe] | None = None,
    ctx: Context | None = None,
    seconds: float | None = None,
    measure: Measure | None = None,
) -> Outcome:
    """The fastest model that holds the constraints, with the evidence.

    Args:
        model: the float original.
        data: calibration data; also selection and test where `eval_data` is None; or all parts.
        eval_data: half of it chooses, half of it confirms.
        metric: see `find_metric`.
        constraints: what the result must hold; a drop of at most 0.01 where None.
        recipes: candidates; the plan for this model and target where None.
        ctx: target, progress, seed.
        seconds: upper bound for measuring latency.
        measure: how candidates are measured against the original; the bench where None.

    Raises:
        DataError, OptionError: the data or the metric do not fit the model.
    """
    ctx = ctx or Context()
    constraints = constraints or Constraints()
    parts = split_data(data, eval_data, seed=ctx.seed)
    chosen_metric = find_metric(metric, parts.selection)
    judge = _Judge(model, parts, chosen_metric, ctx)
    original = judge.judged(Result("original", model=model, size_bytes=model.size_bytes))
    makers = tuple(recipes) if recipes is not None else plan(model, parts.calibration, ctx.target)
    if not makers:
        raise OptionError("there is no recipe to try", where="recipes")
    made = _without_twins(_make(recipe, model, ctx) for recipe in _tracked(makers, ctx))
    results = [judge.judged(result) for result in made]
    good = [r for r in results if not loses_too_much(r, original, constraints)]
    results = _measured(results, good, judge, measure or _bench, seconds)
    return _decide(original, results, constraints, judge)


def _tracked(makers: Sequence[Recipe], ctx: Context) -> Iterable[Recipe]:
    for number, recipe in enumerate(makers, 1):
        ctx.progress.say(f"[{number}/{len(makers)}] {recipe.name}")
        yield recipe


def _make(recipe: Recipe, model: Model, ctx: Context) -> Result:
    recipe = replace(
        recipe, model=model.name, digest=model.digest, target=ctx.target, seed=ctx.seed
    )
    try:
        made = recipe(model, ctx)
    except TrimtabError as error:
        return Result(recipe.name, recipe, failure=str(error))
    made = replace(made, name=recipe.name)
    return Result(recipe.name, recipe, made, made.size_bytes)


def _without_twins(results: Iterable[Result]) -> list[Result]:
    """Recipes that made the same model count once; a pass that finds nothing to do makes a twin."""
    seen: set[str] = set()
    kept = []
    for result in results:
        if result.model is not None:
            if result.model.digest in seen:
                continue
            seen.add(result.model.digest)
        kept.append(result)
    return kept


@dataclass(frozen=True)
class _Judge:
    """Evaluates candidates on the selection part, and survivors on the test part."""

    original: Model
    parts: Parts
    metric: Metric
    ctx: Context

    def judged(self, result: Result) -> Result:
        """With its quality on the selection part."""
        if result.model is None:
            return result
        try:
            return replace(result, selection=self._quality(result.model, self.parts.selection))
        except TrimtabError as error:
            if result.recipe is None:
                raise  # the original itself cannot be evaluated: that is the user's to mend
            return replace(result, failure=str(error))

    def confirmed(self, result: Result) -> Result:
        """With its quality on the test part."""
        if result.model is None or result.failure:
            return result
        return replace(result, test=self._quality(result.model, self.parts.test))

    def _quality(self, model: Model, data: Dataset) -> Quality:
        return evaluate(
            model,
            data,
            self.metric,
            reference=self.original,
            config=SessionConfig.of(self.ctx.target),
            progress=self.ctx.progress,
        )

    def feeds(self) -> Feeds:
        """One row from the middle of the selection part, as a deployed model gets it."""
        part = self.parts.selection
        middle = part.select(part.positions[len(part) // 2 :][:1], "one item")
        feeds = next(iter(middle.sized(1).bind(self.original))).feeds
        fixed = any(spec.shape and isinstance(spec.shape[0], int) for spec in self.original.inputs)
        return feeds if fixed else {name: array[:1] for name, array in feeds.items()}


def _measured(
    results: Sequence[Result],
    good: Sequence[Result],
    judge: _Judge,
    measure: Measure,
    seconds: float | None,
) -> list[Result]:
    """The good ones with comparisons; of those that run the same kernels one stands for all."""
    groups: dict[str, Model] = {}
    keys = []
    for result in results:
        runs = result in good and result.failure is None
        key = structure(result.model) if runs and result.model is not None else None
        keys.append(key)
        if key is not None and result.model is not None:
            groups.setdefault(key, result.model)
    if not groups:
        return list(results)
    judge.ctx.progress.say(f"measuring {len(groups)} different graphs against the original")
    limit = seconds or SECONDS_PER_GRAPH * len(groups)
    found = measure(judge.original, list(groups.values()), judge.feeds(), judge.ctx, limit)
    comparisons = dict(zip(groups, found, strict=True))
    return [
        r if key is None else _with_comparison(r, comparisons[key], groups[key].name)
        for r, key in zip(results, keys, strict=True)
    ]


def _with_comparison(result: Result, comparison: Comparison, measured: str) -> Result:
    if comparison.error:
        return replace(result, failure=comparison.error)
    stands_for = None if measured == result.name else measured
    return replace(result, comparison=comparison, measured_as=stands_for)


def _bench(
    model: Model, candidates: Sequence[Model], feeds: Feeds, ctx: Context, seconds: float
) -> Sequence[Comparison]:
    from trimtab.runtime_bench.compare import compare

    return compare(
        model,
        candidates,
        feeds,
        config=SessionConfig.of(ctx.target),
        max_seconds=seconds,
        alpha=ALPHA,
        seed=ctx.seed,
        progress=ctx.progress,
    )


def _decide(
    original: Result, results: Sequence[Result], constraints: Constraints, judge: _Judge
) -> Outcome:
    """Choose on the selection part, confirm on the test part, one candidate after the other."""
    original = judge.confirmed(original)
    results = [judge.confirmed(r) if r.comparison else r for r in results]
    fallback = next((r for r in results if _is_float(r) and r.model is not None), None)
    holding = [r for r in results if not objections(r, original, constraints)]
    ranked = preference(holding, fallback)
    undecided = [r.name for r in results if (ratio := speedup(r)) and math.isinf(ratio.high)]
    cut_short = any(r.comparison is not None and r.comparison.interrupted for r in results)
    why = ["The measurement was interrupted; intervals are as wide as that."] if cut_short else []
    if undecided:
        names = ", ".join(undecided)
        why.append(f"Too little time for a verdict on {names}: give more with --time.")
    chosen = None
    looks = 0
    for looks, result in enumerate(ranked, 1):  # noqa: B007 - read after the loop
        against = objections(result, original, constraints, "test")
        if not against:
            chosen = result
            break
        why.append(f"{result.name} was not confirmed on the test part: {'; '.join(against)}.")
    if chosen is not None:
        why = [*why, *explain(chosen, ranked, fallback)]
    else:
        why += _binding(original, results, constraints)
    return Outcome(
        original, tuple(results), chosen, tuple(why), constraints, judge.parts.to_json(), looks
    )


def _is_float(result: Result) -> bool:
    return result.recipe is not None and [p.name() for p in result.recipe.passes] == ["simplify"]


def _binding(original: Result, results: Sequence[Result], constraints: Constraints) -> list[str]:
    """What stands against each candidate, for when none holds."""
    lines = ["No candidate holds the constraints."]
    for result in results:
        against = objections(result, original, constraints)
        lines += [f"{result.name}: {'; '.join(against)}."] if against else []
    return lines


def check_output(folder: str | Path) -> None:
    """Refuse a folder that cannot be written before hours are spent, not after.

    Raises:
        OutputError: it cannot be made or written.
    """
    from trimtab.core.files import atomic_folder

    existing = Path(folder).absolute()
    while not existing.exists():
        existing = existing.parent
    with atomic_folder(existing):
        pass


def save_outcome(outcome: Outcome, folder: str | Path) -> list[Path]:
    """Write `model.onnx`, `recipe.yaml` and `result.json`; each appears whole or not at all.

    Raises:
        OutputError: the folder cannot be written.
    """
    import json

    from trimtab.core.files import write_text, writing

    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    written = []
    if outcome.chosen is not None and outcome.chosen.recipe is not None:
        written.append(outcome.model.save(folder / "model.onnx"))
        written.append(outcome.chosen.recipe.save(folder / "recipe.yaml"))
    path = folder / "result.json"
    write_text(path, json.dumps(outcome.to_json(), indent=1) + "\n")
    return [*written, path]
