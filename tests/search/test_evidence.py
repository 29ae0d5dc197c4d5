"""Evidence of a winner: layers before and after, rounding errors, widths, lineage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import pytest
from cnn_data import arrays
from cnn_data import labelled as data
from made_comparisons import made_comparisons

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.lineage import Step
from trimtab.core.model import Model
from trimtab.core.target import Target
from trimtab.passes import find
from trimtab.passes.base import Pass
from trimtab.report import page as page_module
from trimtab.search.optimize import optimize
from trimtab.search.recipe import Recipe
from trimtab.search.reporting.evidence import gather_evidence, widths
from trimtab.search.result import Constraints, Result

CTX = Context(target=Target.detect(1))
SIMPLIFY = find("simplify")()


def static() -> Pass:
    return find("quantize-static").from_json({"data": data().take(30)})


def found(*passes: Pass, **changes: Any) -> dict[str, Any]:
    """Collect the evidence of a winner made by these passes."""
    model, recipe = graphs.cnn(), Recipe("winner", passes)
    chosen = Result("winner", recipe, recipe(model, CTX))
    row = {name: array[:1] for name, array in arrays(1).items() if name != "labels"}
    options = {"held_out": data(), "feeds": row, "ctx": CTX} | changes
    return gather_evidence(Result("original", model=model), [chosen], chosen, **options)


@pytest.mark.slow
def test_layers_have_their_time_in_both_models_and_their_error() -> None:
    evidence = found(SIMPLIFY, static())
    assert evidence["missing"] == {}
    products = [x for x in evidence["layers"] if x["op_type"] in {"Conv", "Gemm"}]
    assert len(products) >= 4
    assert all(x["before_ns"] > 0 for x in products)
    rounded = {x["layer"]: x["snr_accumulated_db"] for x in evidence["errors"]["layers"]}
    assert {x["name"] for x in products} <= set(rounded)
    assert all(10 < rounded[x["name"]] < 80 for x in products)
    assert evidence["errors"]["notes"] == []  # the float model that was quantized was found
    assert "QLinearConv" in {x["runs_as"] for x in evidence["layers"]}
    assert evidence["int8"]["int8_ops"] >= 3
    assert [step["pass"] for step in evidence["lineage"]] == ["simplify", "quantize-static"]
    json.dumps(evidence, allow_nan=False)


def test_a_float_winner_has_no_rounding_error_and_says_so() -> None:
    evidence = found(SIMPLIFY)
    assert evidence["errors"] is None
    assert evidence["missing"] == {}
    assert evidence["islands"] == []


def test_a_part_that_cannot_be_collected_is_reported_and_costs_nothing_else() -> None:
    other = Dataset.of_arrays({"wrong": np.zeros((4, 2), np.float32)})
    evidence = found(SIMPLIFY, static(), held_out=other)
    assert "wrong" in evidence["missing"]["errors"]
    assert evidence["layers"]
    assert evidence["lineage"]


@pytest.mark.slow
def test_the_float_beginning_is_taken_from_whoever_kept_it() -> None:
    recipes: list[Recipe] = []

    def make(recipe: Recipe) -> Model:
        recipes.append(recipe)
        return recipe(graphs.cnn(), CTX)

    evidence = found(SIMPLIFY, static(), make=make)
    assert [p.name() for p in recipes[0].passes] == ["simplify"]
    assert evidence["missing"] == {}


def test_widths_are_those_before_the_first_and_after_the_last_pruning() -> None:
    def step(*groups: dict[str, Any]) -> Step:
        return Step("prune-channels", {}, "", {"groups": groups})

    first = step({"name": "a", "channels": [64, 48], "operators": 2})
    second = step({"name": "a", "channels": [48, 40]}, {"name": "b", "channels": [32, 16]})
    known = {
        w["name"]: (w["before"], w["after"]) for w in widths([first, Step("x", {}, ""), second])
    }
    assert known == {"a": (64, 40), "b": (32, 16)}


@pytest.mark.parametrize("part", ["selection", "test"])
def test_drops_are_paired(part: str) -> None:
    from trimtab.core.metric import Quality

    base = Quality("top1", 0.75, np.array([1.0, 1.0, 1.0, 0.0]), 4)
    mine = Quality("top1", 0.5, np.array([1.0, 1.0, 0.0, 0.0]), 4)
    original, other = Result("original", **{part: base}), Result("other", **{part: mine})
    known = gather_evidence(original, [other], None, held_out=data(), feeds={}, ctx=CTX)["drops"]
    assert known == {"other": {part: [0.25, pytest.approx(0.25)]}}


@pytest.mark.slow
def test_a_search_keeps_the_evidence_of_its_winner_and_draws_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "charting_script", lambda: "window.vegaEmbed = null;")
    outcome = optimize(
        graphs.cnn(),
        data(),
        recipes=[Recipe("float", (SIMPLIFY,)), Recipe("int8", (SIMPLIFY, static()))],
        constraints=Constraints(max_drop=1.0),
        ctx=CTX,
        measure=made_comparisons(1.0, 2.0),
        look_into=True,
    )
    assert outcome.evidence["missing"] == {}
    assert "int8" in outcome._repr_html_()
    written = outcome.save(tmp_path)
    assert written[-1] == tmp_path / "report.html"
    document = json.loads((tmp_path / "result.json").read_text())
    assert [x["layer"] for x in document["evidence"]["errors"]["layers"]]
    assert set(document["evidence"]["drops"]["int8"]) == {"selection", "test"}
