from __future__ import annotations

import numpy as np
import pytest
from int8_graphs import graph

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.core.target import Target
from trimtab.passes.quantization.static import QuantizeStatic

VNNI = Context(target=Target.named("x64-avx512-vnni"))


def two_branches(tail: str, results: str = "float[N, 8, 6, 6] y") -> Model:
    return graph(
        f"""g (float[N, 3, 6, 6] a, float[N, 3, 6, 6] b) => ({results}) {{
          p = Conv <pads = [1, 1, 1, 1]> (a, w)
          q = Conv <pads = [1, 1, 1, 1]> (b, w)
          {tail}
        }}""",
        w=(4, 3, 3, 3),
        v=(4, 8, 1, 1),
        first=np.arange(8, dtype=np.float32).reshape(8, 1, 1),
        four=np.array(4, np.float32),
    )


def feeds(rows: int, size: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    a, b = rng.uniform(-1, 1, (2, rows, 3, 6, 6)).astype(np.float32)
    return {"a": a, "b": b * np.float32(size)}


def answers(model: Model, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return run(build_session(model, SessionConfig.for_evaluation(VNNI.target)), given)


def quantized(model: Model, size: float) -> Model:
    # What follows the last layers stays float by another rule.
    return QuantizeStatic(data=Dataset.of_arrays(feeds(32, size)), all_int8=True)(model, VNNI)


@pytest.mark.parametrize(
    "tail",
    [
        "y = Concat <axis = 1> (p, q)",
        "c = Concat <axis = 1> (p, q)  y = Identity (c)",
        "c = Concat <axis = 1> (p, q)  y = Transpose <perm = [0, 1, 3, 2]> (c)",
        "c = Concat <axis = 1> (p, q)  s, t = Split <axis = 1> (c)"
        "  u = Sigmoid (s)  y = Concat <axis = 1> (u, t)",
        "s = Relu (p)  t = Transpose <perm = [0, 2, 3, 1]> (q)"
        "  r = Transpose <perm = [0, 2, 3, 1]> (s)"
        "  c = Concat <axis = 3> (r, t)  d = Relu (c)  e = Concat <axis = 3> (d, d)"
        "  y = Transpose <perm = [0, 3, 1, 2]> (e)",
        "c = Concat <axis = 1> (p, q)  s = Add (c, four)  y = Mul (s, first)",
        "c = Concat <axis = 1> (p, q)  y = GlobalAveragePool (c)",
        "one = Less (first, four)  r = Concat <axis = 1> (p, p)  s = Concat <axis = 1> (q, q)"
        "  y = Where (one, r, s)",
    ],
)
def test_the_small_side_of_a_concat_is_not_rounded_to_the_scale_of_the_large(tail):
    model = two_branches(tail)
    given = feeds(4, 1000)
    want = answers(model, given)["y"]
    got = answers(quantized(model, 1000), given)["y"]
    for side in (slice(0, 4), slice(4, 8)):
        assert np.abs(got[:, side] - want[:, side]).max() < 0.03 * np.abs(want[:, side]).max()


def test_a_function_of_a_concat_reads_its_small_side_as_float():
    model = two_branches("c = Concat <axis = 1> (p, q)  y = Sigmoid (c)")
    given = feeds(4, 1000)
    want = answers(model, given)["y"][:, :4]
    got = answers(quantized(model, 1000), given)["y"][:, :4]
    np.testing.assert_allclose(got, want, atol=0.02)


def test_a_concat_that_stays_float_is_listed_with_the_reason():
    after = quantized(two_branches("y = Concat <axis = 1> (p, q)"), 1000)
    (reason,) = [why for _, why in after.lineage[-1].notes["declined"]]
    assert reason == "one scale for all of its inputs would lose the smallest"


@pytest.mark.parametrize(
    ("tail", "size"),
    [
        ("y = Concat <axis = 1> (p, q)", 2),
        ("c = Concat <axis = 1> (p, q)  y = Conv (c, v)", 1000),
        ("z = Sub (p, p)  y = Concat <axis = 1> (z, q)", 1),
    ],
)
def test_a_concat_of_alike_sizes_or_for_a_convolution_alone_is_int8(tail, size):
    after = quantized(two_branches(tail, "float[N, C, 6, 6] y"), size)
    assert "declined" not in after.lineage[-1].notes
