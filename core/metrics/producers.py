"""Operators that made an output, as far as they tell what it is."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

#: Nodes that are searched behind an output.
DEPTH = 24
#: Operators whose results lie between 0 and 1.
_SQUASHING = frozenset({"Sigmoid", "HardSigmoid", "Softmax"})
#: Operators whose results have no bounds, those between layers, and those that leave values and
#: bounds as they are, but for a bias.
_LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_ACTIVATIONS = frozenset(
    {"Celu", "Elu", "Gelu", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu", "Selu", "Swish"}
)
_KEEPING = frozenset(
    {"Add", "Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)


def is_linear(value: ir.Value | None) -> bool:
    """Return whether products and sums made an output, so that only chance keeps it within 1."""
    while value is not None and (node := value.producer()) is not None:
        if node.op_type in _LINEAR:
            return True
        if node.op_type not in _KEEPING:
            return False
        value = node.inputs[0]
    return False


def is_hidden(value: ir.Value | None) -> bool:
    """Return whether an activation made an output, or a layer reads it: features, no decisions."""
    if value is None or (node := value.producer()) is None:
        return False
    return node.op_type in _ACTIVATIONS or any(n.op_type in _LINEAR for n, _ in value.uses())


def ends_in_squashing(value: ir.Value | None) -> bool:
    """Return whether a sigmoid or a softmax made an output, near its end."""
    return any(node.op_type in _SQUASHING for node in _behind(value, 4))


def has_squashed(value: ir.Value | None) -> bool:
    """Return whether a sigmoid is near an output."""
    return value is None or any(node.op_type in _SQUASHING for node in _behind(value, DEPTH))


def _behind(value: ir.Value | None, depth: int) -> Iterator[ir.Node]:
    """Yield the nodes that lead to a value, the nearest first."""
    level: list[ir.Value | None] = [value]
    seen: set[ir.Node] = set()
    for _ in range(depth):
        nodes = [v.producer() for v in level if v is not None]
        fresh = [n for n in dict.fromkeys(nodes) if n is not None and n not in seen]
        seen.update(fresh)
        yield from fresh
        level = [v for node in fresh for v in node.inputs]
