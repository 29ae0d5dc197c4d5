"""Random small graphs of the operators that real files have, as hypothesis draws them.

A graph starts from one input of a family (pictures, sequences, vectors or tokens) and grows node by
node on what is there already. Outputs inside the graph, shared weights, captures, attributes of
old opsets and names like those that a quantizer gives are sprinkled in. All shrinks towards fewer
nodes, plain names and none of these. Weights are random numbers that depend on their shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from property import any_steps as any_
from property import picture_steps as pictures
from property import row_steps as rows
from property.builder import Builder, RandomGraph, Shape, Tensor

#: Rows of each graph's data.
ROWS = 32


Step = Callable[[Builder, Tensor], Tensor]
ANY: list[Step] = [any_.activation] * 3
ANY += [any_.arithmetic, any_.residual, any_.with_itself, any_.concat, any_.split, any_.cut]
ANY += [any_.move, any_.branch, any_.loop, any_.twin, any_.nested, any_.fed_beside, any_.choice]
ANY += [any_.island, any_.foreign, any_.reverse]
STEPS: dict[int, list[Step]] = {
    3: [
        *[pictures.conv] * 3,
        pictures.conv_transpose,
        pictures.batch_norm,
        pictures.pool,
        pictures.resize,
        pictures.pad,
        pictures.to_vector,
        pictures.to_sequence,
        pictures.instance_norm,
        pictures.shuffle,
    ],
    2: [
        *[rows.matmul] * 2,
        rows.layer_norm,
        rows.attention,
        rows.recurrent,
        rows.scan,
        rows.sequence_to_vector,
        rows.rnn,
        rows.conv_1d,
        rows.einsum,
    ],
    1: [*[rows.gemm] * 3, rows.matmul, rows.layer_norm, rows.vector_to_sequence],
}
#: Operators behind which an activation may be computed by the same kernel.
PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Add"}
#: Shapes of the input of each family, without the batch.
STARTS: dict[str, Shape] = {
    "vector": (8,),
    "picture": (4, 6, 6),
    "sequence": (5, 8),
    "tokens": (5,),
}


@st.composite
def graphs(draw: Any, opsets: Sequence[int] = range(7, 24)) -> RandomGraph:
    """Draw a graph, its weights and its rows."""
    family = draw(st.sampled_from(list(STARTS)))
    opset = draw(st.sampled_from([17, *opsets]))
    b = Builder(draw, opset, "N")
    if b.chance(20):
        b.batch = draw(st.sampled_from([1, 2]))
    shape = STARTS[family]
    rng = np.random.default_rng(0)
    kind = TensorProto.INT64 if family == "tokens" else TensorProto.FLOAT
    source = b.name("x")
    x = Tensor(source, shape)
    feed: NDArray[Any] = rng.standard_normal((ROWS, *shape)).astype(np.float32)
    if family == "tokens":
        feed = rng.integers(0, 9, (ROWS, *shape))
        x = Tensor(b.node("Gather", [b.weight(9, 8), x.name]), (*shape, 8))
    b.pool.append(x)
    for _ in range(draw(st.integers(1, 7))):
        # From the last tensor as a rule, so that chains come out.
        at = b.pick(b.pool) if b.chance(25) else b.pool[-1]
        steps = ANY if b.chance(50) else STEPS[len(at.shape)]
        made = b.pick(steps)(b, at)
        if made is not at:
            b.pool.append(made)
        if b.nodes and b.nodes[-1].op_type in PRODUCTS and b.chance(50):
            b.pool.append(any_.activation(b, b.pool[-1]))
    if b.pool[-1].name == source:
        b.pool.append(any_.activation(b, b.pool[-1]))
    proto = _finished(b, (source, kind, shape))
    more = {t.name: rng.standard_normal((ROWS, *t.shape)).astype(np.float32) for t in b.inputs}
    return RandomGraph(proto, {source: feed} | more)


def _finished(b: Builder, source: tuple[str, int, Shape]) -> onnx.ModelProto:
    """Return the model, with outputs drawn among all tensors; old IR lists weights as inputs."""
    name, kind, shape = source
    outputs = [b.pool[-1]]
    outputs += [t for t in b.pool[:-1] if t.name != name and b.chance(20)]
    info = helper.make_tensor_value_info
    declared = [info(t.name, TensorProto.FLOAT, [b.batch, *t.shape]) for t in outputs]
    if b.chance(4):
        declared.append(info(name, kind, [b.batch, *shape]))
    floats = [n for n, a in b.weights.items() if a.dtype == np.float32 and a.ndim]
    if floats and b.chance(8):
        extra = b.pick(floats)
        declared.append(info(extra, TensorProto.FLOAT, list(b.weights[extra].shape)))
    old = b.opset <= 8
    inputs = [info(name, kind, [b.batch, *shape])]
    inputs += [info(t.name, TensorProto.FLOAT, [b.batch, *t.shape]) for t in b.inputs]
    if old or b.chance(8):
        types = {n: helper.np_dtype_to_tensor_dtype(a.dtype) for n, a in b.weights.items()}
        inputs += [info(n, types[n], list(a.shape)) for n, a in b.weights.items()]
    graph = helper.make_graph(
        b.nodes,
        "random",
        inputs,
        declared,
        [numpy_helper.from_array(np.asarray(a, order="C"), n) for n, a in b.weights.items()],
    )
    foreign = {node.domain for node in b.nodes} - {""}
    return helper.make_model(
        graph,
        opset_imports=[
            helper.make_opsetid("", b.opset),
            *(helper.make_opsetid(domain, 1) for domain in foreign),
        ],
        ir_version=3 if old else max(4, min(10, b.opset - 8)),
    )
