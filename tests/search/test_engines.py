"""Execution providers as a choice of candidates: judged and measured where they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import graphs
import numpy as np
import openvino_here
import pytest
import yaml
from cnn_data import arrays
from made_comparisons import made_comparison
from search_fakes import LOOSE, plan_for

from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.core.ort.accelerators import OPENVINO
from trimtab.core.ort.engines import Engine
from trimtab.core.ort.session import SessionConfig
from trimtab.core.runner import OnEngineBeside
from trimtab.runtime_bench.measure.subject import OnEngine
from trimtab.search.optimize import optimize
from trimtab.search.recipe import Recipe
from trimtab.search.result import Constraints, Result
from trimtab.search.speed.fingerprint import kernels
from trimtab.search.steps.engines import read_engines, worth_trying


def faster_there(base: Model, candidates: Sequence[Any], *rest: Any) -> list[Any]:
    """Measure what has an engine of its own as three times as fast, all else as twice."""
    return [made_comparison(3.0 if isinstance(c, OnEngine) else 2.0) for c in candidates]


@pytest.mark.skipif(not openvino_here.RUNS, reason=openvino_here.NEEDED)
def test_a_candidate_on_an_engine_is_one_of_its_own(tmp_path: Path) -> None:
    graphs.cnn().save(tmp_path / "float.onnx")
    np.savez(tmp_path / "rows.npz", **arrays(120))
    outcome = optimize(
        tmp_path / "float.onnx",
        tmp_path / "rows.npz",
        constraints=LOOSE,
        measure=faster_there,
        passes=("simplify", "quantize-static"),
        providers=["cpu", "openvino"],
    )
    outcome.save(tmp_path / "out")
    names = {r.name: r for r in outcome.results}
    assert {"int8 static", "int8 static on openvino", "float simplified on openvino"} <= set(names)
    assert outcome.chosen is not None
    assert outcome.chosen.engine == "openvino"
    assert outcome.chosen in outcome.frontier
    assert outcome.to_json()["results"][-1]["engine"] == "openvino"
    here, there = names["int8 static"].selection, names["int8 static on openvino"].selection
    assert here is not None
    assert there is not None
    assert here.count == there.count
    gate = yaml.safe_load((tmp_path / "out" / "budgets.yaml").read_text())
    assert (gate["provider"], gate["baseline_provider"]) == ("openvino", "cpu")
    assert gate["budgets"]["provider"] == OPENVINO


@pytest.mark.skipif(openvino_here.INSTALLED, reason="OpenVINO is installed")
def test_a_missing_engine_is_refused_with_what_to_install() -> None:
    with pytest.raises(OptionError, match="onnxruntime-ep-openvino"):
        optimize(graphs.cnn(), arrays(), providers=["cpu", "openvino"])


def test_engines_are_names_of_what_is_installed() -> None:
    assert read_engines(["cpu"]) == [Engine.of("cpu")]
    assert Engine.of("cpu") in read_engines(["auto"])
    with pytest.raises(OptionError, match="WebNN"):
        read_engines(["cpu", "webnn"])


def test_the_float_model_and_the_fastest_files_are_tried_there() -> None:
    plan = plan_for()
    float_one, int8 = plan.floats()[0], plan.int8()[0]
    other, slow = replace(int8, name="pruned"), replace(int8, name="slow")

    def known(recipe: Recipe, ratio: float, engine: str | None = None) -> Result:
        return Result(recipe.name, recipe, comparison=made_comparison(ratio), engine=engine)

    kept = [known(int8, 2.0), known(float_one, 1.0), known(other, 3.0), known(slow, 1.5)]
    kept.append(known(replace(int8, name="elsewhere"), 9.0, "openvino"))
    assert [r.name for r in worth_trying(kept)] == [float_one.name, "pruned", int8.name]


def test_candidates_run_on_the_engine_and_the_original_where_it_was() -> None:
    seen: list[str] = []

    def runner(model: Model, data: Any, config: SessionConfig) -> Any:
        seen.append(config.provider)
        return iter(())

    original, engine = graphs.cnn(), Engine("Elsewhere")
    run = OnEngineBeside(original, engine, runner)
    for model in (original, graphs.cnn()):
        run(model, Dataset.of_arrays(arrays(4)), SessionConfig())
    assert seen == [SessionConfig().provider, "Elsewhere"]


def test_the_same_file_on_another_engine_runs_other_kernels() -> None:
    model, other = graphs.cnn(), graphs.cnn()
    assert kernels(model) == kernels(other)
    assert kernels(OnEngine(model, Engine.of("cpu"))) != kernels(model)


@pytest.mark.parametrize(("goal", "times"), [("latency", {"speedup": 1.8}), ("throughput", {})])
def test_a_winner_on_an_engine_is_gated_on_it(
    tmp_path: Path, goal: str, times: dict[str, float]
) -> None:
    from trimtab.search.reporting.budgets import budgets_text

    model = graphs.cnn()
    model.save(tmp_path / "float.onnx")
    recipe = replace(
        plan_for().int8()[0], model=str(tmp_path / "float.onnx"), target=plan_for().target
    )
    chosen = Result("int8", recipe, model, 100, comparison=made_comparison(2.0), engine="openvino")
    constraints = Constraints.of({"goal": goal})
    outcome: Any = SimpleNamespace(chosen=chosen, data={}, constraints=constraints)
    text = budgets_text(outcome, tmp_path)
    assert text is not None
    gate = yaml.safe_load(text)
    assert (gate["provider"], gate["baseline_provider"]) == ("openvino", "cpu")
    assert gate["budgets"] == times | {"size": 102, "provider": OPENVINO}
