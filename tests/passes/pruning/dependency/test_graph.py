"""Dependency graph: groups, pinned channels with reasons, wrong rules that are found."""

from __future__ import annotations

import channel_cases
import graphs
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from shared_data import shared

from trimtab.core.model import Model
from trimtab.passes.pruning.dependency import rules
from trimtab.passes.pruning.dependency.graph import (
    DependencyGraph,
    build_dependency_graph,
    prepare,
)
from trimtab.passes.pruning.dependency.tracer import components
from trimtab.passes.pruning.structured.cut import cut
from trimtab.passes.pruning.structured.verify import TOLERANCE, mask, verification_error


def graph_of(model: Model, **options) -> DependencyGraph:
    return build_dependency_graph(prepare(model.clone()), **options)


def widths(model: Model, **options) -> dict[str, tuple[int, int]]:
    """Units of each group and channels of one unit."""
    return {g.name: (len(g.units), g.width) for g in graph_of(model, **options).groups}


def reasons(model: Model) -> str:
    return "; ".join(f"{w}: {r}" for _, w, r in graph_of(model).trace.pins)


def test_components_are_the_smallest_id_of_a_chain() -> None:
    order = np.random.default_rng(0).permutation(1000)
    edges = [(order[:-1], order[1:])]
    assert not components(1000, edges).any()
    np.testing.assert_array_equal(components(4, [(np.array([3]), np.array([1]))]), [0, 1, 2, 1])


def test_both_sides_of_a_residual_are_one_group() -> None:
    assert widths(channel_cases.cases(8)["residual"]) == {"conv_0": (8, 1)}


def test_padded_channels_follow_what_they_are_added_to() -> None:
    assert widths(channel_cases.cases(8)["padded channels"]) == {"conv_0": (8, 1), "conv_1": (8, 1)}


def test_heads_go_whole_or_become_narrower() -> None:
    model = channel_cases.cases(16)["attention written out"]
    assert widths(model)["matmul_2"] == (4, 4)
    assert widths(model, whole=False)["matmul_2"] == (4, 4)
    assert set(widths(model, whole=False)) > set(widths(model))


def test_groups_of_a_normalisation_go_whole() -> None:
    assert widths(channel_cases.cases(16)["group normalisation"]) == {"conv_0": (2, 8)}


def test_tied_weights_lose_the_same() -> None:
    graph = graph_of(channel_cases.cases(8)["tied embedding"])
    assert [len(g.units) for g in graph.groups] == [8]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("b = Softmax<axis=1>(a)", "Softmax mixes it"),
        ("b = LRN<size=3>(a)", "LRN mixes it"),
        ("m = ReduceMean(a, c1) b = Sub(a, m)", "ReduceMean reduces it"),
        ('b = Pad<mode="reflect">(a, pads)', "is padded by mode reflect"),
        ("k = Gather<axis=1>(a, one) b = Add(a, k)", "is taken alone"),
        (
            "s = Shape(a) t = Cast<to=1>(s) u = ReduceSum<keepdims=0>(t) b = Div(a, u)",
            "number of the",
        ),
        ("b = NonsenseOp(a)", "NonsenseOp is not followed"),
    ],
)
def test_what_mixes_channels_pins_them(body: str, reason: str) -> None:
    model = channel_cases.image(
        body,
        "c=8; int64[1] c1 = {1}, int64[1] one = {0}, int64[8] pads = {0, 0, 0, 0, 0, 0, 0, 0}"
        if "reflect" not in body
        else "c=8; int64[8] pads = {0, 1, 0, 0, 0, 1, 0, 0}",
        head=10 if "reflect" in body else 0,
    )
    if "Nonsense" in body:
        for node in model.graph:
            if node.op_type == "NonsenseOp":
                node.outputs[0].shape, node.outputs[0].dtype = (
                    ir.Shape(["N", 8, 8, 8]),
                    ir.DataType.FLOAT,
                )
    assert reason in reasons(model)


def test_values_that_an_inner_graph_reads_are_pinned() -> None:
    model = graphs.model_of(
        "(float[N, 3, 8, 8] x, bool flag) => (float[N, 5, 8, 8] y) "
        "<float[8,3,1,1] w1, float[5,8,1,1] w2> { a = Conv(x, w1) "
        "b = If<then_branch = g1 () => (float[N,8,8,8] t) { t = Relu(a) }, "
        "else_branch = g2 () => (float[N,8,8,8] e) { e = Neg(a) }>(flag) y = Conv(b, w2) }"
    )
    assert not widths(model)
    assert "operator If is not followed" in reasons(model)


def test_queries_that_share_keys_pin_attention() -> None:
    model = graphs.model_of(
        "(float[N, 6, 16] x) => (float[N, 4, 6, 4] y) <float[16,16] w1, float[16,8] w2, "
        "int64[4] q4 = {0, 6, 4, 4}, int64[4] k4 = {0, 6, 2, 4}> "
        "{ a = MatMul(x, w1) b = MatMul(x, w2) c = Reshape(a, q4) d = Reshape(b, k4) "
        "q = Transpose<perm=[0,2,1,3]>(c) k = Transpose<perm=[0,2,1,3]>(d) "
        "y = Attention(q, k, k) }",
        opset=23,
    )
    assert "queries share their keys" in reasons(model)


@pytest.mark.parametrize(
    ("case", "op"), [("channel shuffle", "Transpose"), ("depth to space", "DepthToSpace")]
)
def test_verification_finds_channels_in_a_wrong_order(
    case: str, op: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule that ignores the order of channels does not go unnoticed."""
    rule = rules.RULES[op]

    def shifted(trace, node):
        rule(trace, node)
        axes = [None if ids is None else np.roll(ids, 1) for ids in trace._axes[node.outputs[0]]]
        trace.set(node.outputs[0], axes)

    monkeypatch.setitem(rules.RULES, op, shifted)
    copy = prepare(channel_cases.cases(16)[case].clone())
    graph = build_dependency_graph(copy, whole=False)
    removed = [int(g.units[0]) for g in graph.groups if len(g.units) > 1]
    assert removed
    masked = mask(copy, graph, removed)
    cut(graph, removed)
    assert verification_error(masked, copy) > 100 * TOLERANCE


def test_verification_finds_softmax_taken_for_elementwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rules.RULES, "Softmax", rules.RULES["Relu"])
    copy = prepare(channel_cases.image("b = Softmax<axis=1>(a)", "c=8;").clone())
    graph = build_dependency_graph(copy)
    removed = [int(graph.groups[0].units[0])]
    masked = mask(copy, graph, removed)
    cut(graph, removed)
    assert verification_error(masked, copy) > 100 * TOLERANCE


def materialised(model: Model, seed: int = 0) -> Model:
    """With random weights for those that a ConstantOfShape makes."""
    copy = model.clone()
    rng = np.random.default_rng(seed)
    for node in list(copy.graph):
        if node.op_type != "ConstantOfShape":
            continue
        shape = tuple(int(d) for d in node.inputs[0].const_value.numpy())
        deviation = 1 / np.sqrt(max(int(np.prod(shape[1:])), 1))
        array = (
            rng.standard_normal(shape) * deviation
            if len(shape) > 1
            else rng.uniform(0.5, 1.5, shape)
        )
        tensor = ir.tensor(array.astype(np.float32))
        value = ir.val(f"{node.outputs[0].name}_made", ir.DataType.FLOAT, shape, const_value=tensor)
        copy.graph.register_initializer(value)
        node.outputs[0].replace_all_uses_with(value)
        copy.graph.remove(node, safe=True)
    return copy


def proved(model: Model, share: float) -> int:
    copy = prepare(model.clone())
    graph = build_dependency_graph(copy)
    rng = np.random.default_rng(0)
    removed = [
        int(c)
        for g in graph.groups
        for c in rng.choice(
            g.units, min(int(len(g.units) * share), len(g.units) - 1), replace=False
        )
    ]
    masked = mask(copy, graph, removed)
    cut(graph, removed)
    assert verification_error(masked, copy) <= TOLERANCE
    return len(removed)


LIGHT = onnx.__path__[0] + "/backend/test/data/light/light_{}.onnx"


# Those of random weights are cut there; their constants are made by the same nodes as these are.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["bvlc_alexnet", "inception_v2", "squeezenet", "zfnet512"])
def test_light_networks_as_they_are(name: str) -> None:
    assert proved(Model.load(LIGHT.format(name)), 0.5) > 100


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["densenet121", "inception_v1", "resnet50", "shufflenet", "squeezenet"]
)
def test_light_networks_with_random_weights(name: str) -> None:
    assert proved(materialised(Model.load(LIGHT.format(name))), 0.3) > 50


@pytest.mark.parametrize("name", ["resnet20", "resnet56", "mobilenet_v2"])
@pytest.mark.parametrize("share", [0.3, 0.5])
def test_trained_networks(name: str, share: float) -> None:
    model = Model.load(shared(f"data/{name}.onnx"))
    assert proved(model, share) > 100
