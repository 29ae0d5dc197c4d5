"""Dynamic int8 written in place: products of integers, with activations rounded while they run.

onnxruntime fuses DynamicQuantizeLinear, MatMulInteger, Cast and Mul to one operator, in subgraphs
too. Weights that a subgraph captures are constants like others.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from trimtab.core.model import Model
from trimtab.core.ort.int8_share import FLOAT_OPS
from trimtab.core.target import IntType

from ...graph.declined import Declined
from ...graph.edit import remove_unused_initializers, replace_output
from ...graph.gemm import first_factor, parts_of_gemm, with_bias
from ...graph.graph_writer import copied_attributes
from ...graph.queries import input_at, is_onnx_op, pair
from ...graph.stored.shared_constants import share_equal_constants
from .dynamic_graph import DynamicGraph, StoredWeight
from .dynamic_recurrent import CONTRIB, write_attention, write_lstm

#: A table in integers needs an operator that makes floats of what was looked up: bytes in a file.
_TABLE_COST = 256
#: Reason of a product whose weight is on the wrong side.
CONSTANT_FIRST = "its first factor is the constant, and int8 kernels take it as the second"


@dataclass(frozen=True)
class DynamicScheme:
    """Options of dynamic int8.

    Attributes:
        weight: integer type of weights.
        per_channel: one scale for each output channel of a weight.
        reduce_range: weights use 7 bits.
        convs: quantize convolutions too.
        embeddings: store the tables of Gather in integers.
        exclude: names of nodes that stay float.
    """

    weight: IntType
    per_channel: bool = True
    reduce_range: bool = False
    convs: bool = False
    embeddings: bool = True
    exclude: Collection[str] = ()


@dataclass
class Written:
    """Operators that were made integers, and those that stay float.

    Attributes:
        operators: number of operators written in int8, by type of the float one.
        inside: names of those that stand in subgraphs.
        declined: float ones, with reasons.
    """

    operators: collections.Counter[str] = field(default_factory=collections.Counter)
    inside: list[str] = field(default_factory=list)
    declined: list[Declined] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        inside = {"in_subgraphs": self.inside} if self.inside else {}
        return {"quantized": dict(sorted(self.operators.items())), **inside}


def write_dynamic(model: Model, scheme: DynamicScheme) -> Written:
    """Replace float operators by integer ones, in place, those in subgraphs included."""
    graph = model.graph
    edits = DynamicGraph(
        graph,
        kind=scheme.weight,
        per_channel=scheme.per_channel,
        reduce_range=scheme.reduce_range,
    )
    written = Written()
    nodes = [node for node in graph.all_nodes() if node.name not in scheme.exclude]
    for node in nodes:
        if node.op_type != "Gather":
            _note(written, node, graph, _write(edits, node, scheme))
    edits.constants.remove_unread(graph)
    if scheme.embeddings:
        for node in nodes:
            if node.op_type == "Gather" and is_onnx_op(node):
                _note(written, node, graph, _gather(edits, node, scheme))
        edits.constants.remove_unread(graph)
    for part in (graph, *graph.subgraphs()):
        remove_unused_initializers(part)
    share_equal_constants(model.ir)
    if any(node.domain == CONTRIB for node in graph.all_nodes()):
        graph.opset_imports.setdefault(CONTRIB, 1)
    return written


def _note(written: Written, node: ir.Node, graph: ir.Graph, reason: str | None) -> None:
    """Note the outcome for a node; with no reason it was written and is removed."""
    if reason is None:
        return
    if reason:
        written.declined.append(Declined(node.name or "", reason))
        return
    written.operators[node.op_type] += 1
    assert node.graph is not None
    if node.graph is not graph:
        written.inside.append(node.name or "")
    node.graph.remove(node, safe=True)


def _write(edits: DynamicGraph, node: ir.Node, scheme: DynamicScheme) -> str | None:
    """Write an operator; return "" if done, why it stays float, None for others."""
    if node.op_type == "Attention" and node.domain == CONTRIB:
        return write_attention(edits, node)
    if is_onnx_op(node) and node.op_type in _WRITERS:
        if node.op_type == "Conv" and not scheme.convs:
            return "an integer convolution is slower than a float one"
        return _WRITERS[node.op_type](edits, node)
    if node.op_type in FLOAT_OPS:
        return f"onnxruntime has no dynamic int8 kernel for {node.op_type}"
    return None


def _matmul(edits: DynamicGraph, node: ir.Node) -> str:
    x, weight = pair(node)
    if edits.constants.fold(x) is not None:
        return CONSTANT_FIRST
    folded, reason = edits.float_weight(weight)
    if folded is None:
        return reason
    rank = folded.array.ndim
    if rank < 2:
        return "its weight is a vector"
    columns = folded.array.shape[-1]
    # A batch of weights has scales of its own for each of them.
    channels = [axis for axis in range(rank) if axis != rank - 2]
    shape = [columns] if rank == 2 else [*folded.array.shape[:-2], 1, columns]
    stored = edits.weight(weight, folded, channels, shape=shape)
    replace_output(node.outputs[0], _product(edits, node, "MatMulInteger", x, stored))
    return ""


def _product(
    edits: DynamicGraph,
    node: ir.Node,
    op_type: str,
    x: ir.Value,
    weight: StoredWeight,
    attributes: Sequence[ir.Attr] = (),
) -> ir.Value:
    """Insert a product of integers before a node and return it in float."""
    name = node.name or node.op_type
    rounded = edits.rounded(x, node)
    zero = [] if weight.zero is None else [weight.zero]
    inputs = [rounded.values, weight.values, rounded.zero, *zero]
    integers = edits.node(op_type, inputs, node, name, attributes=attributes)
    to_float = [ir.AttrInt64("to", ir.DataType.FLOAT.value)]
    cast = edits.node("Cast", integers.outputs, node, name, attributes=to_float)
    scales = edits.result("Mul", [rounded.scale, weight.scale], node, f"{name}_scales")
    return edits.result("Mul", [cast.outputs[0], scales], node, name)


def _gemm(edits: DynamicGraph, node: ir.Node) -> str:
    """Write alpha * A B + beta * C: alpha goes into the scales."""
    x, weight = pair(node)
    folded, reason = edits.float_weight(weight)
    if folded is None:
        return reason
    if edits.constants.fold(x) is not None:
        return CONSTANT_FIRST
    gemm = parts_of_gemm(node, folded)
    shape = gemm.weight.array.shape[1:]
    stored = edits.weight(weight, gemm.weight, [1], shape=shape, factor=gemm.alpha)
    product = _product(edits, node, "MatMulInteger", first_factor(edits, node), stored)
    replace_output(node.outputs[0], with_bias(edits, node, product))
    return ""


def _conv(edits: DynamicGraph, node: ir.Node) -> str:
    x, weight = pair(node)
    folded, reason = edits.float_weight(weight)
    if folded is None:
        return reason
    ones = [1] * (folded.array.ndim - 2)
    stored = edits.weight(weight, folded, [0], shape=[len(folded.array), *ones])
    result = _product(edits, node, "ConvInteger", x, stored, copied_attributes(node))
    bias = input_at(node, 2)
    if bias is not None:
        constant, graph = edits.constants.fold(bias), node.graph
        assert isinstance(graph, ir.Graph)
        if constant is not None:
            added = edits.constant(
                constant.graph, constant.array.reshape(-1, *ones), f"{bias.name}_channels"
            )
        else:
            shape = edits.constant(graph, np.array([-1, *ones]), f"{bias.name}_shape")
            added = edits.result("Reshape", [bias, shape], node, f"{node.name}_bias")
        result = edits.result("Add", [result, added], node, f"{node.name}_bias")
    replace_output(node.outputs[0], result)
    return ""


def _gather(edits: DynamicGraph, node: ir.Node, scheme: DynamicScheme) -> str | None:
    """Look rows up in a table of integers and make floats of those alone."""
    table, indices = pair(node)
    folded, _ = edits.float_weight(table)
    maker = table.producer()
    if folded is None or (maker is not None and maker.op_type != "Constant"):
        return None
    if 3 * folded.array.size <= _TABLE_COST:
        return None
    other = _other_reader(table, scheme)
    if other:
        return f"its table is read in float by {other} as well"
    stored = edits.table(table, folded)
    name = node.name or "Gather"
    looked_up = edits.node(
        "Gather", [stored.values, indices], node, name, attributes=copied_attributes(node)
    )
    zero = [] if stored.zero is None else [stored.zero]
    inputs = [looked_up.outputs[0], stored.scale, *zero]
    replace_output(node.outputs[0], edits.result("DequantizeLinear", inputs, node, name))
    return ""


def _other_reader(table: ir.Value, scheme: DynamicScheme) -> str:
    """Return what else needs a table in float; "" where looking rows up is all that is done."""
    if table.is_graph_output():
        return "the model's caller, as an output,"
    for reader, index in table.uses():
        same = reader.op_type == "Gather" and is_onnx_op(reader) and index == 0
        if not same or reader.name in scheme.exclude:
            return f"{reader.op_type} {reader.name!r}"
    return ""


_WRITERS: dict[str, Callable[[DynamicGraph, ir.Node], str]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "LSTM": write_lstm,
    "MatMul": _matmul,
}
