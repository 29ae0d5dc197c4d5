"""Folding: branches that are always taken, constants, and weights that are moved."""

from __future__ import annotations

import graphs
import numpy as np
import pytest
from graphs import model_of, ops

from trimtab.core.model import Model
from trimtab.core.ort.session import build_session, run
from trimtab.passes.graph.cleanup import merge_equal, normalize
from trimtab.passes.graph.forms.folding import fold_branches, fold_constants, fold_moved_weights
from trimtab.passes.graph.names import unique_names

X = np.random.default_rng(3).standard_normal((3, 4)).astype(np.float32)


def same(before: Model, after: Model, **more: np.ndarray) -> None:
    feeds = {"x": X, **more}
    old, new = run(build_session(before), feeds), run(build_session(after), feeds)
    assert list(old) == list(new)
    for name, array in old.items():
        np.testing.assert_allclose(new[name], array, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("taken", "operator"), [(1, "Sigmoid"), (0, "Abs")])
def test_the_branch_of_a_constant_condition_takes_the_place_of_the_if(
    taken: int, operator: str
) -> None:
    before = model_of(f"""(float[n,4] x) => (float[n,4] y, float[4] k) <int64 a = {{{taken}}},
        int64 one = {{1}}, float[4,4] w> {{
        c = Equal (a, one)
        h = MatMul (x, w)
        i, k = If (c) <
            then_branch = yes () => (float[n,4] t, float[4] s) <float[4] s = {{1, 2, 3, 4}}>
                {{ q = Sigmoid (h) t = Add (q, h) }},
            else_branch = no () => (float[n,4] e, float[4] s) <float[4] s = {{4, 3, 2, 1}}>
                {{ q = Abs (h) e = Mul (q, h) }}
        >
        q = Relu (i)
        y = Add (q, k)
    }}""")
    after = before.clone()
    assert fold_branches(after.ir) == 1
    assert "If" not in ops(after)
    assert operator in ops(after)
    same(before, after)


def test_a_condition_inside_of_a_branch_that_is_fed_is_folded_there() -> None:
    before = model_of("""(float[n,4] x, bool c) => (float[n,4] y) <bool k = {1}, float[4,4] w> {
        h = MatMul (x, w)
        y = If (c) <
            then_branch = yes () => (float[n,4] t) {
                q = Sigmoid (h)
                t = If (k) <
                    then_branch = a () => (float[n,4] u) { u = MatMul (q, w) },
                    else_branch = b () => (float[n,4] v) { v = Abs (h) }
                >
            },
            else_branch = no () => (float[n,4] e) { e = Relu (h) }
        >
    }""")
    after = before.clone()
    assert fold_branches(after.ir) == 1
    assert [n.op_type for n in after.nodes()].count("If") == 1
    for flag in (True, False):
        same(before, after, c=np.array(flag))


def test_a_condition_that_a_caller_feeds_stays() -> None:
    model = model_of("""(float[n,4] x, bool c) => (float[n,4] y) {
        y = If (c) <
            then_branch = yes () => (float[n,4] t) { t = Relu (x) },
            else_branch = no () => (float[n,4] e) { e = Abs (x) }
        >
    }""")
    assert fold_branches(model.ir) == 0


def test_constants_are_folded_inside_of_a_branch() -> None:
    before = model_of("""(float[n,4] x, bool c) => (float[n,2,2] y) <int64[1] a = {-1}> {
        y = If (c) <
            then_branch = yes () => (float[n,2,2] t) <int64[2] b = {2, 2}>
                { s = Concat <axis=0> (a, b) t = Reshape (x, s) },
            else_branch = no () => (float[n,2,2] e) <int64[2] b = {2, 2}>
                { s = Concat <axis=0> (a, b) r = Relu (x) e = Reshape (r, s) }
        >
    }""")
    after = before.clone()
    assert [fold_constants(inner) for inner in after.graph.subgraphs()] == [1, 1]
    for flag in (True, False):
        same(before, after, c=np.array(flag))


def test_a_weight_behind_reshape_and_transpose_is_stored_as_it_is_read() -> None:
    before = model_of("""(float[n,4] x) => (float[n,6] y)
        <float[24] w, int64[2] s = {6, 4}> {
        r = Reshape (w, s) t = Transpose <perm=[1,0]> (r) y = MatMul (x, t) }""")
    after = before.clone()
    assert fold_moved_weights(after.ir) == 2
    assert ops(after) == ["MatMul"]
    assert graphs.weights_of(after)["t"].shape == (4, 6)
    same(before, after)


@pytest.mark.parametrize(
    "text",
    [
        """(float[n,4] x) => (float[n,4] y, float[n,4] z) <float[4,4] w> {
            t = Transpose <perm=[1,0]> (w) y = MatMul (x, t) z = MatMul (x, w) }""",
        """(float[n,4] x) => (float[n,4] y, float[4,4] t) <float[4,4] w> {
            t = Transpose <perm=[1,0]> (w) y = MatMul (x, t) }""",
        """(float[n,4] x) => (float[n,4] y, float[4,4] w) <float[4,4] w> {
            t = Transpose <perm=[1,0]> (w) y = MatMul (x, t) }""",
    ],
    ids=["shared", "output of the move", "output itself"],
)
def test_a_moved_weight_that_something_else_reads_stays(text: str) -> None:
    model = model_of(text)
    assert fold_moved_weights(model.ir) == 0
    assert "Transpose" in ops(model)


def test_of_two_equal_nodes_the_one_without_a_name_for_an_output_gets_it() -> None:
    """Merging leaves the first, whose output is left out, and the second one's is read."""
    before = model_of(
        """(float[t,n,4] x) => (float[1,n,3] s, float[t,1,n,3] z)
        <float[1,12,4] w, float[1,12,3] r> {
        none, a = LSTM <hidden_size=3> (x, w, r)
        b, c = LSTM <hidden_size=3> (x, w, r)
        s = Add (a, c)
        z = Relu (b)
    }"""
    )
    before.graph.node(0).outputs[0].name = ""
    after = before.clone()
    merge_equal(after.ir)
    assert ops(after).count("LSTM") == 1
    feeds = {"x": np.ones((5, 2, 4), np.float32)}
    old, new = run(build_session(before), feeds), run(build_session(after), feeds)
    for name, array in old.items():
        np.testing.assert_allclose(new[name], array, rtol=1e-5)


def test_normal_form_has_constants_as_initializers_in_branches_too() -> None:
    model = model_of("""(float[n,4] x, bool c) => (float[n,4] y) {
        y = If (c) <
            then_branch = yes () => (float[n,4] t)
                { k = Constant <value = float[4] {1, 2, 3, 4}> () t = Add (x, k) },
            else_branch = no () => (float[n,4] e)
                { k = Constant <value_floats = [1.0]> () e = Mul (x, k) }
        >
    }""")
    before = model.clone()
    normalize(model.ir)
    unique_names(model.ir)
    assert {n.op_type for n in model.nodes()} == {"If", "Add", "Mul"}
    assert [list(g.initializers) != [] for g in model.graph.subgraphs()] == [True, True]
    for flag in (True, False):
        same(before, model, c=np.array(flag))
