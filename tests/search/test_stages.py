"""The staged search on small models, with made comparisons: a test times nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import graphs
import numpy as np
import onnx_ir as ir
import pytest
from cnn_data import arrays
from made_comparisons import made_comparison, made_comparisons
from search_fakes import LOOSE, fast_int8, float_bytes

from trimtab.core.context import Context
from trimtab.core.errors import DataError, LostError, OptionError
from trimtab.core.metric import Metric
from trimtab.core.model import Model
from trimtab.core.runner import run_here
from trimtab.core.target import Target
from trimtab.passes.base import Pass, Rewrite
from trimtab.runtime_bench.bench.bench import Timing
from trimtab.runtime_bench.gate.rules import judge
from trimtab.runtime_bench.machine.environment import Environment
from trimtab.runtime_bench.measure.values import Measurement
from trimtab.search.optimize import optimize, save_outcome
from trimtab.search.recipe import Recipe
from trimtab.search.reporting.outcome import Outcome
from trimtab.search.result import Result
from trimtab.search.throughput import sweep
from trimtab.search.time_budget import TimeBudget

SMALL = ("simplify", "quantize-static")


def search(**options: Any) -> Outcome:
    """Search with float and int8 alone, unless other options are given."""
    options = {"constraints": LOOSE, "measure": fast_int8, "passes": SMALL} | options
    return optimize(graphs.cnn(), arrays(120), **options)


@pytest.mark.slow
def test_the_stages_try_families_then_pruning_then_both() -> None:
    outcome = search(passes=None)
    names = [r.name for r in outcome.results]
    assert names[:2] == ["int8 static", "float simplified"]
    assert "pruned to 93%" in names
    assert any(n.endswith(", int8") for n in names)
    assert outcome.chosen is not None
    assert outcome.chosen.name.endswith(", int8")
    stages = [d["stage"] for d in outcome.decisions]
    assert stages[0] == "plan"
    assert stages[-1] == "decide"
    assert "first usable candidate" in " ".join(d["what"] for d in outcome.decisions)


@pytest.mark.slow
def test_the_first_usable_candidate_is_reported_once_in_any_stage() -> None:
    smaller = min(r.size_bytes for r in search().results) - 1
    outcome = search(passes=None, constraints=LOOSE | {"max_size": smaller})
    reported = [d for d in outcome.decisions if "first usable candidate" in d["what"]]
    assert len(reported) == 1
    assert reported[0]["stage"] == "prune"


def in_the_fresh_run(*ratios: float) -> Callable[..., Sequence[Any]]:
    """Make a measurement of fast int8, whose second run gives these ratios, in order."""
    seen: set[str] = set()

    def measure(base: Model, candidates: Sequence[Model], *rest: Any) -> Sequence[Any]:
        if not all(model.name in seen for model in candidates):
            seen.update(model.name for model in candidates)
            return fast_int8(base, candidates)
        return [made_comparison(r) for r, _ in zip(ratios, candidates, strict=False)]

    return measure


@pytest.mark.slow
@pytest.mark.parametrize(("fresh", "place"), [((1.5, 2.5), 1), ((1.5, 1.55), 0)])
def test_a_runner_up_that_is_faster_in_the_fresh_run_takes_the_place(
    fresh: tuple[float, float], place: int
) -> None:
    usual = search(passes=None)
    ranked = [r.name for r in usual.results if r.confirmation is not None]
    assert usual.chosen is not None
    first = usual.chosen.name
    order = [first, *(name for name in ranked if name != first)]
    outcome = search(passes=None, measure=in_the_fresh_run(*fresh))
    assert outcome.chosen is not None
    assert outcome.chosen.name == order[place]
    assert outcome.looks == 1  # both answer alike
    assert outcome.chosen.test is not None
    assert outcome.chosen.confirmation is not None
    assert outcome.chosen.confirmation.ratio == fresh[place]


@pytest.mark.slow
def test_a_candidate_that_was_refused_is_not_a_runner_up() -> None:
    beside: list[list[str]] = []

    def measure(base: Model, candidates: Sequence[Model], *rest: Any) -> Sequence[Any]:
        beside.append([model.name for model in candidates])
        again = sum(candidates[0].name in names for names in beside) > 1
        found = fast_int8(base, candidates)
        return [made_comparison(0.9), *found[1:]] if again else found

    usual = search(passes=None)
    assert usual.chosen is not None
    first = usual.chosen.name
    outcome = search(passes=None, measure=measure)
    fresh = [names for names in beside if names[0] == first][-1:]
    assert fresh
    later = beside[beside.index(fresh[0]) + 1 :]
    assert later
    assert all(first not in names for names in later)
    assert outcome.chosen is not None
    assert outcome.chosen.name != first


def test_a_fleet_that_is_gone_ends_the_search() -> None:
    def gone(*_: Any) -> Any:
        raise LostError("vanished", where="fleet")

    calls: list[str] = []

    def runner(model: Model, data: Any, config: Any) -> Any:
        calls.append(model.name)
        return run_here(model, data, config) if len(calls) < 3 else gone()

    with pytest.raises(LostError, match="vanished"):
        search(ctx=Context(runner=runner))


def test_a_candidate_without_an_interval_is_measured_longer() -> None:
    rounds: list[tuple[int, float]] = []

    def measure(base: Model, candidates: Sequence[Model], *rest: Any) -> Sequence[Any]:
        rounds.append((len(candidates), rest[-1]))
        found = fast_int8(base, candidates)
        for comparison in found if len(rounds) < 4 else []:
            comparison.low, comparison.high = 0.0, np.inf
        return found

    outcome = search(measure=measure)
    assert outcome.chosen is not None
    assert outcome.chosen.name == "int8 static"
    each = [seconds / count for count, seconds in rounds]
    assert each[-2] > each[-3]  # the last round is the fresh run


@pytest.mark.slow
def test_only_the_passes_that_are_allowed_are_used() -> None:
    outcome = search()
    used = {p.name() for r in outcome.results if r.recipe for p in r.recipe.passes}
    assert used == {"simplify", "quantize-static"}
    with pytest.raises(OptionError, match="Did you mean 'simplify'"):
        search(passes=["simplfy"])


def test_trials_bound_the_candidates() -> None:
    outcome = search(budget=TimeBudget(trials=1))
    assert len(outcome.results) == 1
    assert "1 trials are used up" in " ".join(d["what"] for d in outcome.decisions)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_answer() -> None:
    one, two = search(), search()
    assert [r.name for r in one.results] == [r.name for r in two.results]
    assert one.model.digest == two.model.digest


def test_without_a_valid_candidate_the_nearest_and_their_violations_are_reported() -> None:
    outcome = search(constraints=LOOSE | {"max_size": 2000})
    assert outcome.chosen is None
    assert "max_size by" in " ".join(outcome.why)


def test_an_original_that_satisfies_all_is_reported_and_improved() -> None:
    outcome = search(constraints=LOOSE | {"max_size": "1MB"})
    assert "satisfies the constraints already" in " ".join(d["what"] for d in outcome.decisions)
    assert outcome.chosen is not None


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_latency": "p95=1s"}, "satisfies the constraints already"),
        ({"max_latency": "p95=1us"}, "does not satisfy"),
        ({"min_speedup": 1.5}, "does not satisfy"),
    ],
)
def test_whether_the_original_satisfies_all_is_reported_once_known(
    limits: dict, message: str
) -> None:
    outcome = search(constraints=LOOSE | limits, passes=("simplify",))
    assert message in " ".join(d["what"] for d in outcome.decisions)


def test_size_as_the_goal_takes_the_smallest_file() -> None:
    outcome = search(constraints=LOOSE | {"goal": "size"})
    assert outcome.chosen is not None
    assert outcome.chosen.size_bytes == min(r.size_bytes for r in outcome.results if r.model)


@pytest.mark.slow
def test_throughput_as_the_goal_is_measured_with_the_rows_of_a_run() -> None:
    rows: list[int] = []

    def measure(base: Model, candidates: Sequence[Model], feeds: Any, *rest: Any) -> Sequence[Any]:
        rows.extend(len(array) for array in feeds.values())
        return fast_int8(base, candidates)

    goal = {"goal": "throughput", "batch": 4, "callers": 2}
    outcome = search(constraints=LOOSE | goal, measure=measure, look_into=True)
    assert set(rows) == {4}
    assert outcome.chosen is not None
    assert outcome.chosen.name == "int8 static"
    assert "a run of 4 rows under load" in outcome.marks[-1]
    assert outcome.to_json()["constraints"]["callers"] == 2
    with pytest.raises(OptionError, match=r"a run takes \d+ rows of the"):
        search(constraints=LOOSE | {"goal": "throughput", "batch": 1000})


def test_the_table_of_throughput_has_both_models_in_all_settings() -> None:
    environment = replace(Environment.here(), cpus=2)

    def measured(models: Sequence[Any], feeds: Any, how: Timing, *_: Any) -> list[Measurement]:
        ns = (int(1e6 / how.concurrency),) * 500
        return [Measurement("m", "d", 1, ns, (), environment, how.config) for _ in models]

    timer = SimpleNamespace(
        bench=SimpleNamespace(measure=measured, environment=lambda: environment),
        load=SimpleNamespace(feeds={}),
        original=graphs.cnn(),
        measure=None,
        callers=2,
    )
    of = SimpleNamespace(
        timer=timer,
        constraints=SimpleNamespace(batch=4),
        log=SimpleNamespace(note=lambda *_: None),
        spent=SimpleNamespace(evidence_s=100.0),
    )
    found: Any = sweep(of, Result("int8 on openvino", model=graphs.cnn(), engine="cpu"))  # type: ignore[arg-type]
    settings = [tuple(row[:4]) for row in found["rows"]]
    names = ("original", "int8 on openvino")
    assert settings == [(n, t, "4", c) for t in "12" for c in "12" for n in names]
    assert {row[3]: row[5] for row in found["rows"]} == {"1": "4000", "2": "8000"}
    assert "most rows a second: original with threads 1, batch 4, callers 2" in found["note"]


def test_a_target_that_is_not_this_machine_has_predicted_speed_marked_as_such() -> None:
    away = "arm64" if Target.detect().isa != "arm64" else "x64-avx2"
    ctx = Context(target=Target.named(away))
    outcome = search(ctx=ctx, measure=None)
    assert "predicted by a cost model" in outcome.marks[0]
    assert all(r.comparison is None for r in outcome.results)
    assert outcome.chosen is not None
    assert outcome.chosen.predicted is not None
    with pytest.raises(OptionError, match="cannot be proved"):
        search(ctx=ctx, measure=None, constraints={"max_latency": "p95=5ms"})


@pytest.mark.parametrize(("gpu", "best"), [("cuda", "float16"), ("tensorrt", "int8 static")])
def test_a_gpu_gets_float16_and_int8_where_its_provider_has_kernels(gpu: str, best: str) -> None:
    outcome = search(
        ctx=Context(target=Target.named(gpu)),
        measure=None,
        passes=("simplify", "half", "quantize-static"),
    )
    names = [r.name for r in outcome.results]
    assert names == ["float16", "float simplified", "int8 static"]
    assert outcome.chosen is not None
    assert outcome.chosen.name == best
    ratio = {r.name: r.predicted or 0 for r in outcome.results}
    assert ratio["float16"] > ratio["float simplified"]
    assert (ratio["int8 static"] > ratio["float16"]) == (gpu == "tensorrt")
    assert "[" not in outcome.why[-1]


def test_a_gpu_gets_no_families_that_its_provider_leaves_to_the_cpu() -> None:
    from trimtab.core.dataset import Dataset
    from trimtab.search.steps.plan import SearchPlan

    model = graphs.transformer()
    data = Dataset.of_arrays({"x": np.zeros((8, 4), np.float32)})

    def families(target: str) -> set[str]:
        plan = SearchPlan.of(model, data, Target.named(target), None, timed=False)
        return {recipe.name for recipe in (*plan.first(), *plan.others())}

    dear = {"int8 dynamic", "weights only"}
    assert families("arm64") >= dear
    assert families("cuda") & dear == {"weights only"}
    assert not families("tensorrt") & dear


@pytest.mark.slow
def test_pruned_models_are_halved_too() -> None:
    outcome = search(
        ctx=Context(target=Target.named("cuda")),
        measure=None,
        passes=("simplify", "half", "prune-channels"),
    )
    assert any(r.name.startswith("pruned") and r.name.endswith("float16") for r in outcome.results)


@pytest.mark.parametrize("row", [0, 34, 68, 119])
def test_nan_is_refused_before_anything_is_made_wherever_it_stands(row: int) -> None:
    made = arrays(120)
    made["x"] = made["x"].copy()
    made["x"][row] = np.nan
    seen: list[Any] = []
    with pytest.raises(DataError, match=f"row {row}"):
        optimize(graphs.cnn(), made, measure=fast_int8, watch=lambda d, _: seen.append(d))
    assert [d["stage"] for d in seen if d["stage"] not in {"plan", "original", "first"}] == []


def test_nan_is_a_missing_value_where_the_model_reads_it_so() -> None:
    model = graphs.model_of(
        """(float[batch,3,8,8] x) => (float[batch,4] y)
        <float zero = {0.0}, float[8,3,3,3] w0, float[4,8] w1, float[4] b1> {
            gone = IsNaN (x)  known = Where (gone, zero, x)  c = Conv (known, w0)  r = Relu (c)
            p = GlobalAveragePool (r)  f = Flatten (p)  y = Gemm <transB=1> (f, w1, b1) }"""
    )
    made = arrays(120)
    made["x"] = made["x"].copy()
    made["x"][::7, 1, 2, 3] = np.nan
    outcome = optimize(model, made, measure=fast_int8, constraints=LOOSE, passes=SMALL)
    assert any(r.name.startswith("int8") and r.selection for r in outcome.results)
    assert "NaN" not in repr([r.failure for r in outcome.results])


def test_calibration_data_among_the_evaluation_data_are_refused_or_marked() -> None:
    from trimtab.core.dataset import Dataset

    made = arrays(120)
    data = Dataset.of_arrays({"x": made["x"]}, made["labels"])
    with pytest.raises(DataError, match="--same-data"):
        optimize(graphs.cnn(), data, eval_data=data)
    shared = optimize(
        graphs.cnn(),
        data,
        eval_data=data,
        same_data=True,
        constraints=LOOSE,
        measure=fast_int8,
        passes=SMALL,
    )
    assert "among the evaluation data" in shared.marks[0]


def raising(outputs: Any, labels: Any) -> float:
    raise ValueError("no such thing")


def not_a_number(outputs: Any, labels: Any) -> float:
    return float("nan")


@pytest.mark.parametrize(
    ("score", "message"),
    [(raising, "ValueError: no such thing"), (not_a_number, "NaN or infinite")],
)
@pytest.mark.parametrize("itemwise", [True, False])
def test_a_metric_that_fails_is_reported(score: Any, message: str, itemwise: bool) -> None:
    made: Callable[..., Any] = score
    if itemwise and score is not_a_number:
        made = lambda outputs, labels: np.full(len(labels), np.nan)  # noqa: E731
    with pytest.raises(OptionError, match=message):
        search(metric=Metric("own", made, itemwise=itemwise))


@dataclass(frozen=True)
class Breaker(Pass):
    """Rename an output, which no pass may do."""

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        model.graph.outputs[0].name = "other"
        return Rewrite(model.ir)


@dataclass(frozen=True)
class Liar(Pass):
    """Promise the same numbers and make others."""

    tolerance = 1e-5

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        for value in model.graph.initializers.values():
            if value.const_value is not None and value.const_value.dtype == ir.DataType.FLOAT:
                value.const_value = ir.tensor(2 * value.const_value.numpy(), name=value.name)
        return Rewrite(model.ir)


@dataclass(frozen=True)
class Crasher(Pass):
    """Fail with an error of its own."""

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        raise KeyError("lost")


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (Breaker(), "pass breaker changed the model's inputs or outputs"),
        (Liar(), "pass liar changed output"),
        (Crasher(), "pass crasher failed"),
    ],
)
def test_a_custom_pass_that_breaks_its_promise_is_named_and_dropped(
    own: Pass, message: str
) -> None:
    outcome = search(passes=[own, "simplify", "quantize-static"])
    failed = [r for r in outcome.results if r.failure]
    assert {r.name for r in failed} == {own.name(), f"{own.name()}, int8 static"}
    assert all(message in str(r.failure) for r in failed)
    assert outcome.chosen is not None
    assert outcome.chosen.name == "int8 static"


@pytest.mark.slow
def test_the_recipe_of_a_pruned_model_makes_the_same_bytes_without_a_clock(tmp_path: Path) -> None:
    class Clock:
        def median_ns(self, models: Sequence[Model], *rest: Any) -> list[float]:
            return [float(float_bytes(m)) for m in models]

        def compare(self, *rest: Any) -> Any:
            raise AssertionError("nothing is compared")

    np.savez(tmp_path / "data.npz", **arrays(120))
    path = graphs.cnn().save(tmp_path / "float.onnx")
    outcome = optimize(
        str(path),
        str(tmp_path / "data.npz"),
        constraints=LOOSE,
        measure=fast_int8,
        ctx=Context(clock=Clock()),
        passes=["simplify", "prune-channels"],
    )
    save_outcome(outcome, tmp_path / "out")
    recipe = Recipe.load(tmp_path / "out" / "recipe.yaml")
    pruning = next(p for p in recipe.passes if p.name() == "prune-channels")
    assert pruning.to_json()["widths"]
    assert "latency" not in pruning.to_json()
    made = recipe(Model.load(path))
    assert made.to_bytes() == (tmp_path / "out" / "model.onnx").read_bytes()


def test_the_folder_contains_budgets_that_a_gate_reads_and_the_frontier(tmp_path: Path) -> None:
    from trimtab.runtime_bench.gate.budget_file import load_gates
    from trimtab.runtime_bench.gate.verdicts import GateFacts

    np.savez(tmp_path / "data.npz", **arrays(120))
    path = graphs.cnn().save(tmp_path / "float.onnx")
    outcome = optimize(
        str(path), str(tmp_path / "data.npz"), constraints=LOOSE, measure=fast_int8, passes=SMALL
    )
    written = save_outcome(outcome, tmp_path / "out")
    (gate,) = load_gates(tmp_path / "out" / "budgets.yaml")
    budgets = {b.name: b for b in gate.budgets}
    assert {"speedup", "size", "drop", "int8_share"} <= set(budgets)
    size = (tmp_path / "out" / "model.onnx").stat().st_size
    facts = GateFacts(size_bytes=size)
    ruled = {r.budget.name: r.verdict for r in judge(gate, facts, alpha=0.01)}
    assert ruled["size"] == "pass"
    assert outcome.chosen is not None
    others = [r.name for r in outcome.frontier if r is not outcome.chosen]
    models = [p for p in written if p.parent.name == "frontier" and p.suffix == ".onnx"]
    assert len(models) == len(others)
    for model in models:
        recipe = Recipe.load(model.with_suffix(".recipe.yaml"))
        assert recipe(Model.load(path)).to_bytes() == model.read_bytes()
    document = json.loads(
        (tmp_path / "out" / "result.json").read_text(), parse_constant=pytest.fail
    )
    assert document["frontier"] == [r.name for r in outcome.frontier]
    assert document["decisions"]


@pytest.mark.slow
def test_a_second_search_on_the_same_cache_makes_nothing_again(tmp_path: Path) -> None:
    first = search(cache=tmp_path)
    again = search(cache=tmp_path)
    assert again.effort["steps_made"] == 0
    assert (
        again.effort["steps_from_cache"]
        == first.effort["steps_made"] + first.effort["steps_from_cache"]
    )
    assert again.model.to_bytes() == first.model.to_bytes()


@pytest.mark.slow
def test_a_notebook_shows_the_report_with_names_escaped() -> None:
    outcome = optimize(
        graphs.cnn(),
        arrays(60),
        recipes=[Recipe("<b>bold</b>", search().results[0].recipe.passes)],  # type: ignore[union-attr]
        constraints=LOOSE,
        measure=made_comparisons(2.0),
    )
    assert "&lt;b&gt;" in outcome._repr_html_()
    assert "<b>" not in outcome._repr_html_()
