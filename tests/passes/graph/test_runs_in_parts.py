"""Inner tensors part by part: the same values, few of them at a time."""

from __future__ import annotations

import numpy as np
import pytest
from int8_graphs import graph

from trimtab.core.ort.inner_outputs import with_outputs
from trimtab.core.ort.inner_shapes import inner_bytes
from trimtab.core.ort.session import build_session, run
from trimtab.passes.graph import runs_in_parts as module
from trimtab.passes.graph.runs_in_parts import RunsInParts

WANTED = ["a", "b", "d", "e", "y"]


def network():
    """Return a network with a skip over several parts, a shape that is computed, and a constant."""
    return graph(
        """g (float[N, 8] x, float[N, 8] z) => (float[N, M] y) {
          a = MatMul (x, w)
          b = Relu (a)
          half = Constant <value = float {0.5}> ()
          twice = Add (half, half)
          c = Mul (b, twice)
          d = Add (c, z)
          size = Shape (a)
          flat = Reshape (d, size)
          e = Sigmoid (flat)
          y = Add (e, a)
        }""",
        w=(8, 8),
    )


@pytest.mark.parametrize(("limit", "parts"), [(1, 5), (500, 3), (10**6, 1)])
def test_parts_give_the_tensors_of_a_whole_run_and_keep_the_limit(monkeypatch, limit, parts):
    monkeypatch.setattr(module, "PART_BYTES", limit)
    model, rng = network(), np.random.default_rng(0)
    draws = [rng.standard_normal((2, 6, 8)).astype(np.float32) for _ in range(3)]
    sizes = inner_bytes(model, WANTED, dict(zip("xz", draws[0], strict=True)))
    runs = RunsInParts(model, WANTED, sizes, level="basic")
    for draw in draws:
        feeds = dict(zip("xz", draw, strict=True))
        whole = run(build_session(with_outputs(model, WANTED)), feeds, WANTED)
        found = []
        for arrays in runs.run(feeds):
            assert len(arrays) == 1 or sum(sizes[name] for name in arrays) <= limit
            found.append(dict(arrays))
        assert len(found) == parts
        assert [name for some in found for name in some] == WANTED
        for name, array in (pair for some in found for pair in some.items()):
            np.testing.assert_allclose(array, whole[name], rtol=1e-6)


def test_a_graph_with_branches_is_not_cut(monkeypatch):
    monkeypatch.setattr(module, "PART_BYTES", 1)
    model = graph(
        """g (float[N, 8] x, bool p) => (float[N, 8] y) {
          a = Relu (x)
          b = If (p) <
            then_branch = t () => (float[N, 8] u) { u = Neg (a) },
            else_branch = f () => (float[N, 8] v) { v = Abs (a) }
          >
          y = Sigmoid (b)
        }"""
    )
    feeds = {"x": np.ones((2, 8), np.float32), "p": np.array(True)}
    names = ["a", "b", "y"]
    (arrays,) = map(dict, RunsInParts(model, names, dict.fromkeys(names, 64), "basic").run(feeds))
    assert arrays["b"].tolist() == (-np.ones((2, 8))).tolist()
