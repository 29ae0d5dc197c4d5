"""The order of work of `optimize`, with made comparisons: a test times nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import graphs
import onnx
import pytest
from cnn_data import arrays
from cnn_data import labelled as data
from made_comparisons import made_comparison, made_comparisons

from trimtab.core.dataset import Dataset
from trimtab.core.errors import BudgetError, DataError
from trimtab.core.model import Model
from trimtab.passes import find
from trimtab.search.optimize import optimize, save_outcome, split_data
from trimtab.search.recipe import Recipe
from trimtab.search.result import Constraints
from trimtab.search.speed.fingerprint import structure

SIMPLIFY = find("simplify")()
FLOAT = Recipe("float", (SIMPLIFY,))


def static(ranges: str, calibration: Dataset) -> Recipe:
    step = find("quantize-static").from_json({"ranges": ranges, "data": calibration})
    return Recipe(f"int8 {ranges}", (SIMPLIFY, step))


def prune(sparsity: float) -> Recipe:
    step = find("prune-magnitude").from_json({"sparsity": sparsity, "min_size": 1})
    return Recipe(f"pruned {sparsity}", (SIMPLIFY, step))


LOOSE = Constraints(max_drop=1.0)


def test_splits_are_disjoint() -> None:
    splits = split_data(data(), None)
    assert len(splits.calibration) + len(splits.selection) + len(splits.test) == 60
    assert not splits.selection.overlaps(splits.test)
    with pytest.raises(DataError, match="the same items"):
        split_data(data(), data())


@pytest.mark.slow
def test_the_fastest_that_satisfies_all_is_chosen_and_written(tmp_path: Path) -> None:
    recipes = [FLOAT, static("minmax", data()), prune(0.5)]
    outcome = optimize(
        graphs.cnn(), data(), recipes=recipes, constraints=LOOSE, measure=made_comparisons(1.0, 2.0)
    )
    assert outcome.chosen is not None
    assert outcome.chosen.name == "int8 minmax"
    written = save_outcome(outcome, tmp_path / "out")
    names = [p.name for p in written]
    # The original was in memory and the data too: it is saved, and no gate could find the data.
    assert names[:3] == ["float.onnx", "model.onnx", "recipe.yaml"]
    assert names[-1] == "result.json"
    document = json.loads(written[-1].read_text())
    assert document["schema"] == 1
    assert document["chosen"] == "int8 minmax"
    assert {p["part"].split()[0] for p in document["data"].values()} == {
        "calibration",
        "selection",
        "test",
    }


def test_nothing_faster_than_float_gives_the_simplified_float_model() -> None:
    recipes = [FLOAT, static("minmax", data())]
    outcome = optimize(
        graphs.cnn(), data(), recipes=recipes, constraints=LOOSE, measure=made_comparisons(1.0, 0.8)
    )
    assert outcome.chosen is not None
    assert outcome.chosen.name == "float"
    assert "Nothing beats the float original" in outcome.why[0]


@pytest.mark.slow
@pytest.mark.parametrize("labels", [True, False])
def test_where_nothing_is_faster_the_smallest_file_that_answers_alike_wins(labels: bool) -> None:
    rows = arrays(60)
    if not labels:
        rows.pop("labels")
    outcome = optimize(
        graphs.cnn(),
        rows,
        passes=["compress-weights"],
        constraints=Constraints(max_drop=0.01),
        measure=made_comparisons(1.0),
    )
    assert outcome.chosen is not None
    assert outcome.chosen.name.startswith("float, weights in")
    assert outcome.chosen.size_bytes < outcome.original.size_bytes
    assert "in fewer bits" in outcome.why[-1]


@pytest.mark.slow
def test_a_smaller_file_that_is_slower_is_not_offered() -> None:
    def slower(base: Model, candidates: Any, *rest: Any) -> Any:
        return [made_comparison(1.0 if "simplified" in c.name else 0.7) for c in candidates]

    outcome = optimize(graphs.cnn(), data(), passes=["compress-weights"], measure=slower)
    assert outcome.chosen is not None
    assert outcome.chosen.name == "float simplified"


def test_without_a_valid_candidate_there_is_no_model() -> None:
    outcome = optimize(
        graphs.cnn(),
        data(),
        recipes=[FLOAT],
        constraints=Constraints(max_size=10),
        measure=made_comparisons(1.0),
    )
    assert outcome.chosen is None
    assert "10 are allowed" in " ".join(outcome.why)
    with pytest.raises(BudgetError):
        _ = outcome.model


def test_a_recipe_that_fails_is_reported_and_the_search_goes_on() -> None:
    twice = Recipe("twice", (SIMPLIFY, *static("minmax", data()).passes[1:] * 2))
    outcome = optimize(
        graphs.cnn(), data(), recipes=[twice, FLOAT], constraints=LOOSE, measure=made_comparisons(1)
    )
    failed, fine = outcome.results
    assert "quantized" in str(failed.failure)
    assert fine.failure is None


def test_a_candidate_that_cannot_be_measured_is_not_chosen() -> None:
    def crashes(base: Model, candidates: Any, *rest: Any) -> Any:
        return [made_comparison(2.0, "its process died") for _ in candidates]

    outcome = optimize(graphs.cnn(), data(), recipes=[FLOAT], constraints=LOOSE, measure=crashes)
    assert outcome.chosen is None
    assert outcome.results[0].failure == "its process died"


def test_equal_recipes_count_once() -> None:
    again = Recipe("again", FLOAT.passes)
    outcome = optimize(
        graphs.cnn(), data(), recipes=[FLOAT, again], constraints=LOOSE, measure=made_comparisons(1)
    )
    assert [r.name for r in outcome.results] == ["float"]


@pytest.mark.slow
def test_of_equal_graphs_one_is_measured() -> None:
    counts = []

    made = made_comparisons(1.0, 2.0)

    def counting(base: Model, candidates: Any, *rest: Any) -> Any:
        counts.append(len(candidates))
        return made(base, candidates)

    recipes = [FLOAT, prune(0.5), *(static(m, data()) for m in ("minmax", "mse"))]
    outcome = optimize(graphs.cnn(), data(), recipes=recipes, constraints=LOOSE, measure=counting)
    assert counts == [2, 2]  # the second run is the fresh one of the winner and the runner-up
    assert [r.measured_as for r in outcome.results] == [None, "float", None, "int8 minmax"]


def test_structure_distinguishes_graphs_and_not_weights() -> None:
    one, two = graphs.cnn(), prune(0.5)(graphs.cnn())
    assert structure(SIMPLIFY(one)) == structure(two)
    assert structure(one) != structure(graphs.mlp())


def test_structure_does_not_depend_on_the_order_of_a_file() -> None:
    text = """<ir_version: 9, opset_import: ["" : 18]>
        g (float[N,4] x) => (float[N,4] y) <float[4] p = {{1,2,3,4}}, float[1] q = {{5}}>
        {{ {nodes} y = Sub (a, b) }}"""
    nodes = ["a = Mul (x, p)", "b = Add (x, q)"]
    one, two = (
        Model.from_proto(onnx.parser.parse_model(text.format(nodes="".join(order))))
        for order in (nodes, nodes[::-1])
    )
    swapped = Model.from_proto(
        onnx.parser.parse_model(text.format(nodes="".join(nodes)).replace("(a, b)", "(b, a)"))
    )
    assert structure(one) == structure(two) != structure(swapped)
