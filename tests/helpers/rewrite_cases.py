"""A graph for each rule, with the operators that it becomes, and graphs that rules decline."""

from __future__ import annotations

from dataclasses import dataclass

import graphs

from trimtab.core.model import Model
from trimtab.passes.rewrites.sites import infer_shapes


@dataclass(frozen=True)
class Case:
    """Graph that a rule rewrites.

    Attributes:
        rule: name of the rule.
        graph: graph in ONNX text.
        after: operator types of the result.
        opset: operator set of the graph.
        imports: further operator sets.
    """

    rule: str
    graph: str
    after: str
    opset: int = 18
    imports: str = ""
    note: str = ""

    @property
    def id(self) -> str:
        return f"{self.rule}{'/' + self.note if self.note else ''}"

    def model(self, opset: int | None = None) -> Model:
        return shaped(self.graph, opset=opset or self.opset, imports=self.imports)


def shaped(graph: str, **options) -> Model:
    """Build a model with inferred shapes, which rules need."""
    model = graphs.model_of(graph, **options)
    infer_shapes(model.ir)
    return model


IMAGE = "(float[n,4,6,6] x) => (float[n,c,h,w] y)"
SAME = "(float[n,4,6,6] x) => (float[n,4,6,6] y)"
ROWS = "(float[n,5,8] x) => (float[n,5,8] y)"

NORM = """(float[n,5,8] x, float[n,5,8] z) => (float[n,5,8] y)
    <float[8] g, float[8] b> { s = %s (x, z) y = LayerNormalization <axis=-1> (s, g, b) }"""
SHORTCUT = """(float[n,4,6,6] x) => (float[n,8,3,3] y)
    <int64[1] zero = {0}, int64[1] far = {9223372036854775807}, int64[1] two = {2},
     int64[1] three = {3}, int64[8] pads = {0,2,0,0,0,2,0,0}> {
        r = Relu (x)
        a = Slice (r, zero, far, two, two)
        b = Slice (a, zero, far, three, two)
        y = Pad (b, pads)
    }"""
STRIDED = """(float[n,4,6,6] x) => (float[n,4,3,3] y)
    <int64[2] starts = {0,0}, int64[2] ends = {6,6}, int64[2] axes = {2,3},
     int64[2] steps = {2,2}> {
        y = Slice (x, starts, ends, axes, steps)
    }"""
LINEAR = """(float[n,8] x) => (float[n,4] y) <float[8,4] w, float[4] b> {
        m = MatMul (x, w)
        y = Add (m, b)
    }"""
LINEAR_ROWS = """(float[n,5,8] x) => (float[n,5,4] y) <float[8,4] w, float[4] b> {
        m = MatMul (x, w)
        y = Add (b, m)
    }"""
GEMM = """(float[n,8] x) => (float[n,4] y) <float[4,8] w, float[4] b> {
        y = Gemm <transB=1> (x, w, b)
    }"""
GEMM_ROWS = """(float[n,5,8] x) => (float[n,5,4] y)
    <float[8,4] w, float[4] b, int64[2] rows = {-1,8}, int64[3] back = {-1,5,4}> {
        r = Reshape (x, rows)
        m = Gemm (r, w, b)
        y = Reshape (m, back)
    }"""
CLIP = "(float[n,4,6,6] x) => (float[n,4,6,6] y) <float low = {%s}, float high = {%s}> { %s }"
HARDSWISH = """(float[n,8] x) => (float[n,8] y)
    <float three = {3.0}, float zero = {0.0}, float six = {6.0},
     float part = {0.16666667}> { %s }"""
GELU = """(float[n,8] x) => (float[n,8] y)
    <float root = {1.4142135}, float inverse = {0.70710677}, float one = {1.0},
     float half = {0.5}> {
        d = %s
        e = Erf (d)
        a = Add (e, one)
        %s
    }"""
GELU_EXPORTED = GELU % ("Div (x, root)", "p = Mul (x, a) y = Mul (p, half)")
GELU_OTHER = GELU % ("Mul (x, inverse)", "h = Mul (x, half) y = Mul (h, a)")

CASES = [
    Case("sum-before-norm", NORM % "Add", "Sum LayerNormalization"),
    Case("add-before-norm", NORM % "Sum", "Add LayerNormalization"),
    Case("shortcut-as-conv", SHORTCUT, "Relu Conv"),
    Case("stride-as-pool", STRIDED, "MaxPool"),
    Case("stride-as-conv", STRIDED, "Conv"),
    Case(
        "pool-as-stride",
        "(float[n,4,6,6] x) => (float[n,4,3,3] y) "
        "{ y = MaxPool <kernel_shape=[1,1], strides=[2,2]> (x) }",
        "Slice",
    ),
    Case(
        "mean-as-pool",
        "(float[n,4,6,6] x) => (float[n,4,1,1] y) <int64[2] a = {2,3}> { y = ReduceMean (x, a) }",
        "GlobalAveragePool",
    ),
    Case(
        "mean-as-pool",
        "(float[n,4,6,6] x) => (float[n,4] y) <int64[2] a = {-1,-2}> "
        "{ y = ReduceMean <keepdims=0> (x, a) }",
        "GlobalAveragePool Reshape",
        note="without axes",
    ),
    Case(
        "mean-as-pool",
        "(float[n,4,6,6] x) => (float[n,4,1,1] y) { y = ReduceMean <axes=[2,3]> (x) }",
        "GlobalAveragePool",
        opset=13,
        note="old",
    ),
    Case(
        "pool-as-mean",
        "(float[n,4,6,6] x) => (float[n,4,1,1] y) { y = GlobalAveragePool (x) }",
        "ReduceMean",
    ),
    Case(
        "pool-as-mean",
        "(float[n,4,6,6] x) => (float[n,4,1,1] y) { y = GlobalAveragePool (x) }",
        "ReduceMean",
        opset=13,
        note="old",
    ),
    Case(
        "average-as-mean",
        "(float[n,4,6,6] x) => (float[n,4,1,1] y) { y = AveragePool <kernel_shape=[6,6]> (x) }",
        "ReduceMean",
    ),
    Case(
        "average-as-global",
        "(float[n,4,6,6] x) => (float[n,4,1,1] y) { y = AveragePool <kernel_shape=[6,6]> (x) }",
        "GlobalAveragePool",
    ),
    Case("gemm-from-matmul", LINEAR, "Gemm"),
    Case("gemm-rows-from-matmul", LINEAR_ROWS, "Reshape Gemm Reshape"),
    Case("matmul-from-gemm", GEMM, "MatMul Add"),
    Case("matmul-from-rows", GEMM_ROWS, "MatMul Add"),
    Case(
        "conv-as-matmul",
        "(float[n,8,1,1] x) => (float[n,4,1,1] y) <float[4,8,1,1] w, float[4] b> "
        "{ y = Conv (x, w, b) }",
        "Reshape Gemm Reshape",
    ),
    Case(
        "conv-from-matmul",
        "(float[n,4,6,6] x) => (float[n,8,6,6] y) <float[4,8] w, float[8] b> { "
        "t = Transpose <perm=[0,2,3,1]> (x) m = MatMul (t, w) a = Add (m, b) "
        "y = Transpose <perm=[0,3,1,2]> (a) }",
        "Conv",
    ),
    Case("clip-as-min-max", CLIP % (-1, 0.5, "y = Clip (x, low, high)"), "Max Min"),
    Case("clip-from-min-max", CLIP % (-1, 0.5, "m = Max (low, x) y = Min (m, high)"), "Clip"),
    Case(
        "clip-from-min-max",
        CLIP % (-1, 0.5, "m = Min (high, x) y = Max (m, low)"),
        "Clip",
        note="min first",
    ),
    Case("clip-as-relu", CLIP % (0, 1, "y = Clip (x, low)"), "Relu"),
    Case("relu-as-clip", CLIP % (0, 1, "y = Relu (x)"), "Clip"),
    Case("relu6-split", CLIP % (0, 1, "y = Clip (x, low, high)"), "Relu Min"),
    Case("relu-into-clip", CLIP % (0, 1, "r = Relu (x) y = Clip (r, low, high)"), "Clip"),
    Case(
        "hardsigmoid-open",
        "(float[n,8] x) => (float[n,8] y) { y = HardSigmoid <alpha=0.25> (x) }",
        "Mul Add Clip",
    ),
    Case(
        "hardsigmoid-closed",
        HARDSWISH % "a = Add (x, three) c = Clip (a, zero, six) y = Div (c, six)",
        "HardSigmoid",
    ),
    Case(
        "hardswish-closed",
        HARDSWISH % "a = Add (x, three) c = Clip (a, zero, six) m = Mul (x, c) y = Div (m, six)",
        "HardSwish",
    ),
    Case(
        "hardswish-closed",
        HARDSWISH % "a = Add (x, three) c = Clip (a, zero, six) m = Mul (c, part) y = Mul (x, m)",
        "HardSwish",
        note="scaled first",
    ),
    Case(
        "hardswish-closed",
        HARDSWISH % "g = HardSigmoid <alpha=0.16666667, beta=0.5> (x) y = Mul (g, x)",
        "HardSwish",
        note="by hardsigmoid",
    ),
    Case(
        "hardswish-open",
        "(float[n,8] x) => (float[n,8] y) { y = HardSwish (x) }",
        "HardSigmoid Mul",
    ),
    Case("gelu-closed", GELU_EXPORTED, "Gelu", opset=20),
    Case("gelu-closed", GELU_OTHER, "Gelu", opset=20, note="other order"),
    Case("gelu-contrib", GELU_EXPORTED, "Gelu"),
    Case(
        "gelu-open",
        "(float[n,8] x) => (float[n,8] y) { y = Gelu (x) }",
        "Div Erf Add Mul Mul",
        opset=20,
    ),
]

REFUSALS = [
    (
        "add-before-norm",
        """(float[n,8] x) => (float[n,8] y) <float[8] g> {
            s = Sum (x, x, x) y = LayerNormalization <axis=-1> (s, g) }""",
        "adds 3 values",
    ),
    (
        "shortcut-as-conv",
        SHORTCUT.replace("{0,2,0,0,0,2,0,0}", "{0,2,1,0,0,2,0,0}").replace("8,3,3] y", "8,4,3] y"),
        "other axes than the channels",
    ),
    (
        "shortcut-as-conv",
        SHORTCUT.replace("zero = {0}", "zero = {1}"),
        "cuts more than a step",
    ),
    ("gemm-from-matmul", LINEAR_ROWS, "not have two axes"),
    (
        "matmul-from-gemm",
        GEMM.replace("transB=1", "transB=1, alpha=0.5"),
        "scales",
    ),
    (
        "relu-into-clip",
        CLIP % (-1, 1, "r = Relu (x) y = Clip (r, low, high)"),
        "lets negative values through",
    ),
    (
        "clip-from-min-max",
        CLIP % (1, 0.5, "m = Max (low, x) y = Min (m, high)"),
        "bounds cross",
    ),
]
