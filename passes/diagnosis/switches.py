"""An int8 model whose quantizers can be switched on and off, layer by layer, in one session.

A switch is an If: one branch rounds to integers and back, the other hands the float on. Each
quantizer belongs to one layer, that of the tensor's maker, so a wrong scale is told where it was
set and not where it is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.model import Model

from .constants import array_of, constant, fresh
from .expand import MOVES, to_pairs
from .grids import Grid, grid_of
from .layers import Activation, Constant, Kind, Layer
from .owners import (
    QUANTIZERS,
    Key,
    chain_of,
    channels_of,
    layer_of,
    maker_of,
    position_of,
    reader_of,
)
from .partner import NO_BOUNDS, Bounds, Partner


@dataclass(frozen=True)
class Switched:
    """The model with its switches.

    Attributes:
        model: has a scalar bool input for each switch.
        layers: in graph order.
        left: integer operators that no switch reaches.
        constants: how many constants are rounded.
        matched: how many of them were found in the float model.
    """

    model: Model
    layers: tuple[Layer, ...]
    left: tuple[str, ...]
    constants: int
    matched: int

    def feeds(self, on: Iterable[tuple[int, Kind]]) -> dict[str, NDArray[Any]]:
        """The switches as inputs of the model; `on` names layers by position."""
        wanted = set(on)
        return {switch(*at): np.array(at in wanted) for at in self.all_on()}

    def all_on(self) -> list[tuple[int, Kind]]:
        """Every switch."""
        return [(i, kind) for i, layer in enumerate(self.layers) for kind in layer.kinds]

    def layer_on(self, index: int) -> list[tuple[int, Kind]]:
        """The switches of one layer."""
        return [(index, kind) for kind in self.layers[index].kinds]


def switch(index: int, kind: Kind) -> str:
    """Name of the input that switches one kind of quantizer of a layer."""
    return f"switch#{kind}#{index}"


def add_switches(model: Model, partner: Partner | None) -> Switched:
    """Give every quantizer of a model a switch.

    Args:
        model: quantized, in any format that `to_pairs` reads; stays as it is.
        partner: finds constants in the float model; where None, constants stay as they are.
    """
    copy = model.clone()
    left = to_pairs(copy.ir)
    return _Builder(copy, partner).build(left)


@dataclass(frozen=True)
class _Place:
    """Where a switch goes: between what a chain of quantizers makes and what it is made from."""

    key: Key
    kind: Kind
    old: ir.Value
    chain: Sequence[ir.Node]
    exact: ir.Value
    bounds: Bounds = NO_BOUNDS


class _Builder:
    def __init__(self, model: Model, partner: Partner | None) -> None:
        self.model, self.graph, self.partner = model, model.graph, partner
        self.order: dict[Key, int] = {node: i for i, node in enumerate(self.graph)}
        self.layers: dict[Key, Layer] = {}
        self.places: list[_Place] = []
        self.owner: dict[ir.Value, Key] = {}
        self.replaced: dict[ir.Value, ir.Value] = {}
        self.matched = self.constants = 0

    def build(self, left: Sequence[str]) -> Switched:
        chains = [chain_of(node) for node in self.graph if node.op_type == "DequantizeLinear"]
        constants = [chain for origin, chain in chains if array_of(origin) is not None]
        # Weights first: where they are found tells where their layer's bias and Relu are.
        for chain in sorted(constants, key=lambda chain: position_of(chain[-1].outputs[0])):
            self._rounded_constant(chain)
        for origin, chain in chains:
            if origin is not None and array_of(origin) is None and len(chain) == 2:
                self._activation(origin, chain)
        self._float_constants()
        keys = sorted(self.layers, key=lambda key: self.order.get(key, -1))
        index = {key: i for i, key in enumerate(keys)}
        flags: dict[str, ir.Value] = {}
        for place in self.places:
            self._insert(flags, switch(index[place.key], place.kind), place)
        for node in [n for n in self.graph if n.op_type in QUANTIZERS]:
            if not any(v.uses() or v.is_graph_output() for v in node.outputs):
                self.graph.remove(node, safe=True)
        self.graph.sort()
        layers = tuple(self.layers[key] for key in keys)
        return Switched(self.model, layers, tuple(left), self.constants, self.matched)

    def _layer(self, key: Key) -> Layer:
        if key not in self.layers:
            value = key if isinstance(key, ir.Value) else key.outputs[0]
            op = "Input" if isinstance(key, ir.Value) else key.op_type
            self.layers[key] = Layer(key.name or value.name or "", op, value.name or "")
        return self.layers[key]

    def _activation(self, origin: ir.Value, chain: Sequence[ir.Node]) -> None:
        result, grid = chain[-1].outputs[0], grid_of(chain[0])
        if chain[0].op_type == "DynamicQuantizeLinear":
            key: Key = next(use.node for use in result.uses())  # it was made for its readers
            grid = None
            layer = self._layer(key)
        else:
            source = self._moved_from(origin, grid)
            key = source if source is not None else maker_of(origin)
            layer = self._layer(key)
            if source is None:
                layer.output = result.name or ""
        layer.activations.append(Activation(result.name or "", grid))
        self.owner[result] = key
        bounds = self._bounds(origin, grid)
        self.places.append(_Place(key, "activation", result, chain, origin, bounds))

    def _bounds(self, value: ir.Value, grid: Grid | None) -> Bounds:
        """Bounds of a tensor that its quantizer sets in the place of a Relu or Clip."""
        low, high = grid.range if grid is not None else NO_BOUNDS
        half = grid.step / 2 if grid is not None else 0.0
        if self.partner is not None:
            known = self.partner.bounds(value, (low + half, high - half))
            if known is not None:
                return known
        # Nothing is known of it: integers that start at zero stand for a Relu.
        return (0.0 if low == 0 else -np.inf), np.inf

    def _moved_from(self, value: ir.Value, grid: Grid | None) -> Key | None:
        """The layer whose result a moving operator hands on, rounded to the same grid."""
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
        held = array_of(chain[0].inputs[0])
        if grid is None or held is None or not result.uses():
            return
        if len(chain) == 2:  # a float constant that is rounded in each run
            own = grid_of(chain[0]) or grid
            self._constant(result, chain, grid.meant(own.rounded(held)), grid, exact=held)
        else:
            self._constant(result, chain, grid.meant(held), grid)

    def _float_constants(self) -> None:
        """Float constants that the float model has too, with other numbers."""
        if self.partner is None:
            return
        for name, value in list(self.graph.initializers.items()):
            held = array_of(value)
            ops = {use.node.op_type for use in value.uses()}
            if held is None or held.dtype != np.float32 or not ops or ops & QUANTIZERS:
                continue
            exact = self.partner.same_name(name, held)
            if "#" in name or (exact is not None and not np.array_equal(exact, held)):
                self._constant(value, [], held, None, exact=exact)

    def _constant(
        self,
        value: ir.Value,
        chain: Sequence[ir.Node],
        rounded: NDArray[Any],
        grid: Grid | None,
        exact: NDArray[Any] | None = None,
    ) -> None:
        """Note a constant of a layer, where the float model has a partner for it."""
        reader, position = reader_of(value)
        key = layer_of(reader)
        is_bias = position >= 2 or reader.op_type in {"Add", "Sub"}
        if exact is None and self.partner is not None:
            find = self.partner.bias if is_bias else self.partner.weight
            exact = find(value.name or "", reader, position, rounded)
        self.constants += 1
        if exact is None:
            return
        self.matched += 1
        layer = self._layer(key)
        exact = np.ascontiguousarray(exact, np.float32)
        held = Constant(value.name or "", rounded, exact, grid, channels_of(reader, exact.ndim))
        (layer.biases if is_bias else layer.weights).append(held)
        name = fresh("exact")
        initializer = ir.val(name, const_value=ir.tensor(exact, name=name))
        self.graph.register_initializer(initializer)
        kind: Kind = "bias" if is_bias else "weight"
        self.places.append(_Place(key, kind, value, chain, initializer))

    def _insert(self, flags: dict[str, ir.Value], name: str, place: _Place) -> None:
        """Replace the end of a chain of quantizers by an If over it and the exact value."""
        if name not in flags:
            flags[name] = ir.val(name, dtype=ir.DataType.BOOL, shape=ir.Shape([]))
            self.graph.inputs.append(flags[name])
        old = place.old
        branches = {
            # A float constant that only differs has no chain: it is handed on as it is.
            "then_branch": _branch(_repeated(place.chain) or [ir.node("Identity", [old])]),
            "else_branch": _branch([self._exact(place)]),
        }
        node = ir.node("If", [flags[name]], attributes=branches, name=fresh("switch"))
        result = node.outputs[0]
        result.dtype = ir.DataType.FLOAT
        maker, own_name = old.producer(), old.name
        uses = [use for use in old.uses() if use.node.graph is self.graph]
        self.graph.insert_before(maker or uses[0].node, node)
        if maker is None:  # a float constant keeps its name; its readers read the switch
            result.name = fresh("switched")
            for use in uses:
                use.node.replace_input_with(use.idx, result)
            return
        old.replace_all_uses_with(result, replace_graph_outputs=True)
        self.replaced[old] = result
        self.graph.remove(maker, safe=True)
        result.name = own_name

    def _exact(self, place: _Place) -> ir.Node:
        """Hands the float value on, within the bounds that the float model sets it."""
        value = self.replaced.get(place.exact, place.exact)
        low, high = (np.float32(b) if np.isfinite(b) else None for b in place.bounds)
        if low is None and high is None:
            return ir.node("Identity", [value])
        ends = [None if b is None else constant(self.graph, "bound", b) for b in (low, high)]
        return ir.node("Clip", [value, *ends])


def _repeated(chain: Sequence[ir.Node]) -> list[ir.Node]:
    """Copies of a chain of nodes."""
    nodes: list[ir.Node] = []
    made: dict[ir.Value, ir.Value] = {}
    for node in chain:
        copy = ir.node(
            node.op_type,
            [made.get(v, v) if v is not None else None for v in node.inputs],
            attributes=dict(node.attributes),
            num_outputs=len(node.outputs),
        )
        made.update(zip(node.outputs, copy.outputs, strict=True))
        nodes.append(copy)
    return nodes


def _branch(nodes: Sequence[ir.Node]) -> ir.Graph:
    """A branch that gives the result of the last of its nodes."""
    for node in nodes:
        for output in node.outputs:
            output.name = fresh("branch")
    result = nodes[-1].outputs[0]
    result.dtype = ir.DataType.FLOAT
    return ir.Graph([], [result], nodes=nodes, name=fresh("branch"))
