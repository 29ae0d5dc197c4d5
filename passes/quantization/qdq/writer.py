"""An int8 graph from a float one: pairs of QuantizeLinear and DequantizeLinear and integer weights.

Works on a copy of the graph in memory. Old weights are read one at a time and never copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from trimtab.core.errors import PassError
from trimtab.core.garbage import gc_paused
from trimtab.core.model import Model

from ...calibration.range_estimator import Range
from ...graph.edit import remove_unused_initializers
from .integers import Grid, Kind, activation_grid, rounded
from .keep_float import keep_float
from .layers import write_layers
from .plan import Edge, Pair, Plan, make_plan
from .residual_sums import drop_product_pairs
from .roles import BOUNDS_KEY, Role, element_type
from .scheme import Scheme
from .tensors import Tensors

__all__ = ["Scheme", "observed_tensors", "quantize_graph"]


@gc_paused()
def observed_tensors(model: Model, scheme: Scheme) -> list[str]:
    """List the activations that need a range since they get a Q/DQ pair, in graph order."""
    graph = model.graph
    marked = {v for v, pair in make_plan(graph, scheme).pairs.items() if pair.like is None}
    values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    return [value.name or "" for value in values if value in marked]


@gc_paused()
def quantize_graph(model: Model, scheme: Scheme, ranges: Mapping[str, Range]) -> ir.Model:
    """Return the Q/DQ graph of a prepared model; `ranges` has all that `observed_tensors` lists.

    Raises:
        PassError: a range is missing.
    """
    written = model.clone().ir
    graph = written.graph
    plan = make_plan(graph, scheme)
    _PairWriter(written, scheme, ranges, plan).write()
    if scheme.inputs_only:
        drop_product_pairs(graph)
    remove_unused_initializers(graph)
    floating = {n.name for n, role in plan.roles.items() if n is not None and role is Role.FLOAT}
    keep_float(graph, floating)
    return written


class _PairWriter:
    def __init__(
        self, model: ir.Model, scheme: Scheme, ranges: Mapping[str, Range], plan: Plan
    ) -> None:
        self.graph = model.graph
        self.scheme = scheme
        self.ranges = ranges
        self.plan = plan
        self.tensors = Tensors(model, wide=bool(scheme.wide))
        self.wide = set(scheme.wide)
        self.grids: dict[ir.Value, Grid] = {}
        self.parameters: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
        self.names: dict[ir.Value, str] = {}

    def write(self) -> None:
        """Write what the plan holds."""
        self.names = {value: value.name or "" for value in self.plan.pairs}
        write_layers(self.plan.layers, self.scheme, self.tensors, self._grid)
        self._write_constants(self.plan.constants)
        for pair in self.plan.pairs.values():
            self._write_pair(pair)

    def _root(self, value: ir.Value) -> ir.Value:
        """Return the tensor whose scale a tensor has."""
        while value in self.plan.pairs:
            like = self.plan.pairs[value].like
            if like is None:
                break
            value = like
        return value

    def _grid(self, value: ir.Value) -> Grid:
        root = self._root(value)
        if root not in self.grids:
            self.grids[root] = self._new_grid(root)
        return self.grids[root]

    def _new_grid(self, value: ir.Value) -> Grid:
        pair = self.plan.pairs.get(value)
        dtype = element_type(value) or (element_type(pair.written) if pair else None)
        if pair is None:
            assert value.const_value is not None
            array = value.const_value.numpy()
            range_ = float(array.min(initial=0)), float(array.max(initial=0))
        else:
            range_ = self._range(pair)
        return activation_grid(
            range_,
            self._kind(value),
            dtype or ir.DataType.FLOAT,
            symmetric=self.scheme.symmetric,
            power_of_two=self.scheme.power_of_two,
            **({} if pair is None else {"bounds": pair.bounds}),
        )

    def _range(self, pair: Pair) -> Range:
        maker = pair.written.producer()
        if maker is not None and maker.op_type == "Softmax":
            return 0.0, 1.0
        name = self.names[pair.value]
        if name not in self.ranges:
            raise PassError("has no range to quantize with", where=f"tensor {name!r}")
        return self.ranges[name]

    def _kind(self, value: ir.Value) -> Kind:
        if self.names.get(value) not in self.wide:
            return self.scheme.activation
        return "int16" if self.scheme.activation == "int8" else "uint16"

    def _parameters(self, value: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return scale and zero point, which all tensors of one scale share."""
        root = self._root(value)
        if root not in self.parameters:
            name = self.names.get(root) or root.name or ""
            self.parameters[root] = self.tensors.grid(name, self._grid(root))
        return self.parameters[root]

    def _write_constants(self, edges: Sequence[Edge]) -> None:
        made: dict[ir.Value, ir.Value] = {}
        for node, index in edges:
            value = node.inputs[index]
            assert value is not None
            if value not in made:
                made[value] = self._write_constant(value, node)
            node.replace_input_with(index, made[value])

    def _write_constant(self, value: ir.Value, reader: ir.Node) -> ir.Value:
        assert value.const_value is not None
        name = value.name or ""
        integers = rounded(value.const_value.numpy(), self._grid(value))
        stored = self.tensors.constant(f"{name}_quantized", integers)
        dequantize = self.tensors.dequantize(name, stored, self._parameters(value), None)
        self.graph.insert_before(reader, dequantize)
        return dequantize.outputs[0]

    def _write_pair(self, pair: Pair) -> None:
        value, source, name = pair.value, pair.written, self.names[pair.value]
        parameters = self._parameters(value)
        quantize = self.tensors.quantize(name, source, parameters)
        dequantize = self.tensors.dequantize(name, quantize.outputs[0], parameters, None)
        if pair.replaced:
            low, high = pair.bounds
            quantize.metadata_props[BOUNDS_KEY] = f"{low} {high}"
        maker = source.producer()
        if maker is None:
            self.graph.insert_before(self.graph[0], [quantize, dequantize])
        else:
            self.graph.insert_after(maker, [quantize, dequantize])
        output = dequantize.outputs[0]
        if not pair.for_all:
            for node, index in pair.readers:
                node.replace_input_with(index, output)
            return
        if value.is_graph_output():
            self._hand_over_name(value, output)
        value.replace_all_uses_with(output, replace_graph_outputs=True)
        if value is source:
            quantize.replace_input_with(0, source)
        for node in reversed(pair.replaced):
            self.graph.remove(node, safe=True)

    def _hand_over_name(self, value: ir.Value, output: ir.Value) -> None:
        """Give an output of the graph its name, type and shape again."""
        name = self.names[value]
        value.name = self.tensors.names.tensor(f"{name}_QuantizeLinear_Input")
        output.name, output.type, output.shape = name, value.type, value.shape
