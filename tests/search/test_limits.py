"""Limits of several metrics at once, from the options to the gate."""

from __future__ import annotations

import json
from pathlib import Path

import graphs
import numpy as np
import pytest
from cnn_data import arrays
from cnn_data import labelled as data
from made_comparisons import made_comparisons

from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError
from trimtab.core.metric import evaluate, find_limited, find_metric, joint_loss
from trimtab.core.units import drops
from trimtab.passes.quantization.static import QuantizeStatic
from trimtab.report.constraints import constraint_lines
from trimtab.report.view import load
from trimtab.runtime_bench.gate.budget_file import load_gates
from trimtab.runtime_bench.gate.rules import judge
from trimtab.runtime_bench.gate.verdicts import GateFacts
from trimtab.search.optimize import optimize, save_outcome
from trimtab.search.recipe import Recipe
from trimtab.search.reporting.summary import outcome_lines
from trimtab.search.result import Constraints

BOTH = {"top1": 0.5, "f1": 0.4}


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["0.02"], 0.02),
        (["2%"], 0.02),
        (["map=0.01", "miou=2%"], {"map": 0.01, "miou": 0.02}),
        (["map:head=yolox=0.5%"], {"map:head=yolox": 0.005}),
    ],
)
def test_options_are_one_number_or_one_a_metric(texts: list[str], expected: object) -> None:
    found = drops(texts)
    assert found == expected if isinstance(expected, dict) else found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a=1", "a=2"], "names a metric twice"),
        (["0.1", "a=1"], "names no metric"),
        (["a=x"], "'x' is not a number"),
    ],
)
def test_invalid_limits_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        drops(texts)


def test_constraints_hold_one_limit_a_metric() -> None:
    found = Constraints.of({"max_drop": {"map": "1%", "miou": 0.02}})
    assert (found.max_drop, found.max_drops) == (0.01, {"map": 0.01, "miou": 0.02})
    assert found.to_json()["max_drops"] == {"map": 0.01, "miou": 0.02}
    assert "max_drops" not in Constraints(max_drop=0.1).to_json()
    with pytest.raises(OptionError, match="not of top1"):
        find_limited(found.max_drops, "top1", data())


def test_loss_is_that_of_the_metric_nearest_to_its_limit() -> None:
    model, worse = graphs.cnn(), QuantizeStatic(data=data())(graphs.cnn())
    metric, limit = find_limited({"cosine": 1e-1, "fidelity": 1e-9}, None, data())
    mine, base = (evaluate(m, data(), metric, reference=model) for m in (worse, model))
    assert [loss.metric for loss in mine.losses_from(base, limit)] == ["cosine", "fidelity"]
    cosine, fidelity = (loss.drop for loss in mine.losses_from(base, limit))
    assert joint_loss(mine, base, limit) == pytest.approx(max(cosine, fidelity * 1e8))
    alone = evaluate(worse, data(), find_metric("cosine", data()), reference=model)
    assert alone.value == mine.value


@pytest.mark.slow
def test_quantization_leaves_layers_float_for_each_metric() -> None:
    limits = {"cosine": 1.0, "neg_mse": 1e-5}
    rows = arrays(60)
    rows.pop("labels")
    plain = Dataset.of_arrays(rows)
    tight = QuantizeStatic(data=plain, max_drop=limits)(graphs.cnn())
    loose = QuantizeStatic(data=plain, max_drop={**limits, "neg_mse": 1e9})(graphs.cnn())
    left = [len(m.lineage[-1].notes["mixed"]["float"]) for m in (tight, loose)]
    assert left[0] > left[1] == 0
    with pytest.raises(OptionError, match="must not be negative"):
        QuantizeStatic(max_drop={"cosine": -1.0})


@pytest.mark.slow
def test_search_holds_all_limits_and_says_each(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    made = arrays(120)
    np.savez(folder / "calib.npz", **{name: a[:60] for name, a in made.items()})
    np.savez(folder / "eval.npz", **{name: a[60:] for name, a in made.items()})
    recipes = [Recipe("int8", (QuantizeStatic(data=data()),))]
    outcome = optimize(
        graphs.cnn(),
        str(folder / "calib.npz"),
        eval_data=str(folder / "eval.npz"),
        recipes=recipes,
        constraints={"max_drop": BOTH},
        measure=made_comparisons(2.0),
    )
    assert outcome.chosen is not None
    assert outcome.chosen.selection is not None
    assert [q.metric for q in outcome.chosen.selection.others] == ["f1"]
    text = "\n".join(outcome_lines(outcome))
    assert "\n  f1 " in text
    assert text.splitlines()[0].split()[2:6] == ["top1", "drop", "f1", "drop"]
    result = save_outcome(outcome, tmp_path / "out")[-1]
    assert json.loads(result.read_text())["constraints"]["max_drops"] == BOTH
    lines = {line.name: line for line in constraint_lines(load(result))}
    assert lines["loss of f1"].limit == "at most 0.4"
    assert lines["loss of f1"].verdict == "held"
    [gate] = load_gates(tmp_path / "out" / "budgets.yaml")
    assert [b.name for b in gate.budgets if b.kind == "quality"] == ["drop of top1", "drop of f1"]
    assert gate.metric is None


def test_search_drops_what_breaks_the_second_limit_alone() -> None:
    outcome = optimize(
        graphs.cnn(),
        data(),
        recipes=[Recipe("int8", (QuantizeStatic(data=data()),))],
        constraints={"max_drop": {"top1": 1.0, "cosine": 0.0}},
        measure=made_comparisons(2.0),
    )
    assert outcome.chosen is None
    assert "of cosine, 0 is allowed" in " ".join(outcome.why)


def test_gate_judges_each_metric(tmp_path: Path) -> None:
    model, rows = graphs.cnn(), arrays(40)
    model.save(tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", **rows)
    (tmp_path / "b.yaml").write_text(
        "model: m.onnx\nbaseline: m.onnx\ndata: d.npz\nbudgets: {drop: {top1: 1%, f1: 0.02}}\n"
    )
    [gate] = load_gates(tmp_path / "b.yaml")
    assert [(b.metric, b.limit) for b in gate.budgets] == [("top1", 0.01), ("f1", 0.02)]
    metric, _ = find_limited({b.metric: b.limit for b in gate.budgets}, None, data())
    quality = evaluate(model, data(), metric)
    verdicts = judge(gate, GateFacts(quality=(quality, quality)), alpha=0.01)
    assert [v.evidence.split()[0] for v in verdicts] == ["top1", "f1"]
    assert {v.verdict for v in verdicts} == {"pass"}
