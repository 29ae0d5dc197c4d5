"""BatchNormalization folded into the layer before it."""

from __future__ import annotations

import graphs
import numpy as np
import pytest

from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import build_session, run
from trimtab.passes.base import relative_error
from trimtab.passes.graph.forms.batch_norm_fold import fold_norms

NORM = "<float[4] scale, float[4] shift, float[4] mean, float[4] var> {"
END = "y = BatchNormalization <epsilon=0.01> (c, scale, shift, mean, var) }"


def same(before: Model, after: Model) -> None:
    feeds = random_feeds(before, batch=2)
    old, new = (run(build_session(m), feeds) for m in (before, after))
    for name, array in old.items():
        assert relative_error(array, new[name]) < 1e-5


@pytest.mark.parametrize(
    ("weights", "layer"),
    [
        ("<float[4,3,3,3] w, float[4] b, ", "c = Conv (x, w, b)"),
        ("<float[4,3,3,3] w, ", "c = Conv (x, w)"),
        ("<float[3,4,3,3] w, float[4] b, ", "c = ConvTranspose (x, w, b)"),
    ],
)
def test_goes_into_the_convolution_before(weights: str, layer: str) -> None:
    text = f"(float[n,3,6,6] x) => (float[n,4,p,q] y) {weights}{NORM[1:]} {layer} {END}"
    before = graphs.model_of(text)
    after, count = fold_norms(before)
    assert count == 1
    assert "BatchNormalization" not in graphs.ops(after)
    assert "BatchNormalization" in graphs.ops(before)
    assert set(graphs.weights_of(after)) <= {"w", "b", "w.bias"}
    same(before, after)


@pytest.mark.parametrize(
    ("signature", "body"),
    [
        ("(float[n,3,6,6] x) => (float[n,4,p,q] y, float[n,4,p,q] c)", "c = Conv (x, w)"),
        ("(float[n,3,6,6] x) => (float[n,4,p,q] y)", "k = Conv (x, w)  c = Relu (k)"),
        (
            "(float[n,3,6,6] x) => (float[n,4,p,q] y, float[n,4,p,q] z)",
            "c = Conv (x, w)  z = Conv (x, w)",
        ),
    ],
)
def test_stays_where_something_else_sees_what_it_would_change(signature: str, body: str) -> None:
    text = f"{signature} <float[4,3,3,3] w, {NORM[1:]} {body} {END}"
    _, count = fold_norms(graphs.model_of(text))
    assert count == 0


TRAINED = "<float[4,3,3,3] w, float[4] scale, float[4] shift, float[4] mean, float[4] var> {"


@pytest.mark.parametrize(
    ("norm", "opset"),
    [
        ("y, a, b = BatchNormalization <training_mode=1> (c, scale, shift, mean, var)", 15),
        ("y, a, b, d, e = BatchNormalization (c, scale, shift, mean, var)", 9),
    ],
)
def test_a_norm_that_trains_stays(norm: str, opset: int) -> None:
    text = f"(float[n,3,6,6] x) => (float[n,4,p,q] y) {TRAINED} c = Conv (x, w) {norm} }}"
    before = graphs.model_of(text, opset=opset)
    after, count = fold_norms(before)
    assert count == 0
    same(before, after)


@pytest.mark.parametrize("output", ["float[4,3,3,3] w", "float[n,4,p,q] c"])
def test_what_a_caller_reads_keeps_its_numbers(output: str) -> None:
    text = f"(float[n,3,6,6] x) => (float[n,4,p,q] y, {output}) {TRAINED} c = Conv (x, w) {END}"
    before = graphs.model_of(text)
    after, count = fold_norms(before)
    assert count == 0
    same(before, after)


def test_is_folded_inside_of_a_branch_but_not_into_a_layer_outside() -> None:
    norm = "BatchNormalization (c, scale, shift, mean, var)"
    text = f"""(float[n,3,6,6] x, bool f) => (float[n,4,p,q] y) {TRAINED}
        o = Conv (x, w)
        y = If (f) <
            then_branch = yes () => (float[n,4,p,q] t) <float[4,3,1,1] v = {{1, 2, 3, 4, 5, 6,
                7, 8, 9, 1, 2, 3}}> {{ c = Conv (x, v) t = {norm} }},
            else_branch = no () => (float[n,4,p,q] e)
                {{ e = BatchNormalization (o, scale, shift, mean, var) }}
        > }}"""
    before = graphs.model_of(text)
    after, count = fold_norms(before)
    assert count == 1
    assert [n.op_type for n in after.nodes()].count("BatchNormalization") == 1
    for flag in (True, False):
        feeds = {**random_feeds(before, batch=2), "f": np.array(flag)}
        old, new = (run(build_session(m), feeds) for m in (before, after))
        assert relative_error(old["y"], new["y"]) < 1e-5
