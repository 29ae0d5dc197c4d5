"""Small real graphs as ONNX text, with random weights, for the tests of all passes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper
from onnx.helper import tensor_dtype_to_np_dtype

from trimtab.core.model import Model


def model_of(
    text: str, *, opset: int = 18, ir_version: int = 9, seed: int = 0, imports: str = "", **weights
) -> Model:
    """Build a model from the ONNX text of a graph.

    Names declared in angle brackets after the signature, as in `<float[4,3] w>`, are weights:
    those of `weights`, else random ones scaled by their fan-in; `var...` are positive, as the
    variance of a BatchNormalization has to be. With a value, `<int64[1] axes = {1}>`, it stays.
    """
    header = f'<ir_version: {ir_version}, opset_import: ["" : {opset}{imports}]>'
    proto = onnx.parser.parse_model(f"{header}\ngraph {text}")
    made = {name for node in proto.graph.node for name in node.output}
    rng = np.random.default_rng(seed)
    declared = list(proto.graph.value_info)
    proto.graph.ClearField("value_info")
    for info in declared:
        if info.name in made:
            proto.graph.value_info.append(info)
            continue
        array = weights.get(info.name, _random(info, rng))
        proto.graph.initializer.append(numpy_helper.from_array(array, info.name))
    for index, node in enumerate(proto.graph.node):
        node.name = node.name or f"{node.op_type.lower()}_{index}"
    return Model.from_proto(proto, "graph in a test")


def _random(info: onnx.ValueInfoProto, rng: np.random.Generator) -> np.ndarray:
    kind = info.type.tensor_type
    shape = [d.dim_value for d in kind.shape.dim]
    dtype = tensor_dtype_to_np_dtype(kind.elem_type)
    if info.name.startswith("var"):
        return rng.uniform(0.5, 1.5, shape).astype(dtype)
    fan_in = max(int(np.prod(shape[1:])), 1) if len(shape) > 2 else max([*shape[:1], 1])
    return (rng.standard_normal(shape) / np.sqrt(fan_in)).astype(dtype)


def ops(model: Model) -> list[str]:
    """Return the operator types in graph order."""
    return [node.op_type for node in model.graph]


def weights_of(model: Model) -> Mapping[str, np.ndarray]:
    """Return copies of all initializers by name."""
    values = model.graph.initializers.items()
    return {n: np.array(v.const_value.numpy()) for n, v in values if v.const_value is not None}


def cnn() -> Model:
    """Conv, BatchNorm, Relu, a residual, a pool and a Gemm head; dynamic batch."""
    return model_of("""(float[batch,3,8,8] x) => (float[batch,4] y)
        <float[8,3,3,3] w0, float[8] scale, float[8] shift, float[8] mean, float[8] var,
         float[8,8,3,3] w1, float[8] b1, float[16,8,1,1] w2, float[4,16] w3, float[4] b3> {
            c0 = Conv <pads=[1,1,1,1]> (x, w0)
            n0 = BatchNormalization (c0, scale, shift, mean, var)
            r0 = Relu (n0)
            c1 = Conv <pads=[1,1,1,1]> (r0, w1, b1)
            a1 = Add (c1, r0)
            r1 = Relu (a1)
            c2 = Conv <strides=[2,2]> (r1, w2)
            p2 = GlobalAveragePool (c2)
            f2 = Flatten (p2)
            y = Gemm <transB=1> (f2, w3, b3)
        }""")


def mlp() -> Model:
    """Two MatMuls with biases and a Softmax; fixed batch."""
    return model_of("""(float[1,16] x) => (float[1,4] y)
        <float[16,32] w0, float[32] b0, float[32,4] w1, float[4] b1> {
            m0 = MatMul (x, w0)
            a0 = Add (m0, b0)
            r0 = Relu (a0)
            m1 = MatMul (r0, w1)
            a1 = Add (m1, b1)
            y = Softmax <axis=-1> (a1)
        }""")


def transformer() -> Model:
    """One head of attention and a GELU block with LayerNormalization; batch and length dynamic."""
    return model_of("""(float[batch,length,16] x) => (float[batch,length,16] y)
        <float[16,16] wq, float[16,16] wk, float[16,16] wv, float[16,16] wo, float[16] bo,
         float[16] g0, float[16] h0, float[16,32] w1, float[32] b1, float[32,16] w2,
         float[16] g1, float[16] h1, float scale = {0.25}, float root = {1.4142135},
         float one = {1.0}, float half = {0.5}> {
            q = MatMul (x, wq)
            k = MatMul (x, wk)
            v = MatMul (x, wv)
            kt = Transpose <perm=[0,2,1]> (k)
            s = MatMul (q, kt)
            ss = Mul (s, scale)
            p = Softmax <axis=-1> (ss)
            c = MatMul (p, v)
            o = MatMul (c, wo)
            ob = Add (o, bo)
            r0 = Add (x, ob)
            n0 = LayerNormalization <axis=-1> (r0, g0, h0)
            m1 = MatMul (n0, w1)
            a1 = Add (m1, b1)
            e0 = Div (a1, root)
            e1 = Erf (e0)
            e2 = Add (e1, one)
            e3 = Mul (a1, e2)
            e4 = Mul (e3, half)
            m2 = MatMul (e4, w2)
            r1 = Add (n0, m2)
            y = LayerNormalization <axis=-1> (r1, g1, h1)
        }""")


def relu_only() -> Model:
    """No weights at all: nothing to do for any pass."""
    return model_of("(float[batch,4] x) => (float[batch,4] y) { y = Relu (x) }")
