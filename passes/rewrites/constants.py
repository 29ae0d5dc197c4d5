"""Constant folding of what masks and shapes are made of.

onnxruntime folds them too while it loads; some runtimes do not, and later rules see a constant.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from trimtab.core.data import Array

from ..graph.queries import const, is_onnx_op, opset
from .rule import Found, rewrite_rule

#: Operators of masks and shapes; none of them is random or depends on the machine.
FOLDABLE = (
    "Add And Cast Concat ConstantOfShape Div Equal Expand Gather Greater GreaterOrEqual Less "
    "LessOrEqual Mul Not Or Range Reshape Slice Squeeze Sub Tile Transpose Unsqueeze Where"
)
MAX_BYTES = 1_000_000
MAX_DEPTH = 16


@rewrite_rule("constants-folded", at=FOLDABLE)
def constants_folded(node: ir.Node) -> Found:
    """Store a result that depends on constants only as a weight."""
    if not is_onnx_op(node) or not node.inputs:
        return None
    array = _value_of(node.outputs[0], MAX_DEPTH)
    if array is None:
        return None
    if array.nbytes > MAX_BYTES:
        return f"its result has more than {MAX_BYTES:,} bytes"
    return lambda w: w.weight(array, "folded")


def _value_of(value: ir.Value | None, depth: int) -> Array | None:
    known = const(value)
    if known is not None or value is None:
        return known
    node = value.producer()
    if node is None or depth == 0 or node.op_type not in FOLDABLE.split() or len(node.outputs) > 1:
        return None
    inputs = [None if v is None else _value_of(v, depth - 1) for v in node.inputs]
    if not inputs or any(
        a is None and v is not None for a, v in zip(inputs, node.inputs, strict=True)
    ):
        return None
    return _computed(node, inputs)


def _computed(node: ir.Node, inputs: list[Array | None]) -> Array | None:
    from onnx.reference import ReferenceEvaluator

    names = [f"i{k}" if a is not None else "" for k, a in enumerate(inputs)]
    proto = onnx.NodeProto()
    proto.CopyFrom(ir.to_proto(node))
    proto.ClearField("input")
    proto.ClearField("output")
    proto.input.extend(names)
    proto.output.append("o")
    feeds: dict[str, Array] = {n: a for n, a in zip(names, inputs, strict=True) if a is not None}
    *given, made = (onnx.ValueInfoProto(name=name) for name in (*feeds, "o"))
    graph = onnx.helper.make_graph([proto], "one", given, [made])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset(node))])
    return np.asarray(next(iter(ReferenceEvaluator(model).run(None, feeds))))
