from __future__ import annotations

import numpy as np
import pytest
from int8_graphs import graph

from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.passes.graph.names import FreeNames
from trimtab.passes.graph.stored.weight_lift import lift_weights


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


FORMS = {
    "w = Reshape (k, s)": {"k": (12, 4, 4), "s": ints(0, -1)},
    "t = Transpose <perm = [1, 0]> (k)  w = Identity (t)": {"k": (16, 12)},
    "t = Transpose (k)  w = Cast <to = 1> (t)": {"k": np.ones((16, 12), np.float16)},
    "w = Squeeze (k, a)": {"k": (12, 1, 16), "a": ints(1)},
    "t = Unsqueeze (k, a)  w = Flatten <axis = 1> (t)": {"k": (12, 16), "a": ints(-1)},
}


@pytest.mark.parametrize("form", FORMS)
def test_weights_behind_operators_of_form_become_initializers(form):
    before = graph(
        f"g (float[N, 16] x) => (float[N, 12] y) {{ {form}  y = Gemm <transB = 1> (x, w) }}",
        **FORMS[form],
    )
    after = before.clone()
    assert lift_weights(after.ir, {"Gemm"}) == 1
    assert [node.op_type for node in after.graph] == ["Gemm"]
    assert set(after.graph.initializers) == {"w"}
    feeds = {"x": np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)}
    expected, got = (run(build_session(m, SessionConfig()), feeds)["y"] for m in (before, after))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_computed_weight_that_is_an_output_stays_one():
    model = graph(
        """g (float[N, 8] x) => (float[N, 8] y, float[8, 8] w) {
          w = Transpose (k)
          y = MatMul (x, w)
        }""",
        k=(8, 8),
    )
    assert lift_weights(model.ir, {"MatMul"}) == 1
    assert [node.op_type for node in model.graph] == ["Transpose", "MatMul"]
    assert [value.name for value in model.graph.outputs] == ["y", "w"]


def test_new_names_differ_from_those_in_subgraphs_too():
    model = graph(
        """g (float[N, 8] x, bool c) => (float[N, 8] y) {
          y = If (c) <then_branch = t () => (float[N, 8] p) { [inner] p = Relu (x) },
                      else_branch = e () => (float[N, 8] q) { q = Neg (x) }>
        }"""
    )
    names = FreeNames(model.graph)
    assert [names.tensor(n) for n in ("p", "p", "x", "r", "r")] == ["p_1", "p_2", "x_1", "r", "r_1"]
    assert names.node("inner") == "inner_1"
