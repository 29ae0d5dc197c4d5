"""Nodes that stay float by rule, since int8 costs answers there and gains next to no time.

At the end: what follows the last layers. A Concat of boxes in pixels and of scores has one scale,
in which a score is 0 or 1; a score near a threshold needs more levels than 256.
At the start: what scales the input, and spectra (STFT, filter banks), whose smallest sums count as
much as the largest once their logarithm is taken.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from ...graph.queries import dims, input_at
from .int8_operators import ARITHMETIC, MOVES, PRODUCTS, is_fixed

#: Layers, behind which the end of a graph begins; operators that cost as much on large tensors.
_LAYERS = (
    PRODUCTS
    | {"AveragePool", "ConvTranspose", "GRU", "GlobalAveragePool", "If", "LSTM", "Loop"}
    | {"MaxPool", "RNN", "Resize", "Scan"}
)
#: Operators that make an end of sums alone one of decisions, boxes or scores.
_DECIDES = frozenset({"Concat", "Mul", "Sigmoid", "Softmax"})
#: Operators behind which a tensor is no longer a linear spectrum, or its power.
_NONLINEAR = frozenset(
    {"BatchNormalization", "Celu", "Elu", "Erf", "Exp", "GRU", "Gelu", "HardSigmoid", "HardSwish"}
    | {"InstanceNormalization", "LSTM", "LayerNormalization", "LeakyRelu", "MaxPool", "Mish"}
    | {"PRelu", "RNN", "Relu", "Selu", "Sigmoid", "Softmax", "Softplus", "Tanh"}
)
#: Length of a kernel on one channel that is a window of samples.
_WINDOW = 32
#: Products and sums of a front end at most.
_FRONT = 64

END = "follows the last layer, where boxes, scores and decisions need more than 256 levels"
START = "scales the input, which costs little in float"
SPECTRUM = "makes a spectrum, whose small sums 256 levels cannot hold"


def float_ends(graph: ir.Graph) -> Iterator[tuple[ir.Node, str]]:
    """Yield the nodes of a sorted graph that stay float by rule, with the reason."""
    found = dict.fromkeys(_spectra(graph), SPECTRUM)
    found |= dict.fromkeys((n for n in _start(graph) if n.op_type in {"Add", "Mul"}), START)
    end = _end(graph)
    if any(node.op_type in _DECIDES for node in end):
        ends = (n for n in end if n.op_type in ARITHMETIC or n.op_type in PRODUCTS)
        found |= dict.fromkeys(ends, END)
    yield from ((node, found[node]) for node in graph if node in found)


def _end(graph: ir.Graph) -> set[ir.Node]:
    """Return the nodes between the last layers and the outputs."""
    waiting = [value.producer() for value in graph.outputs]
    found: set[ir.Node] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in found or node.graph is not graph:
            continue
        if node.op_type not in _LAYERS or _decodes(node):
            found.add(node)
            waiting += [value.producer() for value in node.inputs if value is not None]
    return found


def _decodes(node: ir.Node) -> bool:
    """Return whether a product takes the mean of a distribution, as the distances of a box are."""
    if node.op_type not in PRODUCTS or not is_fixed(input_at(node, 1)):
        return False
    source = node.inputs[0]
    maker = source.producer() if source is not None else None
    while maker is not None and maker.op_type in MOVES and maker.inputs[0] is not None:
        maker = maker.inputs[0].producer()
    return maker is not None and maker.op_type == "Softmax"


def _start(graph: ir.Graph) -> Iterator[ir.Node]:
    """Yield the nodes that depend on inputs alone, without a layer between."""
    fresh = {value for value in graph.inputs if not is_fixed(value)}
    for node in graph:
        sources = [v for v in node.inputs if v is not None and not is_fixed(v)]
        if node.op_type in _LAYERS or not sources:
            continue
        if all(value in fresh for value in sources):
            fresh.update(node.outputs)
            yield node


def _spectra(graph: ir.Graph) -> set[ir.Node]:
    """Return products and sums that lead to windows of samples, or to a logarithm."""
    behind: dict[ir.Value, frozenset[ir.Node]] = {v: frozenset() for v in graph.inputs}
    found: set[ir.Node] = set()
    for node in graph:
        sources = [v for v in node.inputs if v is not None and not is_fixed(v)]
        if node.op_type in _NONLINEAR or any(v not in behind for v in sources):
            continue
        products = frozenset[ir.Node]().union(*(behind[v] for v in sources))
        if node.op_type in PRODUCTS | {"Add", "Concat", "Mul"}:
            products |= {node}
        if len(products) > _FRONT:
            continue
        if node.op_type == "Log" or _reads_windows(node):
            found |= products
        behind.update(dict.fromkeys(node.outputs, products))
    return found


def _reads_windows(node: ir.Node) -> bool:
    shape = dims(input_at(node, 1)) if node.op_type == "Conv" else None
    if shape is None or len(shape) < 3 or shape[1] != 1 or node.attributes.get_int("group", 1) > 1:
        return False
    lengths = [size for size in shape[2:] if size is not None]
    return max(lengths) >= _WINDOW and sorted(lengths)[:-1] == [1] * (len(lengths) - 1)
