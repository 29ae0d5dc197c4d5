"""Queries of a graph: constants, attributes with defaults, optional inputs, users."""

from __future__ import annotations

import graphs
import onnx_ir as ir
import pytest

from trimtab.passes.graph.convolutions import conv_attrs
from trimtab.passes.graph.queries import (
    attr,
    axes_of,
    const,
    constant_side,
    dims,
    input_at,
    is_zero,
    node_label,
    only_user,
    producer,
    scalar,
    users,
)

GRAPH = """(float[n,4,0] x) => (float[n,4,l] y) <float half = {0.5}, int64[2] axes = {1,2}> {
    a = Mul (x, half)
    r = ReduceSum <keepdims=1> (a, axes)
    b = Add (a, r)
    y = Softmax (b)
}"""


@pytest.fixture
def nodes() -> dict[str, ir.Node]:
    return {node.op_type: node for node in graphs.model_of(GRAPH).graph}


def test_an_attribute_that_is_absent_has_its_default(nodes: dict[str, ir.Node]) -> None:
    assert attr(nodes["ReduceSum"], "keepdims", 0) == 1
    assert attr(nodes["Softmax"], "axis", -1) == -1
    assert attr(nodes["Softmax"], "axis") is None


def test_axes_come_from_the_input_or_the_attribute(nodes: dict[str, ir.Node]) -> None:
    assert axes_of(nodes["ReduceSum"]) == [1, 2]
    assert axes_of(nodes["Softmax"]) is None
    assert axes_of(ir.node("ReduceMean", [None], {"axes": [2, 3]})) == [2, 3]


def test_an_input_that_is_left_out_is_none(nodes: dict[str, ir.Node]) -> None:
    assert input_at(nodes["Softmax"], 3) is None
    assert scalar(input_at(nodes["Mul"], 1)) == 0.5
    assert constant_side(nodes["Mul"]) == tuple(nodes["Mul"].inputs)


def test_an_input_of_the_graph_is_not_a_constant() -> None:
    text = "(float[2] x, float[2] w) => (float[2] y) <float[2] v> { y = Add (x, w) }"
    model = graphs.model_of(text)
    assert const(model.graph.inputs[1]) is None
    assert not is_zero(const(model.graph.inputs[1]))


def test_a_size_of_zero_is_unknown(nodes: dict[str, ir.Node]) -> None:
    assert dims(nodes["Mul"].inputs[0]) == (None, 4, None)


def test_users_and_producers(nodes: dict[str, ir.Node]) -> None:
    value = nodes["Mul"].outputs[0]
    assert users(value) == [nodes["ReduceSum"], nodes["Add"]]
    assert only_user(value) is None
    assert only_user(nodes["Add"].outputs[0]) is nodes["Softmax"]
    assert only_user(nodes["Softmax"].outputs[0]) is None  # an output of the graph
    assert producer(value, "Add", "Mul") is nodes["Mul"]
    assert producer(value, "Add") is None


def test_a_node_without_a_name_is_named_after_its_output(nodes: dict[str, ir.Node]) -> None:
    assert node_label(nodes["Mul"]) == "mul_0"
    nodes["Mul"].name = None
    assert node_label(nodes["Mul"]) == "a"


def test_pads_are_unknown_where_auto_pad_decides() -> None:
    assert conv_attrs(ir.node("Conv", [None]))["pads"] == (0, 0, 0, 0)
    assert conv_attrs(ir.node("Conv", [None], {"auto_pad": "SAME_UPPER"}))["pads"] is None
