"""Graphs as old and odd files have them: branches, shared weights, functions, names, constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx.parser
from graphs import model_of
from onnx import helper, numpy_helper

from trimtab.core.model import Model

X = np.random.default_rng(7).standard_normal((3, 8)).astype(np.float32)
IMAGES = np.random.default_rng(8).standard_normal((3, 3, 8, 8)).astype(np.float32)
Feeds = dict[str, np.ndarray]
IN = "(float[n,8] x, bool c) => (float[n,8] y"
KERNEL = "<float[4,3,3,3] w, float[4] s, float[4] b, float[4] m, float[4] var> {"
NUMBERS = ", ".join(str(round(float(v), 3)) for v in np.random.default_rng(9).normal(size=64))

_TEXTS: dict[str, tuple[str, int]] = {
    "activation read inside of a branch": (
        f"""{IN}, float[n,8] z) <float[8,8] w, float[8,8] v> {{
        h = MatMul (x, w) r = Relu (h) z = MatMul (r, v)
        y = If (c) <
            then_branch = a () => (float[n,8] t) {{ t = Sigmoid (r) }},
            else_branch = b () => (float[n,8] e) {{ e = Neg (h) }}
        > }}""",
        18,
    ),
    "captures of captures": (
        f"""{IN}) <float[8,8] w, float[8,8] v> {{
        h = MatMul (x, w) r = Relu (h)
        y = If (c) <
            then_branch = a () => (float[n,8] t) {{
                q = MatMul (r, v)
                t = If (c) <
                    then_branch = d () => (float[n,8] u) {{ p = MatMul (q, w) u = Add (p, r) }},
                    else_branch = f () => (float[n,8] o) {{ o = Add (q, h) }}
                >
            }},
            else_branch = b () => (float[n,8] e) {{ e = MatMul (r, v) }}
        > }}""",
        18,
    ),
    "products of one input inside and outside": (
        f"""{IN}, float[n,8] p, float[n,8] q) <float[8,8] u, float[8,8] v, float[8,8] w> {{
        p = MatMul (x, u) q = MatMul (x, v)
        y = If (c) <
            then_branch = a () => (float[n,8] t) {{ t = MatMul (x, w) }},
            else_branch = b () => (float[n,8] e) {{ k = MatMul (x, w) e = Relu (k) }}
        > }}""",
        18,
    ),
    "weights inside of branches under one name": (
        f"""{IN}) {{ y = If (c) <
            then_branch = a () => (float[n,8] t) <float[8,8] w = {{{NUMBERS}}}>
                {{ h = MatMul (x, w) t = Relu (h) }},
            else_branch = b () => (float[n,8] t) <float[8,8] w = {{{NUMBERS}}}>
                {{ h = MatMul (x, w) t = Neg (h) }}
        > }}""",
        18,
    ),
    "loop": (
        f"""{IN}) <float[8,8] w, int64 k = {{3}}, bool yes = {{1}}> {{
        h = MatMul (x, w) z = Sub (h, h)
        y = Loop (k, yes, z) <body = l (int64 i, bool g, float[n,8] a) => (bool o, float[n,8] d)
            {{ o = Identity (g) q = Add (a, h) e = MatMul (q, w) d = Tanh (e) }}> }}""",
        18,
    ),
    "scan": (
        """(float[6,8] x) => (float[8] l, float[6,8] y) <float[8,8] w, float[8] z> {
        h = MatMul (x, w)
        l, y = Scan <num_scan_inputs=1,
            body = k (float[8] s, float[8] e) => (float[8] t, float[8] o)
            { t = Add (s, e) p = MatMul (t, w) o = Relu (p) }> (z, h) }""",
        18,
    ),
    "norm that trains": (
        f"""(float[n,3,8,8] x) => (float[n,4,6,6] y) {KERNEL}
        c = Conv (x, w) y, p, q = BatchNormalization <training_mode=1> (c, s, b, m, var) }}""",
        15,
    ),
    "norm that trains by its five outputs": (
        f"""(float[n,3,8,8] x) => (float[n,4,6,6] y) {KERNEL}
        c = Conv (x, w) y, p, q, r, t = BatchNormalization (c, s, b, m, var) }}""",
        9,
    ),
    "weights that are outputs": (
        """(float[n,8] x) => (float[n,8] y, float[8,8] w, float[8] k, float[8] l)
        <float[8,8] w, float[8] k = {1,2,3,4,5,6,7,8}, float[8] l = {1,2,3,4,5,6,7,8}> {
        h = MatMul (x, w) i = Add (h, k) y = Mul (i, l) }""",
        18,
    ),
    "one weight read both ways": (
        """(float[n,8] x) => (float[n,8] y, float[n,8] z, float[n,8] q) <float[8,8] w> {
        y = Gemm <transB=1> (x, w) z = Gemm (x, w) t = Transpose <perm=[1,0]> (w)
        q = MatMul (x, t) }""",
        18,
    ),
    "wires": (
        """(float[n,8] x) => (float[n,8] y, float[n,8] z, float[n,8] h, float[n,8] i)
        <float[8,8] w> { y = Identity (x) h = MatMul (x, w) i = Identity (h) z = Dropout (x) }""",
        18,
    ),
    "equal nodes, one an output": (
        """(float[n,8] x) => (float[n,8] s, float[n,16] o, float[n,16] q) {
        p = Concat <axis=1> (x, x) r = Sigmoid (p) o = Concat <axis=1> (x, x)
        q = Concat <axis=1> (x, x) s = Mul (x, x) }""",
        18,
    ),
    "names of the passes": (
        """(float[n,3,8,8] x) => (float[n,4] y)
        <float[4,3,3,3] w, float[4] w_half, float[4,4,3,3] y_pooled> {
        y_half = Conv (x, w, w_half) w_rounded = Relu (y_half)
        x_to_float16_out = Conv (w_rounded, y_pooled)
        y = ReduceMean <keepdims=0, axes=[2,3]> (x_to_float16_out) }""",
        17,
    ),
    "sequence": (
        """(float[n,8] x) => (float[n,8] y, float[k,8] z) <float[8,8] w, int64 i = {0}> {
        h = MatMul (x, w) s = SequenceConstruct (h, x) y = SequenceAt (s, i)
        z = ConcatFromSequence <axis=0> (s) }""",
        18,
    ),
    "opset 8": (
        """(float[n,3,8,8] x) => (float[n,4] y) <float[4,3,3,3] w, float[1,1,1,1] k> {
        c = Conv (x, w) p = Pad <pads=[0,0,1,1,0,0,1,1], value=0.5> (c)
        q = Clip <min=-1.0, max=1.0> (p) r = Slice <starts=[1,1], ends=[7,7], axes=[2,3]> (q)
        j = Squeeze <axes=[0]> (k) u = Mul (r, j) d, mask = Dropout (u)
        y = ReduceSum <axes=[2,3], keepdims=0> (d) }""",
        8,
    ),
}


def _listed_as_inputs() -> Model:
    """IR version 3, where every weight is an input."""
    text = "(float[n,8] x) => (float[n,8] y) <float[8,8] w, float[8] b> { y = Gemm (x, w, b) }"
    proto = model_of(text, opset=8).to_proto()
    proto.ir_version = 3
    for tensor in proto.graph.initializer:
        kind = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        proto.graph.input.append(kind)
    return Model.from_proto(proto)


def _functions() -> Model:
    """Two calls of a local function that calls another and has a weight of its own."""
    own = numpy_helper.from_array(np.eye(8, dtype=np.float32) * 2)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("my", 1)]
    inner = [helper.make_node("MatMul", ["a", "b"], ["t"]), helper.make_node("Relu", ["t"], ["o"])]
    outer = [
        helper.make_node("Constant", [], ["k"], value=own),
        helper.make_node("layer", ["a", "k"], ["o"], domain="my"),
    ]
    functions = [
        helper.make_function("my", "layer", ["a", "b"], ["o"], inner, opsets[:1]),
        helper.make_function("my", "doubled", ["a"], ["o"], outer, opsets),
    ]
    nodes = [
        helper.make_node("doubled", ["x"], ["h"], domain="my"),
        helper.make_node("doubled", ["h"], ["y"], domain="my"),
    ]
    ends = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["n", 8]) for n in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    made = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=9)
    return Model.from_proto(made)


_MADE: dict[str, Callable[[], Model]] = {
    "weights listed as inputs": _listed_as_inputs,
    "functions": _functions,
}
ODD_GRAPHS = (*_TEXTS, *_MADE)


def odd_graph(name: str) -> tuple[Model, Sequence[Feeds]]:
    """Return a model and the feeds that reach all of its branches."""
    text, opset = _TEXTS.get(name, ("", 0))
    model = model_of(text, opset=opset) if text else _MADE[name]()
    inputs = {spec.name: spec.shape or () for spec in model.inputs}
    if len(inputs["x"]) == 4:
        return model, [{"x": IMAGES}]
    rows = X if inputs["x"][0] == "n" else np.concatenate([X, X])
    if "c" not in inputs:
        return model, [{"x": rows}]
    return model, [{"x": rows, "c": np.array(flag)} for flag in (True, False)]
