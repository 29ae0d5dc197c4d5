"""Models without layers, as trees are: told at once, and handed back as they are."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import model_of

from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError
from trimtab.core.model import Model
from trimtab.passes import find
from trimtab.passes.base import Pass
from trimtab.passes.graph.layers import has_layers, has_only_learned
from trimtab.passes.graph.same_graph import is_same_graph

TREE = """[trees] s = ai.onnx.ml.TreeEnsembleRegressor <
    nodes_treeids = [0, 0, 0], nodes_nodeids = [0, 1, 2], nodes_featureids = [1, 0, 0],
    nodes_values = [0.5, 0.0, 0.0], nodes_modes = ["BRANCH_LEQ", "LEAF", "LEAF"],
    nodes_truenodeids = [1, 0, 0], nodes_falsenodeids = [2, 0, 0], target_treeids = [0, 0],
    target_nodeids = [1, 2], target_ids = [0, 0], target_weights = [1.0, 2.0],
    n_targets = 1> (x)"""


def trees(then: str = "y = Identity (s)", weights: str = "") -> Model:
    text = f"(float[N,4] x) => (float[N,1] y) {weights} {{ {TREE} {then} }}"
    return model_of(text, imports=', "ai.onnx.ml" : 3')


DATA = Dataset.of_arrays({"x": np.random.default_rng(0).standard_normal((8, 4)).astype("f4")})
QUANTIZERS = ["quantize-auto", "quantize-dynamic", "quantize-static", "quantize-weights"]
OTHERS = ["cluster-weights", "compress-weights", "equalize", "half", "prune-channels",
          "prune-magnitude", "absorb-bias", "smooth-quant"]  # fmt: skip


def made(name: str) -> Pass:
    fields = {"data": DATA} if "data" in find(name).fields() else {}
    return find(name)(**fields)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_quantizers_refuse_trees_before_they_run_anything(name: str, monkeypatch) -> None:
    monkeypatch.setattr("trimtab.passes.base.check_result", None)
    with pytest.raises(DataError, match="has nothing to quantize") as refused:
        made(name)(trees("t = Mul (s, s) y = Exp (t)"))
    assert "trees" in str(refused.value.hint)


@pytest.mark.parametrize("name", OTHERS)
def test_passes_of_layers_hand_trees_back_with_the_reason(name: str) -> None:
    before = trees()
    after = made(name)(before)
    assert is_same_graph(before.ir, after.ir)
    ((_, reason),) = after.lineage[-1].notes["declined"]
    assert reason == "has neither layers nor weights, as trees have none"


@pytest.mark.parametrize(
    ("then", "weights"),
    [
        ("y = MatMul (s, w)", "<float[1,1] w>"),
        ("t = Gather (w, i) y = Add (s, t)", "<float[300,1] w, int64[1] i = {3}>"),
        ("t = com.microsoft.Gelu (s) y = Identity (t)", ""),
    ],
)
def test_what_stands_beside_trees_is_worked_on(then: str, weights: str) -> None:
    assert has_layers(trees(then, weights).ir)


def test_a_model_without_trees_is_never_taken_for_one() -> None:
    assert has_layers(model_of("(float[N,4] x) => (float[N,4] y) { y = Add (x, x) }").ir)


def test_only_what_is_learned_elsewhere_and_casts_have_nothing_to_simplify() -> None:
    assert has_only_learned(trees().ir)
    assert not has_only_learned(trees("t = Add (s, s) y = Sub (t, s)").ir)
    after = find("simplify")()(trees())
    assert next(iter(after.graph)).op_type == "TreeEnsembleRegressor"


@pytest.mark.parametrize(
    "other",
    [
        "y = Abs (s)",
        "y = Cast <to = 1> (s)",
        "t = Identity (s) y = Identity (t)",
    ],
)
def test_other_graphs_are_not_the_same(other: str) -> None:
    assert is_same_graph(trees().ir, trees().ir)
    assert not is_same_graph(trees().ir, trees(other).ir)
