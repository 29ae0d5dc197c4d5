from __future__ import annotations

import numpy as np
import pytest
from int8_graphs import PATTERNS, graph, normal

from trimtab.core.context import Context
from trimtab.core.ort.inner_outputs import with_outputs
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.core.target import Target
from trimtab.passes.graph.partial_run import Walk, channel_mean
from trimtab.passes.quantization.static import QuantizeStatic

VNNI = Context(target=Target.named("x64-avx512-vnni"))


def whole(model, names, batches):
    session = build_session(with_outputs(model, names), SessionConfig(level="basic"))
    return [run(session, batch.feeds, names) for batch in batches]


@pytest.mark.parametrize("pattern", ["chain", "branch", "residual", "squeeze_excite", "attention"])
def test_every_tensor_on_the_way_is_that_of_the_whole_model(pattern):
    float_model = PATTERNS[pattern]()
    batches = list(normal(float_model, rows=4).sized(2))
    model = QuantizeStatic(data=normal(float_model))(float_model, VNNI).clone()
    kinds = {"Conv", "MatMul", "Gemm", "Add", "Mul"}
    stops = [n.outputs[0] for n in model.graph if n.op_type in kinds]
    names = [value.name for value in stops]
    expected = whole(model, names, batches)
    walk = Walk(model, [batch.feeds for batch in batches])
    for value in stops:
        for got, all_ in zip(walk.to(value), expected, strict=True):
            np.testing.assert_allclose(got, all_[value.name], rtol=1e-5, atol=1e-6)


def test_what_nobody_reads_any_more_is_let_go():
    model = PATTERNS["chain"]().clone()
    walk = Walk(model, [batch.feeds for batch in normal(model, rows=2)])
    first, relu, second = (node.outputs[0] for node in model.graph)
    walk.to(first)
    assert set(walk.values[0]) == {first.name}
    walk.to(second)
    assert set(walk.values[0]) == {second.name}
    assert relu.name not in walk.values[0]


def test_a_tensor_that_a_subgraph_reads_is_kept():
    model = graph(
        """g (float[N, 4] x, bool c) => (float[N, 4] y) {
          a = Relu (x)
          b = Neg (a)
          y = If (c) <then_branch = t () => (float[N, 4] p) { p = Add (a, b) },
                      else_branch = e () => (float[N, 4] q) { q = Sub (a, b) }>
        }"""
    ).clone()
    x = np.array([[1, -2, 3, 0]], np.float32)
    walk = Walk(model, [{"x": x, "c": np.array(True)}])
    nodes = list(model.graph)
    walk.to(nodes[1].outputs[0])
    np.testing.assert_array_equal(walk.to(nodes[2].outputs[0])[0], np.zeros((1, 4)))


def test_what_is_added_to_a_tensor_reaches_those_behind_it():
    model = PATTERNS["chain"]().clone()
    walk = Walk(model, [batch.feeds for batch in normal(model, rows=2)])
    first, relu, _ = (node.outputs[0] for node in model.graph)
    before = walk.to(first)[0]
    walk.add(first, np.full(16, 2.0), axis=1)
    np.testing.assert_allclose(walk.to(relu)[0], np.maximum(before + 2, 0), rtol=1e-6)


def test_the_mean_of_a_channel_is_over_all_batches():
    arrays = [np.ones((2, 3, 4)), np.full((1, 3, 4), 4.0)]
    np.testing.assert_allclose(channel_mean(arrays, 1), [2, 2, 2])
