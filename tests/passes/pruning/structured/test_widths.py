"""Widths that pruning chooses: kernel blocks, budgets, measured tables, whole branches."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import graphs
import numpy as np
import pytest
from channel_models import chain, context, step

from trimtab.core.context import Ratio
from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.inner_outputs import with_outputs
from trimtab.core.ort.session import build_session, run
from trimtab.core.target import Target
from trimtab.passes.pruning.channels import PruneChannels
from trimtab.passes.pruning.dependency.graph import build_dependency_graph, prepare
from trimtab.passes.pruning.structured.budget import ChannelBudget, LossCurve, PrunableLayer
from trimtab.passes.pruning.structured.layer_benchmark import layer_at, layer_model
from trimtab.passes.pruning.structured.layer_timer import TIMES


class LayerClock:
    """Time by the widths of the weights, in blocks of 16: a staircase."""

    def median_ns(self, models, feeds, config, seconds):
        return [
            float(
                sum(
                    np.prod([-(-d // 16) for d in v.const_value.shape[:2]]) * 1000
                    for v in m.graph.initializers.values()
                    if len(v.const_value.shape) == 4
                )
            )
            for m in models
        ]

    def compare(self, *args):
        return Ratio(1.0, 0.9, 1.1)


def test_macs_stay_below_the_wanted_share() -> None:
    for scope in ("global", "local"):
        notes = step(PruneChannels(macs=0.4, scope=scope, block=4)(chain(), context()))
        assert 0.2 < notes["macs"][1] / notes["macs"][0] <= 0.4


def test_channels_are_kept_in_blocks_of_the_kernels() -> None:
    notes = step(PruneChannels(0.3, scope="local")(chain(64), context()))
    assert [g["channels"] for g in notes["groups"]] == [[64, 48], [64, 48]]


def test_narrow_layers_take_half_a_block_rather_than_nothing() -> None:
    notes = step(PruneChannels(0.5, scope="local")(chain(16), context()))
    assert [g["channels"] for g in notes["groups"]] == [[16, 8], [16, 8]]


def test_an_explicit_block_is_strict() -> None:
    notes = step(PruneChannels(0.5, scope="local", block=16)(chain(16), context()))
    assert notes["groups"] == []


def test_the_last_step_is_the_one_that_loses_least() -> None:
    """A step that saves far more than is still wanted may be the better bargain, and not needed."""

    def curve(*loss: float) -> LossCurve:
        return LossCurve(np.arange(len(loss) - 1), np.array(loss))

    groups: Any = [SimpleNamespace(units=np.arange(2)), SimpleNamespace(units=np.arange(2))]
    curves = [curve(0.0, 10.0, 11.0), curve(0.0, 3.0, 100.0)]
    own = [PrunableLayer(number, (0,), ({number: 1},)) for number in range(2)]
    costs = [{2: 200.0, 1: 100.0}, {2: 60.0, 1: 40.0}]
    budget = ChannelBudget(groups, curves, [[1, 2], [1, 2]], own, lambda i, n: costs[i][n[0]])
    budget.descend(245.0)
    assert budget.kept.tolist() == [2, 1]
    budget.descend(150.0)
    assert budget.kept.tolist() == [1, 1]
    assert budget.cost == 140.0


def test_latency_is_chosen_on_the_measured_staircase() -> None:
    ctx = context(clock=LayerClock())
    notes = step(PruneChannels(latency=0.6, importance="l2")(chain(64), ctx))
    assert notes["latency_ratio"]["measured"] <= 0.6
    assert notes["latency_ratio"]["predicted"] == pytest.approx(
        notes["latency_ratio"]["measured"], rel=0.15
    )


def test_layers_that_an_earlier_run_timed_are_not_timed_again(tmp_path) -> None:
    asked: list[int] = []

    class Counting(LayerClock):
        def median_ns(self, models, feeds, config, seconds):
            asked.append(len(models))
            return super().median_ns(models, feeds, config, seconds)

    options = {"latency": 0.6, "importance": "l2", "cache": str(tmp_path / "layers.json")}
    results = []
    for _ in range(2):
        asked.clear()
        results.append(PruneChannels(**options)(chain(64), context(clock=Counting())))
    assert asked == [1, 2]  # the whole model to choose by, then before and after
    assert results[0].digest == results[1].digest


def test_a_latency_that_no_width_reaches_is_refused_with_the_least() -> None:
    with pytest.raises(OptionError, match="The least is 0"):
        PruneChannels(latency=0.01, importance="l2")(chain(64), context(clock=LayerClock()))


def test_latency_without_a_clock_is_refused() -> None:
    with pytest.raises(OptionError, match="clock"):
        PruneChannels(latency=0.5, importance="l2")(chain(), context())


def test_a_group_never_loses_all_channels() -> None:
    notes = step(PruneChannels(0.99, scope="local", block=1)(chain(8), context()))
    assert [g["channels"][1] for g in notes["groups"]] == [1, 1]


def residual(c: int = 16) -> Model:
    """A stem, two residual blocks of c channels, a head."""
    return graphs.model_of(
        "(float[N, 3, 8, 8] x) => (float[N, 5, 8, 8] y) "
        f"<float[{c},3,3,3] w0, float[{c},{c},3,3] w1, float[{c}] b1, float[{c},{c},3,3] w2, "
        f"float[{c}] b2, float[{c},{c},3,3] w3, float[{c},{c},3,3] w4, float[5,{c},1,1] w5>"
        "{ a = Conv<pads=[1,1,1,1]>(x, w0) p = Conv<pads=[1,1,1,1]>(a, w1, b1) q = Relu(p) "
        "r = Conv<pads=[1,1,1,1]>(q, w2, b2) s = Add(r, a) t = Conv<pads=[1,1,1,1]>(s, w3) "
        "u = Relu(t) v = Conv<pads=[1,1,1,1]>(u, w4) w = Add(s, v) y = Conv(w, w5) }"
    )


@pytest.mark.parametrize("repair", ["none", "bias", "least_squares"])
def test_a_whole_branch_may_go_with_the_option(repair: str) -> None:
    model = residual()
    ctx = context(model)
    options = {"macs": 0.3, "repair": repair, "protect": ("conv_0",), "block": 16}
    with pytest.raises(OptionError, match="The least is 1"):
        PruneChannels(**options)(model, ctx)
    after = PruneChannels(**options, branches=True)(model, ctx)
    notes = step(after)
    assert {g["channels"][1] for g in notes["groups"]} == {0}
    c = 16
    groups = {g["name"]: g["parameters"] for g in notes["groups"]}
    assert groups["conv_1"] == [2 * c * c * 9, 0]  # from before the branch went
    assert graphs.ops(after).count("Conv") == 2
    assert notes["macs"][1] < 0.3 * notes["macs"][0]


def test_a_branch_that_is_gone_leaves_nothing_behind() -> None:
    """Not even its mean as a constant: adding one costs an int8 kernel more than a convolution."""
    model = graphs.model_of(
        "(float[N, 3, 8, 8] x) => (float[N, 5, 1, 1] y) <float[16,3,3,3] w0, float[16,16,3,3] w1, "
        "float[16] b1, float[16,16,3,3] w2, float[16] b2, float[5,16,1,1] w3>"
        "{ a = Conv<pads=[1,1,1,1]>(x, w0) s = Relu(a) p = Conv<pads=[1,1,1,1]>(s, w1, b1) "
        "q = Relu(p) r = Conv<pads=[1,1,1,1]>(q, w2, b2) t = Add(r, s) u = Relu(t) "
        "v = GlobalAveragePool(u) y = Conv(v, w3) }"
    )
    options = {"macs": 0.3, "protect": ("conv_0",), "block": 16, "branches": True}
    after = PruneChannels(**options)(model, context(model))
    assert graphs.ops(after) == ["Conv", "Relu", "GlobalAveragePool", "Conv"]


def test_of_two_branches_that_are_added_one_stays() -> None:
    inner = " ".join(
        f"p{n} = Conv<pads=[1,1,1,1]>(s, w1{n}) q{n} = Relu(p{n}) r{n} = Conv(q{n}, w2{n}, b{n})"
        for n in "ab"
    )
    weights = ", ".join(
        f"float[16,16,3,3] w1{n}, float[16,16,1,1] w2{n}, float[16] b{n}" for n in "ab"
    )
    model = graphs.model_of(
        f"(float[N, 3, 8, 8] x) => (float[N, 5, 8, 8] y) <float[16,3,3,3] w0, {weights}, "
        f"float[5,16,1,1] w3> {{ s = Conv<pads=[1,1,1,1]>(x, w0) {inner} t = Add(ra, rb) "
        "u = Relu(t) y = Conv(u, w3) }"
    )
    options = {"macs": 0.7, "protect": ("conv_0",), "block": 16, "branches": True}
    after = PruneChannels(**options)(model, context(model))
    assert graphs.ops(after).count("Conv") == 4
    with pytest.raises(OptionError, match="The least is"):
        PruneChannels(**options | {"macs": 0.2})(model, context(model))


def test_a_branch_at_the_end_of_the_graph_may_go_too() -> None:
    model = graphs.model_of(
        "(float[N, 3, 8, 8] x) => (float[N, 16, 8, 8] y) <float[16,3,3,3] w0, float[16,16,3,3] w1, "
        "float[16] b1, float[16,16,3,3] w2, float[16] b2>"
        "{ s = Conv<pads=[1,1,1,1]>(x, w0) p = Conv<pads=[1,1,1,1]>(s, w1, b1) q = Relu(p) "
        "r = Conv<pads=[1,1,1,1]>(q, w2, b2) y = Add(r, s) }"
    )
    options = {"macs": 0.3, "repair": "none", "block": 16, "branches": True}
    after = PruneChannels(**options)(model, context(model))
    assert graphs.ops(after).count("Conv") == 1
    feeds = random_feeds(model, seed=3, batch=2)
    stem = with_outputs(model, ["s"])
    expected = run(build_session(stem), feeds, ["s"])["s"]
    np.testing.assert_allclose(run(build_session(after), feeds)["y"], expected, atol=1e-5)


LAYERS = {
    "Conv": "(float[N,8,8,8] x) => (float[N,6,4,4] y) <float[6,8,3,3] w, float[6] b> "
    "{ y = Conv<strides=[2,2], pads=[1,1,1,1]>(x, w, b) }",
    "depthwise": "(float[N,8,8,8] x) => (float[N,8,6,6] y) <float[8,1,3,3] w> "
    "{ y = Conv<group=8>(x, w) }",
    "Conv of sequences": "(float[N,8,9] x) => (float[N,6,7] y) <float[6,8,3] w> { y = Conv(x, w) }",
    "Gemm": "(float[N,8] x) => (float[N,6] y) <float[6,8] w, float[6] b> "
    "{ y = Gemm<transB=1>(x, w, b) }",
    "Gemm without bias": "(float[N,8] x) => (float[N,6] y) <float[8,6] w> { y = Gemm(x, w) }",
    "MatMul": "(float[N,5,8] x) => (float[N,5,6] y) <float[8,6] w> { y = MatMul(x, w) }",
}


@pytest.mark.parametrize("activation", ["uint8", "int8"])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_alone_runs_in_int8(layer: str, activation: Any) -> None:
    graph = build_dependency_graph(prepare(graphs.model_of(LAYERS[layer])))
    cost = graph.trace.costs[0]
    point = [len(ids) for ids in cost.axes]
    made = layer_at(graph.trace, cost, point, (activation, "int8"))
    floating = layer_at(graph.trace, cost, point)
    assert made is not None
    assert floating is not None
    assert made.key != floating.key
    model = layer_model(made)
    assert [s.dtype.name for s in (*model.inputs, *model.outputs)] == [activation.upper()] * 2
    (array,) = run(build_session(model), random_feeds(model)).values()
    reference = layer_model(floating)
    (wanted,) = run(build_session(reference), random_feeds(reference)).values()
    assert array.size == wanted.size


def test_a_product_of_two_tensors_has_no_int8_layer() -> None:
    text = "(float[N,4,8] a, float[N,8,4] b) => (float[N,4,4] y) { y = MatMul(a, b) }"
    graph = build_dependency_graph(prepare(graphs.model_of(text)))
    cost = graph.trace.costs[0]
    made = layer_at(graph.trace, cost, [len(ids) for ids in cost.axes], ("uint8", "int8"))
    assert made is None or made.integers is None


class Int8Clock(LayerClock):
    """Adding takes time too; all else of a whole model as well."""

    def median_ns(self, models, feeds, config, seconds):
        times = super().median_ns(models, feeds, config, seconds)
        adds = [sum("Add" in node.op_type for node in m.graph) for m in models]
        rest = [3000.0 * (len(m.graph) > 1) for m in models]
        return [100.0 + t + 500.0 * a + r for t, a, r in zip(times, adds, rest, strict=True)]


@pytest.mark.slow
def test_for_int8_the_int8_layers_and_sums_are_timed() -> None:
    model = residual()
    ctx = context(model, clock=Int8Clock())
    options = {"latency": 0.7, "precision": "int8", "branches": True, "protect": ("conv_0",)}
    after = PruneChannels(**options)(model, ctx)
    timed = {key[-1].split()[0] for key, _ in ctx.memo.items(TIMES)}
    assert {"uint8/int8", "uint8", "nothing"} <= timed
    assert graphs.ops(after).count("Add") < graphs.ops(model).count("Add")
    ratio = step(after)["latency_ratio"]
    assert ratio["predicted"] <= 0.7
    assert ratio["measured"] == pytest.approx(ratio["predicted"], rel=0.15)


def test_int8_kernels_of_a_gpu_cannot_be_timed_alone() -> None:
    ctx = replace(context(clock=LayerClock()), target=Target.named("tensorrt"))
    with pytest.raises(OptionError, match="kernels of a CPU"):
        PruneChannels(latency=0.5, importance="l2", precision="int8")(chain(), ctx)


def test_a_branch_that_is_needed_elsewhere_stays() -> None:
    model = chain(16)  # nothing is added to a stream
    with pytest.raises(OptionError, match="The least is 1"):
        PruneChannels(macs=0.3, block=16, branches=True)(model, context(model))
