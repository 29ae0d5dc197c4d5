from __future__ import annotations

import numpy as np
import pytest
from int8_graphs import graph

from trimtab.core.ort.session import build_session, run
from trimtab.passes.graph.constant_reader import ConstantReader

MOVES = {
    "Transpose": "y = Transpose <perm = [1, 0, 2]> (w)",
    "Reshape": "y = Reshape (w, shape)",
    "Slice": "y = Slice (w, one, two, zero)",
    "Concat": "y = Concat <axis = 2> (w, w)",
    "Cast": "y = Cast <to = 11> (w)",
    "Squeeze": "u = Unsqueeze (w, zero) v = Squeeze (u, zero) y = Identity (v)",
    "Split": "y, other = Split <axis = 0> (w, parts)",
}


@pytest.mark.parametrize("op", MOVES)
def test_a_constant_is_read_as_onnxruntime_computes_it(op):
    text = MOVES[op].replace(") ", ")\n")
    model = graph(
        f"""g (float x) => (float[A, B, C] out, float x2) {{
          {text}
          out = Cast <to = 1> (y)
          x2 = Neg (x)
        }}""",
        w=(4, 3, 6),
        shape=np.array([0, -1, 2], np.int64),
        zero=np.array([0], np.int64),
        one=np.array([1], np.int64),
        two=np.array([3], np.int64),
        parts=np.array([1, 3], np.int64),
    )
    value = next(v for node in model.graph for v in node.outputs if v.name == "y")
    folded = ConstantReader(model.graph).fold(value)
    assert folded is not None
    assert folded.graph is model.graph
    expected = run(build_session(model), {"x": np.array(0, np.float32)})["out"]
    np.testing.assert_array_equal(folded.array.astype(np.float32), expected)


def test_what_a_caller_feeds_or_the_model_computes_is_not_constant():
    model = graph("g (float[4] x) => (float[4] y) { a = Identity (x) y = Add (a, w) }", w=(4,))
    reader = ConstantReader(model.graph)
    values = [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]
    assert [reader.fold(value) for value in values] == [None] * 3


def test_readers_are_found_through_moves_and_outputs_count():
    model = graph(
        """g (float[4, 4] x) => (float[4, 4] y, float[4, 4] t) {
          t = Transpose (w)
          y = MatMul (x, t)
        }""",
        w=(4, 4),
    )
    reader = ConstantReader(model.graph)
    found = list(reader.readers(model.graph.initializers["w"]))
    assert [(node and node.op_type, index) for node, index in found] == [(None, 0), ("MatMul", 1)]
