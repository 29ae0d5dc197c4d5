"""Reasons why a node is not taken: one function a condition of a table's rule."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from trimtab.core.graphs import constant_of

from ..doctor.graph import dequantized_by, is_constant
from .table import SupportRule, SupportTable
from .tensors import PlacedGraph, Shape

#: How many inputs of an operator are data that a Q/DQ unit has in integers.
_QUANTIZED_INPUTS = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "Resize": 1, "Clip": 1, "Pad": 1}
#: Products with a bias, which `GemmNodeGroupSelector` and `ConvNodeGroupSelector` of onnxruntime's
#: qdq_selectors.cc take as int32 alone.
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm"})
_SHAPED = {"Reshape": 1, "Transpose": 1, "Squeeze": 1, "Unsqueeze": 1, "Slice": 1, "Split": 1}


class NodeFacts:
    """Facts that rules ask of a node."""

    def __init__(self, node: ir.Node, graph: PlacedGraph, *, units: bool) -> None:
        self.node = node
        self._graph = graph
        self.is_unit = units and _is_unit(node)

    @property
    def key(self) -> str:
        """Return the operator as tables write it."""
        domain = self.node.domain
        return f"{domain}:{self.node.op_type}" if domain else self.node.op_type

    @property
    def version(self) -> int:
        """Return the version of the operator's definition that the model uses."""
        schema = self._schema()
        return schema.since_version if schema else 1

    def value(self, index: int) -> ir.Value | None:
        """Return an input; None where it is not given."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def type_of(self, value: ir.Value | None) -> str | None:
        """Return the element type of an input, inside a unit that of its integers."""
        if value is None:
            return None
        pair = dequantized_by(value) if self.is_unit else None
        kind = self._kind(pair.inputs[0] if pair is not None else value)
        return None if kind is None else kind.name.lower()

    def output_type(self) -> str | None:
        """Return the integer type of a unit's output; None where it is not known."""
        users = self.node.outputs[0].consumers()
        kind = self._kind(users[0].outputs[0]) if users else None
        return None if kind is None else kind.name.lower()

    def _kind(self, value: ir.Value | None) -> ir.DataType | None:
        name = value.name if value is not None else None
        return self._graph.types.get(name or "")

    def rank(self, index: int) -> int | None:
        """Return the rank of an input; None where it is not known."""
        shape = self._shape(index)
        return None if shape is None else len(shape)

    def elements(self, index: int) -> int | None:
        """Return the number of elements of an input; None where it is not known."""
        shape = self._shape(index)
        return None if shape is None else math.prod(shape)

    def _shape(self, index: int) -> Shape | None:
        value = self.value(index)
        return self._graph.shapes.get(value.name or "") if value is not None else None

    def is_constant(self, index: int) -> bool:
        """Return whether an input is constant, its Q/DQ pair aside."""
        value = self.value(index)
        pair = dequantized_by(value) if self.is_unit else None
        return is_constant(pair.inputs[0] if pair is not None else value)

    def attribute(self, name: str) -> Any:
        """Return an attribute or its default; None where it has none."""
        found = self.node.attributes.get(name)
        if found is not None:
            value = found.value
            return list(value) if isinstance(value, (tuple, list)) else value
        schema = self._schema()
        default = schema.attributes.get(name) if schema else None
        if default is None or not default.default_value.name:
            return None
        plain = onnx.helper.get_attribute_value(default.default_value)
        return plain.decode() if isinstance(plain, bytes) else plain

    def _schema(self) -> onnx.defs.OpSchema | None:
        imports = self._graph.model.graph.opset_imports
        most = imports.get(self.node.domain, 1)
        try:
            return onnx.defs.get_schema(self.node.op_type, most, self.node.domain)
        except onnx.defs.SchemaError:
            return None


def _is_unit(node: ir.Node) -> bool:
    """Return whether a node stands between DequantizeLinear and QuantizeLinear."""
    if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
        return False
    most = {**_QUANTIZED_INPUTS, **_SHAPED}.get(node.op_type, len(node.inputs))
    data = [value for value in node.inputs[:most] if value is not None]
    users = [user for value in node.outputs for user in value.consumers()]
    return (
        bool(data and users)
        and all(dequantized_by(value) is not None for value in data)
        and _has_int32_bias(node)
        and all(user.op_type == "QuantizeLinear" for user in users)
        and not any(value.is_graph_output() for value in node.outputs)
    )


def _has_int32_bias(node: ir.Node) -> bool:
    """Return whether a product's bias fits: onnxruntime makes no unit of one stored in 8 bits."""
    bias = node.inputs[2] if node.op_type in _PRODUCTS and len(node.inputs) > 2 else None
    pair = dequantized_by(bias)
    stored = None if pair is None else constant_of(pair.inputs[0])
    return stored is None or stored.dtype == ir.DataType.INT32


def refusal(facts: NodeFacts, rule: SupportRule, table: SupportTable) -> str | None:
    """Return why a rule refuses a node; None where it takes it.

    A fact that is not known, as the rank of a tensor without a shape, counts as met.
    """
    checks = (
        _version,
        _form,
        _ranks,
        _types,
        _same,
        _constants,
        _place,
        _inputs,
        _attributes,
        _rest,
    )
    found = next((why for check in checks if (why := check(facts, rule))), None)
    found = found or _usual_types(facts, rule, table)
    return (rule.says or found) if found else None


def _version(facts: NodeFacts, rule: SupportRule) -> str | None:
    version = facts.version
    if version < rule.since:
        return f"is of opset {version}; taken from opset {rule.since} on"
    if rule.until and version > rule.until:
        return f"is of opset {version}; taken up to opset {rule.until}"
    return None


def _form(facts: NodeFacts, rule: SupportRule) -> str | None:
    if rule.unit is None or rule.unit == facts.is_unit:
        return None
    return "is taken between Q/DQ pairs alone" if rule.unit else "has no int8 form there"


def _ranks(facts: NodeFacts, rule: SupportRule) -> str | None:
    for index, allowed in rule.ranks.items():
        rank = facts.rank(index)
        if rank is not None and rank not in allowed:
            return f"input {index} has {rank} dimensions; taken with {_either(allowed)}"
    return None


def _types(facts: NodeFacts, rule: SupportRule) -> str | None:
    for index, allowed in rule.types.items():
        kind = facts.type_of(facts.value(index))
        if kind is not None and kind not in allowed:
            return f"input {index} is {kind}; taken with {_either(allowed)}"
    return None


def _usual_types(facts: NodeFacts, rule: SupportRule, table: SupportTable) -> str | None:
    if rule.types or not table.types or facts.is_unit:
        return None
    kind = facts.type_of(facts.value(0))
    if kind is None or kind in table.types:
        return None
    return f"input 0 is {kind}; taken with {_either(table.types)}"


def _same(facts: NodeFacts, rule: SupportRule) -> str | None:
    if not rule.same or not facts.is_unit:
        return None
    kinds = [facts.type_of(facts.value(i)) for i in rule.same] + [facts.output_type()]
    known = list(dict.fromkeys(kind for kind in kinds if kind is not None))
    if len(known) < 2:
        return None
    return f"mixes {' and '.join(known)}; its integers must be of one type"


def _constants(facts: NodeFacts, rule: SupportRule) -> str | None:
    for index in rule.constant:
        if facts.value(index) is not None and not facts.is_constant(index):
            return f"input {index} is computed; taken where it is constant"
    for index in rule.zero:
        value = facts.value(index)
        tensor = constant_of(value)
        if value is not None and (tensor is None or np.any(tensor.numpy() != 0)):
            return f"input {index} is not zero; taken with zero points of zero"
    return None


def _place(facts: NodeFacts, rule: SupportRule) -> str | None:
    for index in rule.single:
        if facts.elements(index) not in {None, 1}:
            return f"input {index} has {facts.elements(index)} elements; taken with one"
    node = facts.node
    read = any(value is not None and value.is_graph_input() for value in node.inputs)
    if rule.inner and (read or any(value.is_graph_output() for value in node.outputs)):
        return "stands at an end of the model, which the provider leaves to the CPU"
    return None


def _inputs(facts: NodeFacts, rule: SupportRule) -> str | None:
    given = [index for index in rule.absent if facts.value(index) is not None]
    return f"has input {given[0]}; taken without it" if given else None


def _attributes(facts: NodeFacts, rule: SupportRule) -> str | None:
    for name, allowed in rule.attributes.items():
        value = facts.attribute(name)
        if value is not None and value not in allowed:
            return f"{name} is {value}; taken with {_either(allowed)}"
    return None


def _rest(facts: NodeFacts, rule: SupportRule) -> str | None:
    used = [v for v in facts.node.outputs if v.consumers() or v.is_graph_output()]
    if rule.outputs and len(used) > rule.outputs:
        return f"has {len(used)} outputs in use; taken with {rule.outputs}"
    rank, axis = facts.rank(0), facts.attribute("axis")
    if rule.last_axis and rank is not None and axis not in (None, -1, rank - 1):
        return f"axis is {axis} of {rank}; taken along the last"
    return None


def _either(values: Any) -> str:
    texts = [str(value) for value in values]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} or {texts[-1]}"
