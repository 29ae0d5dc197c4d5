from __future__ import annotations

import numpy as np
import pytest
from int8_graphs import graph, normal

from trimtab.core.context import Context
from trimtab.core.ort.inner_outputs import with_outputs
from trimtab.core.ort.session import build_session, run
from trimtab.core.target import Target
from trimtab.passes.quantization.algorithms.bias_absorption import AbsorbBias

VNNI = Context(target=Target.named("x64-avx512-vnni"))


def lifted(second="Conv", attributes="", head="w2"):
    """A first layer of which half of the channels lie far above zero."""
    bias = np.where(np.arange(8) % 2, 20, 0).astype(np.float32)
    return graph(
        f"""g (float[N, 4, 5, 5] x) => (float[N, C, M, M] y) {{
          [first] a = Conv (x, w1, b1)
          r = Relu (a)
          [second] y = {second} {attributes} (r, {head})
        }}""",
        w1=(8, 4, 1, 1),
        b1=bias,
        w2=(6, 8, 3, 3),
        b2=(6,),
        w3=(8, 2, 3, 3),
    )


def outputs(model, data, name=None):
    session = build_session(with_outputs(model, [name]) if name else model)
    wanted = [name] if name else None
    return np.concatenate([next(iter(run(session, b.feeds, wanted).values())) for b in data])


@pytest.mark.parametrize("head", ["w2", "w2, b2"])
def test_ranges_shrink_and_the_function_stays_on_the_data(head):
    model = lifted(head=head)
    data = normal(model, rows=64)
    after = AbsorbBias(data=data)(model, VNNI)
    assert after.lineage[-1].notes["absorbed"] == 1
    expected = outputs(model, data)
    assert np.abs(outputs(after, data) - expected).max() < 0.02 * np.abs(expected).max()
    assert outputs(after, data, "r").max() < 0.5 * outputs(model, data, "r").max()


def test_grouped_readers():
    model = lifted(attributes="<group = 4>", head="w3")
    data = normal(model, rows=64)
    after = AbsorbBias(data=data)(model, VNNI)
    expected = outputs(model, data)
    assert np.abs(outputs(after, data) - expected).max() < 0.02 * np.abs(expected).max()


def test_a_reader_that_pads_is_declined():
    model = lifted(attributes="<pads = [1, 1, 1, 1]>")
    after = AbsorbBias(data=normal(model))(model, VNNI)
    assert after.lineage[-1].notes["absorbed"] == 0
    assert "pads" in dict(after.lineage[-1].notes["declined"])["first"]


def test_matrix_products():
    model = graph(
        """g (float[N, 6] x) => (float[N, 3] y) {
          [first] a = Gemm <transB = 1> (x, w1, b1)
          r = Relu (a)
          y = Gemm (r, w2)
        }""",
        w1=(8, 6),
        b1=np.full(8, 15, np.float32),
        w2=(8, 3),
    )
    data = normal(model, rows=64)
    after = AbsorbBias(data=data)(model, VNNI)
    assert after.lineage[-1].notes["absorbed"] == 1
    np.testing.assert_allclose(outputs(after, data), outputs(model, data), rtol=0.02, atol=0.2)
