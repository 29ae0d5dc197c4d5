"""Plan of an int8 graph: which tensors are rounded, and which inputs read them rounded.

The rules follow from the kernels. A convolution or an element-wise int8 kernel writes integers, so
all readers of its output, outputs of the graph and readers inside of subgraphs included, get the
rounded tensor. Whatever else writes a float tensor, a matrix product too, leaves it to float
readers as it is; int8 kernels read a rounded copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from ...calibration.range_estimator import Range, intersection
from ...graph.queries import input_at, only_user
from .int8_operators import is_fixed
from .integers import EVERYTHING
from .roles import Role, bounds_of, data_inputs, keeps_scale, roles_of
from .scheme import Scheme

#: Input of a node, by its position.
Edge = tuple[ir.Node, int]
#: Matrix products have kernels of integers to float, so their outputs need not be rounded.
_WRITE_FLOAT = frozenset({"Gemm", "MatMul"})


@dataclass
class Pair:
    """Pair of QuantizeLinear and DequantizeLinear.

    Attributes:
        value: tensor that is rounded.
        written: tensor that QuantizeLinear reads: `value`, or where the pair stands for a Relu or
            Clip, the tensor before it.
        like: tensor whose scale it takes; its own range where None.
        bounds: bounds of the Relu or Clip that the pair stands for.
        replaced: those nodes.
        for_all: true where all readers get the rounded tensor, false where `readers` do.
        readers: inputs of int8 kernels.
    """

    value: ir.Value
    written: ir.Value
    like: ir.Value | None = None
    bounds: Range = EVERYTHING
    replaced: list[ir.Node] = field(default_factory=list)
    for_all: bool = False
    readers: list[Edge] = field(default_factory=list)


@dataclass
class Plan:
    """Rounded tensors of a graph, and who reads them.

    Attributes:
        roles: role of each node.
        pairs: pairs by the tensor that is rounded.
        layers: products, in the order of the graph.
        constants: inputs of int8 kernels that are tensors of the file, weights apart.
    """

    roles: Mapping[ir.Node | None, Role]
    pairs: dict[ir.Value, Pair] = field(default_factory=dict)
    layers: list[ir.Node] = field(default_factory=list)
    constants: list[Edge] = field(default_factory=list)


def make_plan(graph: ir.Graph, scheme: Scheme) -> Plan:
    """Plan the pairs of a sorted graph; nothing is changed."""
    return _PairPlanner(graph, scheme).plan


class _PairPlanner:
    def __init__(self, graph: ir.Graph, scheme: Scheme) -> None:
        self.scheme = scheme
        self.plan = Plan(roles_of(graph, scheme))
        #: Tensors that an int8 kernel wants as integers, directly or behind operators that move.
        self.wanted = _wanted(graph, self.plan.roles)
        #: Tensors that a product or an element-wise kernel reads.
        self.direct = _direct(graph, self.plan.roles)
        for node in graph:
            self._visit(node)

    def _visit(self, node: ir.Node) -> None:
        match self.plan.roles[node]:
            case Role.PRODUCT:
                self.plan.layers.append(node)
                self._read(node, [i for i in data_inputs(node) if not _is_weight(node, i)])
                if node.op_type not in _WRITE_FLOAT:
                    self._round(node.outputs[0])
            case Role.ARITHMETIC:
                self._read(node, data_inputs(node))
                self._round(node.outputs[0])
            case Role.SELECTION:
                if all(node.inputs[i] in self.plan.pairs for i in data_inputs(node)):
                    self._read(node, data_inputs(node))
                    self._round(node.outputs[0])
            case Role.MOVE:
                self._move(node)
            case Role.BOUND:
                self._bound(node)

    def _read(self, node: ir.Node, places: range | list[int]) -> None:
        """Let a kernel read inputs as integers."""
        for index in places:
            value = node.inputs[index]
            assert value is not None
            if is_fixed(value):
                self.plan.constants.append((node, index))
            else:
                pair = self.plan.pairs.setdefault(value, Pair(value, value))
                pair.readers.append((node, index))

    def _round(self, value: ir.Value, like: ir.Value | None = None) -> None:
        """Round what an int8 kernel writes, for all readers."""
        if not self.scheme.inputs_only:
            self.plan.pairs[value] = Pair(value, value, like, for_all=True)

    def _move(self, node: ir.Node) -> None:
        """Let an operator move integers where its input holds some."""
        value, pairs = node.inputs[0], self.plan.pairs
        assert value is not None
        if self.scheme.inputs_only:
            return
        written = value in pairs and pairs[value].for_all
        table = node.op_type == "Gather" and is_fixed(value)
        if not (written or table or (self._may_round(value) and self._wants(node))):
            return
        self._read(node, [0])
        same = keeps_scale(node)
        outputs = node.outputs if node.op_type == "Split" else node.outputs[:1]
        for output in outputs:
            self._round(output, value if same else None)

    def _may_round(self, value: ir.Value) -> bool:
        """Return whether a tensor that is written as float is worth rounding before it is moved."""
        return value in self.direct or self.plan.roles.get(value.producer()) is Role.PRODUCT

    def _wants(self, node: ir.Node) -> bool:
        return any(output in self.wanted for output in node.outputs)

    def _bound(self, node: ir.Node) -> None:
        """Let a pair stand for a Relu or Clip, where nothing else reads the tensor before it."""
        value, output = node.inputs[0], node.outputs[0]
        assert value is not None
        if self.scheme.symmetric or self.scheme.inputs_only or only_user(value) is not node:
            return
        before = self.plan.pairs.get(value)
        producer = value.producer()
        if before is not None and before.for_all:
            del self.plan.pairs[value]
            replaced, bounds, written = before.replaced, before.bounds, before.written
        elif self.plan.roles.get(producer) is Role.PRODUCT and self._is_read_as_integers(output):
            replaced, bounds, written = [], EVERYTHING, value
        else:
            return
        self.plan.pairs[output] = Pair(
            output,
            written,
            bounds=intersection(bounds_of(node), bounds),
            replaced=[*replaced, node],
            for_all=True,
        )

    def _is_read_as_integers(self, value: ir.Value) -> bool:
        """Return whether only int8 kernels read a tensor."""
        uses = list(value.uses())
        return (
            bool(uses)
            and not value.is_graph_output()
            and all(_reads_integers(n, i, self.plan.roles, self.wanted) for n, i in uses)
        )


def _is_weight(node: ir.Node, index: int) -> bool:
    return index == 1 and is_fixed(input_at(node, 1))


def _reads_integers(
    node: ir.Node, index: int, roles: Mapping[ir.Node | None, Role], wanted: set[ir.Value]
) -> bool:
    """Return whether an input will be read as integers, by a kernel or for one further on."""
    match roles.get(node):
        case Role.PRODUCT | Role.ARITHMETIC:
            return index in data_inputs(node)
        case Role.MOVE | Role.BOUND:
            return index == 0 and any(output in wanted for output in node.outputs)
    return False


def _direct(graph: ir.Graph, roles: Mapping[ir.Node | None, Role]) -> set[ir.Value]:
    kernels = (n for n in graph if roles[n] in {Role.PRODUCT, Role.ARITHMETIC})
    return {v for n in kernels for i in data_inputs(n) if (v := n.inputs[i]) is not None}


def _wanted(graph: ir.Graph, roles: Mapping[ir.Node | None, Role]) -> set[ir.Value]:
    wanted: set[ir.Value] = set()
    for node in reversed(graph):
        for index, value in enumerate(node.inputs):
            if value is not None and _reads_integers(node, index, roles, wanted):
                wanted.add(value)
    return wanted
