"""Equal constants stored once."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import model_of, weights_of

from trimtab.core.model import Model
from trimtab.core.ort.session import build_session, run
from trimtab.passes.graph.edit import lift_constants
from trimtab.passes.graph.stored.shared_constants import share_equal_constants
from trimtab.passes.simplify.simplify import Simplify

VALUES = np.arange(64, dtype=np.float32)
TEXT = ", ".join(str(int(v)) for v in VALUES)


def constant(name: str, text: str = TEXT) -> str:
    return f"{name} = Constant <value = float[64] {{{text}}}> ()"


def branches(then: str, other: str, outside: str = "h = Abs (x)", outputs: str = "") -> Model:
    model = model_of(f"""(float[n,64] x, bool c) => (float[n,64] y{outputs}) {{
        {outside}
        y = If (c) <
            then_branch = yes () => (float[n,64] t) {{ {then} }},
            else_branch = no () => (float[n,64] e) {{ {other} }}
        >
    }}""")
    lift_constants(model.graph)
    return model


def answers(model: Model) -> list[np.ndarray]:
    session = build_session(model)
    x = np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 64)
    return [run(session, {"x": x, "c": np.array(c)})["y"] for c in (True, False)]


THEN = f"{constant('k')}  t = Add (h, k)"
NESTED = f"""q = ReduceMax <keepdims=0> (h)  z = Less (q, q)
    t = If (z) <
        then_branch = in1 () => (float[n,64] f) {{ {constant("k")}  f = Mul (h, k) }},
        else_branch = in2 () => (float[n,64] g) {{ {constant("k")}  g = Sub (h, k) }}
    >"""


@pytest.mark.parametrize(
    ("then", "other", "outside", "held"),
    [
        (THEN, f"{constant('l')}  e = Mul (h, l)", "", {"": 1}),
        (THEN, f"{constant('k')}  e = Mul (h, k)", "", {"": 1}),
        # One that is outside already, and one whose name another tensor inside has.
        (THEN, "e = Neg (h)", constant("w"), {"": 1}),
        (THEN, f"{constant('l')}  k = Mul (h, l)  e = Neg (k)", "", {"": 1}),
        # Both inside of one branch: no further out than that.
        (NESTED, "e = Neg (h)", "", {"yes": 1}),
        (
            f"{constant('l')}  a = Mul (h, l)  {THEN.replace('h, k', 'a, k')}",
            "e = Neg (h)",
            "",
            {"yes": 1},
        ),
    ],
)
def test_is_held_by_the_innermost_graph_around_its_readers(
    then: str, other: str, outside: str, held: dict[str, int]
) -> None:
    reads = f"{outside} r = Add (x, w)  h = Abs (r)" if outside else "h = Abs (x)"
    model = branches(then, other, reads)
    before = answers(model)
    saved = share_equal_constants(model.ir)
    assert saved == VALUES.nbytes
    found = {
        "" if g is model.graph else str(g.name): len(g.initializers)
        for g in model.ir.graphs()
        if any(v.shape == (64,) for v in g.initializers.values())
    }
    assert found == held
    for old, new in zip(before, answers(Model.from_proto(model.to_proto(), "shared")), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("other", [TEXT.replace("63", "64"), ", ".join("0" * 63)])
def test_constants_that_differ_and_small_ones_stay(other: str) -> None:
    length = other.count(",") + 1
    small = f"l = Constant <value = float[{length}] {{{other}}}> ()"
    model = branches(THEN, f"{small}  r = Sum (l)  e = Neg (h)")
    assert share_equal_constants(model.ir) == 0


def test_what_a_caller_feeds_or_reads_stays() -> None:
    text = "(float[64] x, float[64] v) => (float[64] y, float[64] w) <float[64] w, float[64] v>"
    model = model_of(f"{text} {{ y = Sum (x, w, v) }}", w=VALUES, v=VALUES)
    assert share_equal_constants(model.ir) == 0
    assert set(weights_of(model)) == {"v", "w"}


def test_simplify_writes_tied_weights_once() -> None:
    tied = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    text = "(float[n,64] x) => (float[n,64] y) <float[64,64] a, float[64,64] b>"
    model = model_of(f"{text} {{ h = MatMul (x, a)  y = MatMul (h, b) }}", a=tied, b=tied)
    after = Simplify()(model)
    assert len(weights_of(after)) == 1
    x = np.ones((2, 64), np.float32)
    (old, new) = (run(build_session(m), {"x": x})["y"] for m in (model, after))
    np.testing.assert_allclose(old, new, rtol=1e-6)
