"""Graphs as old exporters, converters and people write them: each holds one oddity."""

from __future__ import annotations

from collections.abc import Callable

import graphs
import onnx

from trimtab.core.model import Model


def _of(text: str, **options: object) -> Callable[[], Model]:
    return lambda: graphs.model_of(text, **options)  # type: ignore[arg-type]


def _weights_as_inputs() -> Model:
    proto = graphs.cnn().to_proto()
    proto.graph.input.extend(
        onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims)
        for t in proto.graph.initializer
    )
    return Model.from_proto(proto, "weights as inputs")


def named_classes() -> Model:
    """A classifier as scikit-learn's converter writes it: names of classes, and maps by name."""
    proto = graphs.model_of(
        """(float[N,8] x) => (float[N,3] p) <float[8,16] w, float[16] b, float[16,3] v> {
            a = MatMul (x, w)  s = Add (a, b)  r = Relu (s)  l = MatMul (r, v)
            p = Softmax (l) }""",
        imports=', "ai.onnx.ml": 1',
    ).to_proto()
    make, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    names, domain = ["eins", "zwei", "drei"], "ai.onnx.ml"
    proto.graph.node.extend(
        [
            make("ArgMax", ["p"], ["i"], "argmax_5", axis=1, keepdims=0),
            make("LabelEncoder", ["i"], ["label"], "label", domain=domain, classes_strings=names),
            make("ZipMap", ["p"], ["maps"], "maps", domain=domain, classlabels_strings=names),
        ]
    )
    number = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [])
    kind = onnx.helper.make_map_type_proto(onnx.TensorProto.STRING, number)
    maps = onnx.helper.make_value_info("maps", onnx.helper.make_sequence_type_proto(kind))
    del proto.graph.output[:]
    proto.graph.output.extend([value("label", onnx.TensorProto.STRING, ["N"]), maps])
    return Model.from_proto(proto, "named classes")


#: Functions that build a graph, by what is odd about it.
ODD_GRAPHS: dict[str, Callable[[], Model]] = {
    "a Relu behind a Gemm is the output": _of(
        """(float[N,8] x) => (float[N,4] y) <float[8,4] w, float[4] b> {
            a = Gemm (x, w, b)  y = Relu (a) }"""
    ),
    "an output in front of a Relu": _of(
        """(float[N,3,8,8] x) => (float[N,4,6,6] y, float[N,4,6,6] c) <float[4,3,3,3] w> {
            c = Conv (x, w)  y = Relu (c) }"""
    ),
    "alpha and beta of a Gemm": _of(
        """(float[N,8] x) => (float[N,4] y)
            <float[8,16] w, float[16] b, float[4,16] v, float[4] c> {
            a = Gemm <alpha=0.5, beta=2.0> (x, w, b)  r = Relu (a)
            y = Gemm <transB=1, alpha=2.0> (r, v, c) }"""
    ),
    "one weight read both ways": _of(
        """(float[N,8] x) => (float[N,8] y) <float[8,8] w> {
            a = Gemm (x, w)  r = Relu (a)  y = Gemm <transB=1> (r, w) }"""
    ),
    "a weight that is an output": _of(
        """(float[N,8] x) => (float[N,4] y, float[8,4] w) <float[8,4] w, float[4] b> {
            a = MatMul (x, w)  y = Add (a, b) }"""
    ),
    "names like those of a quantizer": _of(
        """(float[N,8] x) => (float[N,4] y) <float[8,16] w, float[16,4] x_scale> {
            w_quantized = MatMul (x, w)  w_transposed = Relu (w_quantized)
            y = MatMul (w_transposed, x_scale) }"""
    ),
    "two weights that are the same name but for an ending": _of(
        """(float[N,8] x) => (float[N,8] y) <float[8,8] w, float[8,8] w_quantized> {
            a = MatMul (x, w)  y = MatMul (a, w_quantized) }"""
    ),
    "a bias of one row": _of(
        """(float[N,1,8,8] x) => (float[N,10] y)
            <float[8,1,3,3] w, float[288,10] v, float[1,10] b> {
            c = Conv (x, w)  r = Relu (c)  f = Flatten (r)  y = Gemm (f, v, b) }"""
    ),
    "one bias of several layers": _of(
        """(float[N,3,8,8] x) => (float[N,4,6,6] y, float[N,4,6,6] z)
            <float[4,3,3,3] w, float[4,3,3,3] v, float[4] b> {
            y = Conv (x, w, b)  z = Conv (x, v, b) }"""
    ),
    "opset 7": _of(
        """(float[N,3,8,8] x) => (float[N,4] y) <float[4,3,3,3] w, float[4,4] v, float[4] b> {
            c = Conv (x, w)  r = Clip <min=0.0, max=6.0> (c)  p = GlobalAveragePool (r)
            f = Flatten (p)  y = Gemm (f, v, b) }""",
        opset=7,
        ir_version=4,
    ),
    "weights as inputs": _weights_as_inputs,
    "a weight in a Constant, behind a Transpose": _of(
        """(float[N,4] x) => (float[N,2] y) {
            w = Constant <value = float[2,4] {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8}> ()
            t = Transpose <perm=[1,0]> (w)  y = MatMul (x, t) }"""
    ),
    "the same tensor twice": _of(
        """(float[N,4,6,6] x) => (float[N,8,4,4] y) <float[8,8,3,3] w> {
            s = Mul (x, x)  c = Concat <axis=1> (s, s)  d = Conv (c, w)
            y = Concat <axis=1> (d) }"""
    ),
    "BatchNormalization in training mode": _of(
        """(float[4,3,6,6] x) => (float[4,4,4,4] y)
            <float[4,3,3,3] w, float[4] s, float[4] b, float[4] m, float[4] var> {
            c = Conv (x, w)
            y, rm, rv = BatchNormalization <training_mode=1> (c, s, b, m, var) }"""
    ),
    "captures of an If": _of(
        """(float[N,8] x) => (float[N,4] y) <float[8,8] w, float[8,4] v, float zero = {0.0}> {
            a = MatMul (x, w)
            r = Relu (a)
            s = ReduceSum <keepdims=0> (x)
            f = Less (zero, s)
            y = If (f) <then_branch = th () => (float[N,4] t) { t = MatMul (r, v) },
                else_branch = el () => (float[N,4] e) { n = Neg (a)  e = MatMul (n, v) }> }"""
    ),
    "a Loop that reads a weight of outside": _of(
        """(float[N,8] x) => (float[N,8] y) <float[8,8] w, int64 n = {2}, bool go = {1}> {
            a = MatMul (x, w)
            y = Loop (n, go, a) <body =
                b (int64 i, bool c, float[N,8] s) => (bool d, float[N,8] t) {
                d = Identity (c)  m = MatMul (s, w)  t = Tanh (m) }> }"""
    ),
    "an LSTM without bias and states": _of(
        """(float[5,N,8] x) => (float[5,1,N,4] y) <float[1,16,8] w, float[1,16,4] r> {
            y, h, c = LSTM <hidden_size=4> (x, w, r) }"""
    ),
    "a GRU between products": _of(
        """(float[N,5,8] x) => (float[N,4] y)
            <float[8,8] a, float[1,12,8] w, float[1,12,4] r, int64[1] zero = {0}> {
            m = MatMul (x, a)  t = Transpose <perm=[1,0,2]> (m)
            o, h = GRU <hidden_size=4> (t, w, r)  y = Squeeze (h, zero) }"""
    ),
    "an input that is an output": _of(
        """(float[N,8] x) => (float[N,8] x, float[N,4] y) <float[8,4] w> { y = MatMul (x, w) }"""
    ),
    "another library's operator, and a weight without columns": _of(
        """(float[N,8] x) => (float[N] y) <float[8,16] w, float[16] v> {
            a = MatMul (x, w)  g = com.microsoft.Gelu (a)  y = MatMul (g, v) }""",
        imports=', "com.microsoft": 1',
    ),
    "a sequence out of a Loop, and an output without rows": _of(
        """(float[N,8] x) => (float[M,8] y, float[0,8] z)
            <float[8,8] w, float[0,8] none, int64 n = {2}, bool go = {1}> {
            s = SequenceEmpty <dtype=1> ()
            t = Loop (n, go, s) <body =
                b (int64 i, bool c, seq(float[N,8]) p) => (bool d, seq(float[N,8]) q) {
                d = Identity (c)  m = MatMul (x, w)  q = SequenceInsert (p, m) }>
            y = ConcatFromSequence <axis=0> (t)  z = MatMul (none, w) }"""
    ),
    "names of classes, and maps": named_classes,
    "a node whose name has signs": _of(
        """(float[N,8] x) => (float[N,4] y) <float[8,16] w, float[16,4] v> {
            ["a/b c"] a = MatMul (x, w)  r = Relu (a)  y = MatMul (r, v) }"""
    ),
}
