"""Weights that a graph stores in fewer bits and computes from constants: found, undone and redone.

Passes read and change float weights. So each of them sees those, and its result is stored as its
input was, where the weights allow that without loss.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Array

from ..edit import remove_unused_initializers, replace_by_constant
from ..names import FreeNames
from ..queries import const, is_onnx_op
from .stored_weights import LARGEST, MAX_ERROR, exact, form_error, rounded, store

#: Types of integers that weights are stored in, and of floats.
_NARROW = frozenset(
    {
        ir.DataType.INT16,
        ir.DataType.INT8,
        ir.DataType.UINT8,
        ir.DataType.INT4,
        ir.DataType.UINT4,
        ir.DataType.FLOAT16,
        ir.DataType.BFLOAT16,
    }
)
#: Elements of a weight below which operators and scales take more than is saved.
SMALLEST = 256
_COMPUTE: dict[str, Callable[[ir.Node, list[Array]], Array]] = {
    "Cast": lambda node, x: x[0].astype(ir.DataType(node.attributes.get_int("to")).numpy()),
    "Concat": lambda node, x: np.concatenate(x, axis=node.attributes.get_int("axis")),
    "Div": lambda _, x: np.asarray(x[0] / x[1], x[0].dtype),
    "Floor": lambda _, x: np.floor(x[0]),
    "Gather": lambda node, x: np.take(x[0], x[1], axis=node.attributes.get_int("axis", 0)),
    "Mul": lambda _, x: x[0] * x[1],
    "Reshape": lambda _, x: x[0].reshape([int(n) for n in x[1]]),
    "Sub": lambda _, x: x[0] - x[1],
}


def compressed_weights(model: ir.Model) -> dict[ir.Value, list[ir.Node]]:
    """Return float32 tensors computed from narrow constants alone, with what computes them.

    The nodes of each are in order; subgraphs are searched as well.
    """
    nodes: dict[ir.Value, list[ir.Node]] = {}
    for node in model.graph.all_nodes():
        if _widens(node) or _computes(node, nodes):
            before = [n for v in node.inputs if v in nodes for n in nodes[v]]
            nodes[node.outputs[0]] = [*dict.fromkeys(before), node]
    return {v: made for v, made in nodes.items() if _is_weight(v, nodes)}


def _widens(node: ir.Node) -> bool:
    if node.op_type != "Cast" or not is_onnx_op(node) or not node.inputs:
        return False
    array = const(node.inputs[0])
    source = node.inputs[0]
    assert source is not None or array is None
    tensor = source.const_value if source is not None and array is not None else None
    return tensor is not None and tensor.dtype in _NARROW and tensor.size > 1


def _computes(node: ir.Node, nodes: dict[ir.Value, list[ir.Node]]) -> bool:
    if node.op_type not in _COMPUTE or not is_onnx_op(node):
        return False
    inputs: Sequence[ir.Value | None] = node.inputs
    known = all(v is not None and (v in nodes or const(v) is not None) for v in inputs)
    return known and any(v in nodes for v in inputs)


def _is_weight(value: ir.Value, nodes: dict[ir.Value, list[ir.Node]]) -> bool:
    """Return whether something else than the computation of a weight reads a float tensor."""
    floats = ir.DataType(nodes[value][-1].attributes.get_int("to", int(ir.DataType.FLOAT)))
    readers = [node for node, _ in value.uses()]
    used = any(n.outputs[0] not in nodes for n in readers)
    return used and floats == ir.DataType.FLOAT and not value.is_graph_output()


def expand_compressed(model: ir.Model, only: Collection[str] | None = None) -> int:
    """Turn weights that are stored in fewer bits into float initializers, in place.

    Args:
        model: model to change.
        only: names of these weights; all where None.

    Returns:
        The number of weights.
    """
    found = compressed_weights(model)
    found = {v: nodes for v, nodes in found.items() if only is None or v.name in only}
    arrays = {value: _value(value, nodes) for value, nodes in found.items()}
    kept = {value: array for value, array in arrays.items() if array.dtype == np.float32}
    for value, array in kept.items():
        node = value.producer()
        assert node is not None
        replace_by_constant(node, array)
    for nodes in found.values():
        for node in reversed(nodes):
            if node.graph is not None and not node.outputs[0].uses():
                node.graph.remove(node, safe=True)
    if kept:
        remove_unused_initializers(model.graph)
    return len(kept)


def _value(value: ir.Value, nodes: list[ir.Node]) -> Array:
    found: dict[ir.Value, Array] = {}
    for node in nodes:
        inputs = []
        for source in node.inputs:
            assert source is not None
            array = found[source] if source in found else const(source)
            assert array is not None
            inputs.append(array)
        found[node.outputs[0]] = _COMPUTE[node.op_type](node, inputs)
    return found[value]


def compress_exactly(model: ir.Model) -> int:
    """Store weights in fewer bits where that loses nothing, in place.

    Returns:
        The number of weights.
    """
    names, count = FreeNames(model.graph), 0
    for value in storable(model):
        assert value.const_value is not None
        form = exact(value.const_value.numpy())
        if form is not None:
            store(names, value, form)
            count += 1
    return count


def stored_bits(model: ir.Model) -> dict[str, int]:
    """Return the bits that an element of each compressed weight takes, by the weight's name."""
    return {str(v.name): _bits(nodes) for v, nodes in compressed_weights(model).items()}


def _bits(nodes: Sequence[ir.Node]) -> int:
    if any(node.op_type == "Floor" for node in nodes):  # two integers are unpacked from a byte
        return 4
    sources = [node.inputs[0] for node in nodes if _widens(node)]
    return min(
        int(source.dtype.bitwidth) for source in sources if source is not None and source.dtype
    )


def store_rounded(model: ir.Model, bits: Mapping[str, int]) -> None:
    """Round weights that lie on no grid any more to the bits that they had before, in place.

    Those that lose too much take twice as many.

    Args:
        model: model whose weights that are stored without loss are compressed already.
        bits: see `stored_bits`.
    """
    names = FreeNames(model.graph)
    for value in storable(model):
        assert value.const_value is not None
        least, array = bits.get(str(value.name)), value.const_value.numpy()
        tried = [rounded(array, width) for width in sorted(LARGEST) if least and width >= least]
        fine = (f for f in tried if f and form_error(f, array) <= MAX_ERROR.get(f.bits, np.inf))
        if (form := next(fine, None)) is not None:
            store(names, value, form)


def storable(model: ir.Model) -> list[ir.Value]:
    """Return the float32 initializers of two axes or more that only nodes read."""
    return [
        value
        for graph in model.graphs()
        if len(graph)
        for value in list(graph.initializers.values())
        if _is_storable(value)
    ]


def _is_storable(value: ir.Value) -> bool:
    tensor = value.const_value
    if tensor is None or value.is_graph_input() or value.is_graph_output() or not value.uses():
        return False
    many = len(tensor.shape) > 1 and tensor.size >= SMALLEST
    return many and tensor.dtype == ir.DataType.FLOAT
