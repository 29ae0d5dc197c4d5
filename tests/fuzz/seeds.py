"""Six small models, of which the fuzzer makes mutants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

EXTERNAL = "weights.bin"


def model(text: str, **weights: np.ndarray) -> onnx.ModelProto:
    """Parse a graph and give it weights; those that are not given are random."""
    made = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{text}')
    rng = np.random.default_rng(0)
    made_here = {name for node in made.graph.node for name in node.output}
    for info in list(made.graph.value_info):
        if info.name in made_here:
            continue
        made.graph.value_info.remove(info)
        dims = [d.dim_value for d in info.type.tensor_type.shape.dim]
        array = weights.get(info.name, (rng.standard_normal(dims) * 0.3).astype(np.float32))
        made.graph.initializer.append(numpy_helper.from_array(array, info.name))
    for index, node in enumerate(made.graph.node):
        node.name = node.name or f"{node.op_type.lower()}_{index}"
    return made


def conv() -> onnx.ModelProto:
    return model(
        "g (float[n,3,8,8] x) => (float[n,4] y) <float[8,3,3,3] w, float[8] b, float[8] scale, "
        "float[8] shift, float[8] mean, float[8] var, float[8,4] v> { "
        "c = Conv<pads=[1,1,1,1]>(x,w,b) d = BatchNormalization(c,scale,shift,mean,var) "
        "r = Relu(d) p = GlobalAveragePool(r) f = Flatten(p) y = MatMul(f,v) }",
        var=np.ones(8, np.float32),
    )


def gemm() -> onnx.ModelProto:
    return model(
        "g (float[n,16] x) => (float[n,8] y, float[n,16] h) <float[16,16] w, float[16] b, "
        "float[8,16] v, float[8] c> { a = Gemm(x,w,b) h = Relu(a) "
        "z = Gemm<transB=1, alpha=0.5>(h,v,c) y = Softmax<axis=-1>(z) }"
    )


def lstm() -> onnx.ModelProto:
    return model(
        "g (float[t,n,6] x) => (float[t,n,4] y, float[1,n,4] last) <float[1,16,6] w, "
        "float[1,16,4] r, float[1,32] b, int64[1] one> { "
        'o, last, cell = LSTM<hidden_size=4>(x,w,r,b,"","","") y = Squeeze(o, one) }',
        one=np.array([1]),
    )


def branches() -> onnx.ModelProto:
    return model(
        "g (float[n,8] x) => (float[n,8] y) <float[8,8] w, float[8,8] v, float[1] zero> { "
        "s = ReduceSum<keepdims=0>(x) t = Squeeze(s) q = Squeeze(zero) c = Greater(t,q) "
        "y = If(c) <then_branch = yes () => (float[n,8] a) { m = MatMul(x,w) a = Relu(m) }, "
        "else_branch = no () => (float[n,8] e) { e = MatMul(x,v) }> }"
    )


def attention() -> onnx.ModelProto:
    return model(
        "g (int64[n,5] ids) => (float[n,5,8] y) <float[11,8] table, float[8,8] wq, float[8,8] wk, "
        "float[8,8] wv, float[1] root, float[8] gain, float[8] bias> { e = Gather(table,ids) "
        "q = MatMul(e,wq) k = MatMul(e,wk) v = MatMul(e,wv) kt = Transpose<perm=[0,2,1]>(k) "
        "s = MatMul(q,kt) d = Div(s,root) p = Softmax<axis=-1>(d) o = MatMul(p,v) "
        "y = LayerNormalization(o,gain,bias) }",
        root=np.array([2.8], np.float32),
    )


def external() -> onnx.ModelProto:
    """Return a model whose weights are to be in a file of their own."""
    return model(
        "g (float[n,32] x) => (float[n,16] y) <float[32,32] w, float[32,16] v> { "
        "a = MatMul(x,w) r = Relu(a) y = MatMul(r,v) }"
    )


SEEDS = {f.__name__: f for f in (conv, gemm, lstm, branches, attention, external)}


def move_weights_outside(proto: onnx.ModelProto, folder: Path) -> None:
    """Write the weights to a file beside the model, as its message then says."""
    data = b""
    for tensor in proto.graph.initializer:
        raw = tensor.raw_data
        entries = {"location": EXTERNAL, "offset": len(data), "length": len(raw)}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
        tensor.data_location = TensorProto.EXTERNAL
        tensor.ClearField("raw_data")
        data += raw
    (folder / EXTERNAL).write_bytes(data)
