"""Bytes that constants take once they are computed, found without computing them.

onnxruntime, onnxsim and quantizers fold what depends on constants alone as soon as they load a
model. A file of a kilobyte can so ask for a terabyte: doublings by Concat, an Expand or a
ConstantOfShape of a huge shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import onnx
import onnx_ir as ir

from ..errors import ModelError

#: Operators whose result may be much larger than what they read.
_GROWING = frozenset(
    [
        "Concat",
        "ConstantOfShape",
        "Expand",
        "EyeLike",
        "Gather",
        "OneHot",
        "Pad",
        "RandomNormal",
        "RandomUniform",
        "Range",
        "Resize",
        "Tile",
        "Upsample",
        "Add",
        "Mul",
        "Sub",
        "Div",
        "Where",
        "MatMul",
        "Gemm",
        "Einsum",
    ]
)
#: Bytes that the computed constants may take, beside a multiple of the stored ones.
ALLOWED_BYTES = 1 << 30
_TIMES_STORED = 8
#: Elements of constants that are kept, as they may be shapes.
_SHAPE_SIZE = 64
#: Most nodes that are looked at.
_MOST_NODES = 3000


def check_computed_constants(proto: onnx.ModelProto, where: str) -> None:
    """Refuse a model whose constants grow beyond all measure when they are folded.

    Raises:
        ModelError: names the node whose result is largest.
    """
    nodes = _constant_nodes(proto.graph)
    if not any(node.op_type in _GROWING for node in nodes):
        return
    sizes = _result_bytes(proto, nodes)
    stored = sum(_tensor_bytes(t.data_type, t.dims) for t in proto.graph.initializer)
    if sum(sizes.values()) < ALLOWED_BYTES + _TIMES_STORED * stored:
        return
    largest = max(nodes, key=lambda n: max((sizes.get(o, 0) for o in n.output), default=0))
    raise ModelError(
        f"its constants take {sum(sizes.values()):,} bytes once they are computed, most of them "
        f"in node {largest.name!r} ({largest.op_type})",
        where=where,
        hint="Compute them from an input, or export the model for smaller sizes",
    )


def _constant_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes of the main graph that depend on constants alone, without subgraphs."""
    known = {t.name for t in graph.initializer} | {""}
    found = []
    waiting = list(graph.node)
    while True:
        left = []
        for node in waiting:
            inner = any(a.HasField("g") or a.graphs for a in node.attribute)
            if not inner and known.issuperset(node.input):
                known.update(node.output)
                found.append(node)
            else:
                left.append(node)
        if len(left) == len(waiting) or not left:
            return found
        waiting = left


def _result_bytes(proto: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> dict[str, int]:
    """Return the bytes of each result whose shape ONNX's inference finds.

    Node by node, and not with the propagation of data that inference offers: it follows the
    doublings itself, in memory.
    """
    known = _Known(proto)
    for tensor in proto.graph.initializer:
        known.add(tensor)
    for node in nodes[:_MOST_NODES]:
        known.run(node)
    return {name: _tensor_bytes(*kind) for name, kind in known.kinds.items() if name in known.made}


class _Known:
    """Types and shapes of constants, and the values of the small ones."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.imports, self.version = proto.opset_import, max(proto.ir_version, 4)
        self.kinds: dict[str, tuple[int, tuple[int, ...]]] = {}
        self.values: dict[str, onnx.TensorProto] = {}
        self.made: set[str] = set()

    def add(self, tensor: onnx.TensorProto) -> None:
        self.kinds[tensor.name] = tensor.data_type, tuple(tensor.dims)
        if math.prod(tensor.dims) <= _SHAPE_SIZE and not tensor.external_data:
            self.values[tensor.name] = tensor

    def run(self, node: onnx.NodeProto) -> None:
        """Find the shapes of a node's results, and their values where all are small."""
        read = [name for name in node.input if name]
        if not all(name in self.kinds for name in read):
            return
        try:
            sizes = self._shapes(node, read)
            small = sizes and all(math.prod(dims) <= _SHAPE_SIZE for _, dims in sizes.values())
            if small and all(name in self.values for name in read):
                self._compute(node, read)
        except Exception:  # noqa: BLE001 - what cannot be inferred is judged when it is loaded
            return

    def _shapes(
        self, node: onnx.NodeProto, read: list[str]
    ) -> dict[str, tuple[int, tuple[int, ...]]]:
        part = self._part(node)
        for name in dict.fromkeys(read):
            if name in self.values:
                part.graph.initializer.append(self.values[name])
            else:
                kind = onnx.helper.make_tensor_type_proto(*self.kinds[name])
                part.graph.input.append(onnx.helper.make_value_info(name, kind))
        found = {}
        for value in onnx.shape_inference.infer_shapes(part).graph.value_info:
            kind = value.type.tensor_type
            if kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim):
                found[value.name] = kind.elem_type, tuple(d.dim_value for d in kind.shape.dim)
        self.kinds |= found
        self.made |= set(found)
        return found

    def _compute(self, node: onnx.NodeProto, read: list[str]) -> None:
        from onnx.reference import ReferenceEvaluator

        part = self._part(node)
        for name in dict.fromkeys(read):
            kind = onnx.helper.make_tensor_type_proto(*self.kinds[name])
            part.graph.input.append(onnx.helper.make_value_info(name, kind))
        outputs = [name for name in node.output if name in self.kinds]
        for name in outputs:
            kind = onnx.helper.make_tensor_type_proto(*self.kinds[name])
            part.graph.output.append(onnx.helper.make_value_info(name, kind))
        feeds = {name: onnx.numpy_helper.to_array(self.values[name]) for name in read}
        for name, array in zip(outputs, ReferenceEvaluator(part).run(None, feeds), strict=True):
            self.add(onnx.numpy_helper.from_array(np.asarray(array), name))

    def _part(self, node: onnx.NodeProto) -> onnx.ModelProto:
        part = onnx.ModelProto(ir_version=self.version, opset_import=self.imports)
        part.graph.name = "constant"
        part.graph.node.append(node)
        return part


def _tensor_bytes(kind: int, dims: Iterable[int]) -> int:
    count = max(0, math.prod(dims))
    known = ir.DataType(kind) if kind in set(ir.DataType) else ir.DataType.FLOAT
    return int(
        count * (8 if known in {ir.DataType.STRING, ir.DataType.UNDEFINED} else known.itemsize)
    )
