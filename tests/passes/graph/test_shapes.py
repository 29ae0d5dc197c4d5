"""Shapes of inner tensors: inferred, and left out of a file where inference finds them again."""

from __future__ import annotations

import onnx
from graphs import model_of

from trimtab.passes.graph.shapes import forget_shapes

#: Inference knows neither what `own` makes nor what the third input's numbers are.
GRAPH = """(float[n,4] x, int64[2] size, bool c) => (float[n,6] y)
<float[4,6] w, float[n,6] m, float[n,6] r, float[2,3] s, float[n,6] o> {
    m = MatMul (x, w)
    r = Relu (m)
    s = Reshape (x, size)
    t = ReduceSum <keepdims = 0> (s)
    o = local.own (r)
    k = If (c) <then_branch = a () => (float[n,6] p) { p = Neg (o) },
                else_branch = b () => (float[n,6] q) { q = Abs (o) }>
    y = Add (k, t)
}"""


def test_what_inference_finds_again_is_left_out() -> None:
    model = model_of(GRAPH, imports=', "local" : 1').clone()
    forget_shapes(model.ir)
    proto = model.to_proto()
    assert {info.name for info in proto.graph.value_info} == {"s", "o"}
    assert [spec.shape for spec in model.outputs] == [("n", 6)]
    known = onnx.shape_inference.infer_shapes(proto).graph.value_info
    assert {"m", "r", "s", "o"} <= {info.name for info in known}
