"""Loops that a file asks for and no machine ends, found without running them.

onnxruntime cannot be interrupted, and tools that fold constants run a Loop whose inputs are
constants before anybody asks. A Loop that may stop by its own condition is left to run.
"""

from __future__ import annotations

import math

import onnx
from onnx import TensorProto, numpy_helper

from ..errors import ModelError
from ..sparse import graphs_of

#: Most turns of a Loop without a condition of its own: about a minute of the smallest body.
MOST_TURNS = 30_000_000
#: Operators that hand a condition on as it is.
_COPIES = frozenset({"Identity", "Cast"})


def check_loops(proto: onnx.ModelProto, where: str) -> None:
    """Refuse a Loop of a constant, huge number of turns that nothing ends before.

    Raises:
        ModelError: names the node.
    """
    known: dict[str, TensorProto] = {}
    for graph in graphs_of(proto.graph):
        known |= _constants(graph)
        for node in graph.node:
            if node.op_type == "Loop":
                _check_loop(node, known, where)


def _check_loop(node: onnx.NodeProto, known: dict[str, TensorProto], where: str) -> None:
    trips, go = (*node.input, "", "")[:2]
    bodies = [a.g for a in node.attribute if a.name == "body"]
    if not bodies or not (bodies[0].output and len(bodies[0].input) > 1):
        return
    turns = math.inf if not trips else _number(known.get(trips))
    if turns is None or turns <= MOST_TURNS:
        return
    if go and not _number(known.get(go)):  # may end before it starts
        return
    if not _goes_on(bodies[0], known):
        return
    text = "without an end" if turns == math.inf else f"of {int(turns):,} turns"
    raise ModelError(
        f"node {node.name!r} is a Loop {text}, and its condition never becomes false",
        where=where,
        hint=f"Give it a condition, or at most {MOST_TURNS:,} turns",
    )


def _goes_on(body: onnx.GraphProto, known: dict[str, TensorProto]) -> bool:
    """Return whether the condition that a body makes is the one it got, or always true."""
    made = {name: node for node in body.node for name in node.output if name}
    constants = known | _constants(body)
    name = body.output[0].name
    for _ in range(len(body.node) + 1):
        if name == body.input[1].name:
            return True
        if name in constants:
            return bool(_number(constants[name]))
        node = made.get(name)
        if node is None or node.op_type not in _COPIES or not node.input:
            return False
        name = node.input[0]
    return False


def _constants(graph: onnx.GraphProto) -> dict[str, TensorProto]:
    """Return a graph's weights, and the tensors of its Constant nodes, by name."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            found.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
    return found


def _number(tensor: TensorProto | None) -> float | None:
    """Return the number that a tensor holds, None where it is not known."""
    if tensor is None or tensor.external_data or math.prod(tensor.dims) != 1:
        return None
    if tensor.data_type not in {TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL}:
        return None
    return float(numpy_helper.to_array(tensor).reshape(-1)[0])
