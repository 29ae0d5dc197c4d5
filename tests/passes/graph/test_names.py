"""Names of tensors and nodes: new ones clash with nothing, those that clash are repaired."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from graphs import model_of
from int8_graphs import graph as int8_graph
from onnx import helper

from trimtab.core.model import Model
from trimtab.core.ort.session import build_session, run
from trimtab.passes.graph.edit import add_initializer
from trimtab.passes.graph.names import (
    FreeNames,
    fresh_name,
    share_names,
    shorten_names,
    unique_names,
)
from trimtab.passes.graph.patterns import matching

BRANCHES = """(float[n,4] x, bool c) => (float[n,4] y) <float[4,4] w> {
    h = MatMul (x, w)
    y = If (c) <
        then_branch = yes () => (float[n,4] t) { w_half = Relu (h) t = Neg (w_half) },
        else_branch = no () => (float[n,4] e) { e = Abs (h) }
    >
}"""


def test_a_new_name_is_not_that_of_any_tensor_of_any_graph() -> None:
    graph = model_of(BRANCHES).graph
    assert fresh_name(graph, "h") == "h_1"
    assert fresh_name(graph, "w_half") == "w_half_1"
    assert fresh_name(graph, "w_half") == "w_half_2"
    assert add_initializer(graph, "x", np.zeros(1)).name == "x_1"


def test_a_subgraph_gives_no_name_that_hides_a_tensor_outside() -> None:
    model = model_of(BRANCHES)
    share_names(model.ir)
    inner = next(iter(model.graph.subgraphs()))
    assert fresh_name(inner, "h") == "h_1"


def test_tensors_of_one_name_are_told_apart_and_the_interface_keeps_its_names() -> None:
    model = model_of(BRANCHES)
    feeds = {"x": np.eye(4, dtype=np.float32), "c": np.array(True)}
    expected = run(build_session(model), feeds)["y"]
    product = model.graph.node(0)
    product.outputs[0].name = "y"
    inner = next(iter(model.graph.subgraphs()))
    inner.node(0).outputs[0].name = "x"
    unique_names(model.ir)
    assert [v.name for v in (*model.graph.inputs, *model.graph.outputs)] == ["x", "c", "y"]
    assert product.outputs[0].name != "y"
    np.testing.assert_array_equal(run(build_session(model), feeds)["y"], expected)


def test_nodes_of_one_name_get_one_each_while_a_model_is_read() -> None:
    proto = model_of(BRANCHES).to_proto()
    for node in proto.graph.node:
        node.name = "same"
        for attribute in node.attribute:
            for inner in attribute.g.node:
                inner.name = "same"
    names = [node.name for node in Model.from_proto(proto).nodes()]
    assert names[0] == "same"
    assert len(set(names)) == len(names) == 5


def test_both_spellings_of_the_default_domain_are_one() -> None:
    nodes = [
        helper.make_node("Dropout", ["x"], ["d"], domain="ai.onnx"),
        helper.make_node("Relu", ["d"], ["y"], domain="ai.onnx"),
    ]
    ends = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["n"]) for n in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    model = Model.from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("ai.onnx", 17)], ir_version=9)
    )
    assert model.opset == 17
    assert {node.domain for node in model.nodes()} == {""}


def test_a_subgraph_knows_the_operator_set() -> None:
    inner = next(iter(model_of(BRANCHES, opset=17).graph.subgraphs()))
    assert isinstance(inner, ir.Graph)
    assert inner.opset_imports[""] == 17


def test_a_name_with_brackets_matches_itself() -> None:
    names = ["a[0]", "a0", "layer/{'k': 1}", "b\n", "c*"]
    assert matching(names, "a[0]") == ["a[0]", "a0"]
    assert matching(names, "layer/{'k': 1}") == ["layer/{'k': 1}"]
    assert matching(names, "b\n") == ["b\n"]
    assert matching(names, "c*") == ["c*"]
    assert matching(names, "z") == []


def test_a_name_of_a_subgraph_or_given_out_before_is_taken():
    model = int8_graph(
        """g (float[4] x, bool f) => (float[4] y) {
          [inside] y = If <then_branch = a () => (float[4] t) { t = Neg (x) },
                  else_branch = b () => (float[4] e) { e = Abs (x) }> (f)
        }"""
    )
    names = FreeNames(model.graph)
    assert names.tensor("t") == "t_1"
    assert names.tensor("t") == "t_2"
    assert names.tensor("other") == "other"
    assert names.node("inside") == "inside_1"
    assert names.node("t") == "t"  # nodes and tensors have names of their own


def test_long_names_inside_of_a_graph_become_short_where_they_take_much() -> None:
    long = "path_" * 9
    model = model_of(BRANCHES.replace("    h =", f"    {long} =").replace("(h)", f"({long})"))
    before = {"x": np.ones((2, 4), np.float32), "c": np.array(True)}
    model.graph.initializers["w"].const_value = ir.tensor(np.eye(4, dtype=np.float32))
    expected = run(build_session(model), before)["y"]
    assert not shorten_names(model.ir, 10_000)
    assert shorten_names(model.ir, 100)
    assert all(len(str(v.name)) < 12 for node in model.graph.all_nodes() for v in node.outputs)
    assert (run(build_session(model), before)["y"] == expected).all()
