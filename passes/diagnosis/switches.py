"""Switches that turn quantizers of an int8 model on and off, layer by layer, in one session.

A switch is an If: one branch rounds to integers and back, the other passes the float through. Each
quantizer belongs to one layer, that which computes the tensor, so a wrong scale is reported where
it was set and not where it is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.graphs import constant_array
from trimtab.core.model import Model
from trimtab.core.ort.overflow import SAFE_SUM, largest_pairs

from .attribution import (
    QUANTIZERS,
    LayerKey,
    channel_axis,
    computing_reader,
    input_position,
    layer_of,
    producing_layer,
    quantizer_chain,
)
from .baseline_matcher import NO_BOUNDS, BaselineMatcher, Bounds
from .constants import add_initializer, fresh_name
from .expand import MOVES, expand_to_qdq
from .grids import IntegerGrid, grid_of
from .layers import Activation, Constant, DiagnosedLayer, Kind


@dataclass(frozen=True)
class SwitchableModel:
    """Model with switches.

    Attributes:
        model: model with a scalar bool input for each switch.
        layers: layers in graph order.
        unswitched: integer operators without a switch.
        constants: number of rounded constants.
        matched: number of these that were found in the float model.
    """

    model: Model
    layers: tuple[DiagnosedLayer, ...]
    unswitched: tuple[str, ...]
    constants: int
    matched: int

    def feeds(self, on: Iterable[tuple[int, Kind]]) -> dict[str, NDArray[Any]]:
        """Return the switches as feeds; `on` names layers by position."""
        wanted = set(on)
        return {switch_name(*at): np.array(at in wanted) for at in self.all_on()}

    def all_on(self) -> list[tuple[int, Kind]]:
        """Return every switch."""
        return [(i, kind) for i, layer in enumerate(self.layers) for kind in layer.kinds]

    def layer_on(self, index: int) -> list[tuple[int, Kind]]:
        """Return the switches of one layer."""
        return [(index, kind) for kind in self.layers[index].kinds]


def switch_name(index: int, kind: Kind) -> str:
    """Return the name of the input that switches one kind of quantizer of a layer."""
    return f"switch#{kind}#{index}"


def add_switches(model: Model, matcher: BaselineMatcher | None) -> SwitchableModel:
    """Add a switch to every quantizer in a copy of a model.

    Constants get none without a matcher, which finds them in the float model.
    """
    copy, unswitched = expand_to_qdq(model)
    return _Builder(copy, matcher).build(unswitched)


@dataclass(frozen=True)
class _SwitchPlace:
    """Place of a switch: a chain of quantizers, its result and its exact source."""

    key: LayerKey
    kind: Kind
    old: ir.Value
    chain: Sequence[ir.Node]
    exact: ir.Value
    bounds: Bounds = NO_BOUNDS


class _Builder:
    def __init__(self, model: Model, matcher: BaselineMatcher | None) -> None:
        self.model, self.graph, self.matcher = model, model.graph, matcher
        self.order: dict[LayerKey, int] = {node: i for i, node in enumerate(self.graph)}
        self.layers: dict[LayerKey, DiagnosedLayer] = {}
        self.places: list[_SwitchPlace] = []
        self.owner: dict[ir.Value, LayerKey] = {}
        self.replaced: dict[ir.Value, ir.Value] = {}
        self.matched = self.constants = 0

    def build(self, unswitched: Sequence[str]) -> SwitchableModel:
        chains = [quantizer_chain(n) for n in self.graph if n.op_type == "DequantizeLinear"]
        constants = [chain for origin, chain in chains if constant_array(origin) is not None]
        # Weights first: their match shows the match of their layer's bias and Relu.
        for chain in sorted(constants, key=lambda chain: input_position(chain[-1].outputs[0])):
            self._rounded_constant(chain)
        for origin, chain in chains:
            if origin is not None and constant_array(origin) is None and len(chain) == 2:
                self._activation(origin, chain)
        self._float_constants()
        keys = sorted(self.layers, key=lambda key: self.order.get(key, -1))
        index = {key: i for i, key in enumerate(keys)}
        flags: dict[str, ir.Value] = {}
        for place in self.places:
            self._insert(flags, switch_name(index[place.key], place.kind), place)
        for node in [n for n in self.graph if n.op_type in QUANTIZERS]:
            if not any(v.uses() or v.is_graph_output() for v in node.outputs):
                self.graph.remove(node, safe=True)
        self.graph.sort()
        layers = tuple(self.layers[key] for key in keys)
        return SwitchableModel(self.model, layers, tuple(unswitched), self.constants, self.matched)

    def _layer(self, key: LayerKey) -> DiagnosedLayer:
        if key not in self.layers:
            value = key if isinstance(key, ir.Value) else key.outputs[0]
            op = "Input" if isinstance(key, ir.Value) else key.op_type
            self.layers[key] = DiagnosedLayer(key.name or value.name or "", op, value.name or "")
        return self.layers[key]

    def _activation(self, origin: ir.Value, chain: Sequence[ir.Node]) -> None:
        result, grid = chain[-1].outputs[0], grid_of(chain[0])
        if chain[0].op_type == "DynamicQuantizeLinear":
            key: LayerKey = next(use.node for use in result.uses())  # it belongs to its readers
            grid = None
        elif (source := self._moved_from(origin, grid)) is not None:
            key = source
        else:
            key = producing_layer(origin)
            self._layer(key).output = result.name or ""
        layer = self._layer(key)
        layer.activations.append(Activation(result.name or "", grid))
        self.owner[result] = key
        bounds = self._bounds(origin, grid)
        self.places.append(_SwitchPlace(key, "activation", result, chain, origin, bounds))

    def _bounds(self, value: ir.Value, grid: IntegerGrid | None) -> Bounds:
        """Return the bounds of a tensor that its quantizer sets instead of a Relu or Clip."""
        low, high = grid.range if grid is not None else NO_BOUNDS
        half = grid.step / 2 if grid is not None else 0.0
        known = self.matcher.bounds(value, (low + half, high - half)) if self.matcher else None
        if known is not None:
            return known
        # Without a baseline: integers that start at zero replace a Relu.
        return (0.0 if low == 0 else -np.inf), np.inf

    def _moved_from(self, value: ir.Value, grid: IntegerGrid | None) -> LayerKey | None:
        """Return the layer whose output a moving operator passes on, rounded to the same grid."""
        node = value.producer()
        if node is None or grid is None or node.op_type not in MOVES:
            return None
        for before in node.inputs:
            key = self.owner.get(before) if before is not None else None
            if key is not None and any(grid.same(a.grid) for a in self.layers[key].activations):
                return key
        return None

    def _rounded_constant(self, chain: Sequence[ir.Node]) -> None:
        result, grid = chain[-1].outputs[0], grid_of(chain[-1])
        stored = constant_array(chain[0].inputs[0])
        if grid is None or stored is None or not result.uses():
            return
        if len(chain) == 2:  # a float constant that is rounded in each run
            integers = (grid_of(chain[0]) or grid).quantize(stored)
            self._constant(result, chain, grid.dequantize(integers), grid, exact=stored)
        else:
            self._constant(result, chain, grid.dequantize(stored), grid)

    def _float_constants(self) -> None:
        """Add switches to float constants that differ from those of the float model."""
        if self.matcher is None:
            return
        for name, value in list(self.graph.initializers.items()):
            stored = constant_array(value)
            ops = {use.node.op_type for use in value.uses()}
            if stored is None or stored.dtype != np.float32 or not ops or ops & QUANTIZERS:
                continue
            exact = self.matcher.same_name(name, stored)
            if "#" in name or (exact is not None and not np.array_equal(exact, stored)):
                self._constant(value, [], stored, None, exact=exact)

    def _constant(
        self,
        value: ir.Value,
        chain: Sequence[ir.Node],
        rounded: NDArray[Any],
        grid: IntegerGrid | None,
        exact: NDArray[Any] | None = None,
    ) -> None:
        """Add a constant and its switch to a layer, where the float model has its original."""
        reader, position = computing_reader(value)
        key = layer_of(reader)
        is_bias = position >= 2 or reader.op_type in {"Add", "Sub"}
        if exact is None and self.matcher is not None:
            find = self.matcher.bias if is_bias else self.matcher.weight
            exact = find(value.name or "", reader, position, rounded)
        self.constants += 1
        if exact is None:
            return
        self.matched += 1
        layer = self._layer(key)
        exact = np.ascontiguousarray(exact, np.float32)
        channels = channel_axis(reader, exact.ndim)
        pairs = None if is_bias else _limiting_pairs(reader, rounded, exact, grid)
        stored = Constant(value.name or "", rounded, exact, grid, channels, pairs)
        (layer.biases if is_bias else layer.weights).append(stored)
        kind: Kind = "bias" if is_bias else "weight"
        initializer = add_initializer(self.graph, "exact", exact)
        self.places.append(_SwitchPlace(key, kind, value, chain, initializer))

    def _insert(self, flags: dict[str, ir.Value], name: str, place: _SwitchPlace) -> None:
        """Replace the end of a chain of quantizers by an If between it and the exact value."""
        if name not in flags:
            flags[name] = ir.val(name, dtype=ir.DataType.BOOL, shape=ir.Shape([]))
            self.graph.inputs.append(flags[name])
        old = place.old
        branches = {
            # A float constant that only differs has no chain.
            "then_branch": _branch(_copied(place.chain) or [ir.node("Identity", [old])]),
            "else_branch": _branch([self._exact(place)]),
        }
        node = ir.node("If", [flags[name]], attributes=branches, name=fresh_name("switch"))
        result = node.outputs[0]
        result.dtype = ir.DataType.FLOAT
        producer, own_name = old.producer(), old.name
        uses = [use for use in old.uses() if use.node.graph is self.graph]
        self.graph.insert_before(producer or uses[0].node, node)
        if producer is None:  # a float constant keeps its name; its readers read the switch
            result.name = fresh_name("switched")
            for use in uses:
                use.node.replace_input_with(use.idx, result)
            return
        old.replace_all_uses_with(result, replace_graph_outputs=True)
        self.replaced[old] = result
        self.graph.remove(producer, safe=True)
        result.name = own_name

    def _exact(self, place: _SwitchPlace) -> ir.Node:
        """Return a node that passes the float value on, within the bounds of the float model."""
        value = self.replaced.get(place.exact, place.exact)
        low, high = (np.float32(b) if np.isfinite(b) else None for b in place.bounds)
        if low is None and high is None:
            return ir.node("Identity", [value])
        ends = [None if b is None else add_initializer(self.graph, "bound", b) for b in (low, high)]
        return ir.node("Clip", [value, *ends])


def _copied(chain: Sequence[ir.Node]) -> list[ir.Node]:
    """Copy a chain of nodes."""
    nodes: list[ir.Node] = []
    made: dict[ir.Value | None, ir.Value] = {}
    for node in chain:
        inputs, attributes = [made.get(v, v) for v in node.inputs], dict(node.attributes)
        copy = ir.node(node.op_type, inputs, attributes, num_outputs=len(node.outputs))
        made.update(zip(node.outputs, copy.outputs, strict=True))
        nodes.append(copy)
    return nodes


def _branch(nodes: Sequence[ir.Node]) -> ir.Graph:
    """Return a branch with the output of the last of its nodes."""
    for node in nodes:
        for output in node.outputs:
            output.name = fresh_name("branch")
    result = nodes[-1].outputs[0]
    result.dtype = ir.DataType.FLOAT
    return ir.Graph([], [result], nodes=nodes, name=fresh_name("branch"))


def _limiting_pairs(
    reader: ir.Node, rounded: NDArray[Any], exact: NDArray[Any], grid: IntegerGrid | None
) -> NDArray[Any] | None:
    """Return the largest sums of two exact weights, where those of the integers fit 16 bits."""
    if grid is None or reader.op_type not in {"Conv", "Gemm", "MatMul"}:
        return None
    sums = largest_pairs(reader, grid.offsets(rounded))
    if sums is None or not sums.any() or sums.max() > SAFE_SUM:
        return None
    return largest_pairs(reader, exact)
