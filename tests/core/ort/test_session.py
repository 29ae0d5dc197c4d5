"""Sessions: what onnxruntime refuses is told with what to do."""

from __future__ import annotations

import onnx
import pytest
from graphs import relu_only
from onnx import helper

from trimtab.core.errors import RunError
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import SessionConfig, build_session, run


@pytest.mark.parametrize(
    ("domain", "owner"),
    [
        ("ai.onnx.contrib", "onnxruntime-extensions"),
        ("my.ops", "a library of custom operators"),
    ],
)
def test_an_operator_of_another_domain_names_what_registers_it(domain: str, owner: str) -> None:
    nodes = [helper.make_node("GaussianBlur", ["x"], ["y"], domain=domain)]
    ends = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [4]) for n in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
    model = Model.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=9))
    with pytest.raises(RunError, match=f"domain {domain} come from {owner}"):
        build_session(model)


@pytest.mark.parametrize("arena", [True, False])
def test_an_answer_keeps_no_more_than_itself(arena: bool) -> None:
    model = relu_only()
    session = build_session(model, SessionConfig(arena=arena))
    (answer,) = run(session, random_feeds(model)).values()
    # What belongs to onnxruntime is the whole arena, as long as one array of it is left.
    assert answer.flags.owndata is arena


def test_no_wanted_output_is_none_of_them() -> None:
    model = relu_only()
    session = build_session(model)
    assert run(session, random_feeds(model), []) == {}
