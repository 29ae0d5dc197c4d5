"""Tune keeps what a clock finds faster, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import graphs
import numpy as np
import onnx_ir as ir
import pytest
from rewrite_cases import GEMM, NORM, SHORTCUT
from rewrite_cases_attention import SOFTMAX_OPEN
from tune_fakes import SUM_WINS, CountingClock, context, norms, notes, tuned

from trimtab.core.context import Ratio
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError, RunError
from trimtab.core.model import Model
from trimtab.core.target import Target
from trimtab.passes import rewrites
from trimtab.passes.rewrites.rule import Found, rewrite_rule
from trimtab.passes.tuning import trials as tune_trials
from trimtab.passes.tuning.tune import Tune

TWO_SIZES = """(float[1,5,8] x, float[1,5,4] z) => (float[1,5,8] y, float[1,5,4] v)
    <float[8] g, float[4] h> {
        s = Add (x, x)
        y = LayerNormalization <axis=-1> (s, g)
        t = Add (z, z)
        v = LayerNormalization <axis=-1> (t, h)
    }"""


LENGTHS = ("x=2x6x16",)


def test_keeps_a_rewrite_that_is_faster_and_reports_its_speed_up() -> None:
    after = tuned(norms(), CountingClock(SUM_WINS))
    assert graphs.ops(after) == ["Sum", "LayerNormalization"]
    assert notes(after)["kept"] == ["sum-before-norm"]
    assert notes(after)["speedup"].startswith("1.44x")
    assert "kept" in notes(after)["tried"]["sum-before-norm"]


def test_leaves_a_rewrite_that_is_slower() -> None:
    after = tuned(norms(), CountingClock({"Sum": 9.0}))
    assert graphs.ops(after) == ["Add", "LayerNormalization"]
    assert "no gain" in notes(after)["tried"]["sum-before-norm"]


def test_the_result_saves_the_same_bytes_as_before_where_nothing_is_kept() -> None:
    model = norms()
    assert tuned(model, CountingClock({"Sum": 9.0})).digest == model.digest


def test_a_noisy_machine_decides_nothing_and_lists_what_it_left() -> None:
    after = tuned(norms(), CountingClock(SUM_WINS, spread=0.9))
    assert graphs.ops(after) == ["Add", "LayerNormalization"]
    [[node, reason]] = notes(after)["declined"]
    assert node == "sum-before-norm"
    assert "inconclusive, left as it was" in reason


def test_a_rewrite_that_makes_no_difference_is_not_left_undecided() -> None:
    after = tuned(norms(), CountingClock({"Sum": 0.9}))
    assert "no difference" in notes(after)["tried"]["sum-before-norm"]
    assert "declined" not in notes(after)


def test_a_screening_that_doubts_the_base_itself_rejects_nothing() -> None:
    """The base is measured twice; here the second time comes out three times as long."""

    class Shaky(CountingClock):
        def median_ns(self, models: Any, *args: Any) -> list[float]:
            return [1000.0, 3000.0, *([4000.0] * (len(models) - 2))]

    after = tuned(norms(), Shaky(SUM_WINS))
    assert notes(after)["kept"] == ["sum-before-norm"]


def test_a_rule_that_won_wherever_it_was_measured_is_asked_about_first() -> None:
    """Screening takes time, and a busy machine has little: what is known needs none."""

    class NoScreening(CountingClock):
        def median_ns(self, *args: Any) -> list[float]:
            raise AssertionError("screened")

    clock = NoScreening(SUM_WINS)
    x64 = replace(context(clock), target=Target.named("x64-avx2"))
    after = Tune(rules=("sum-before-norm",))(norms(), x64)
    assert notes(after)["kept"] == ["sum-before-norm"]
    assert "screened" not in notes(after)["tried"]["sum-before-norm"]
    slow = replace(x64, clock=NoScreening({"Sum": 9.0}))
    assert notes(Tune(rules=("sum-before-norm",))(norms(), slow))["kept"] == []


def test_without_a_clock_nothing_is_kept_and_it_says_so() -> None:
    after = tuned(norms(), None)
    assert graphs.ops(after) == ["Add", "LayerNormalization"]
    assert "no clock" in notes(after)["declined"][0][1]


def test_only_the_named_rules_are_tried() -> None:
    model = graphs.model_of(GEMM)
    assert list(notes(tuned(model, CountingClock(), rules=("matmul-from-gemm",)))["tried"]) == [
        "matmul-from-gemm"
    ]
    assert notes(tuned(model, CountingClock(), rules=("sum-before-norm",))) == {}


def test_an_unknown_rule_is_refused_with_the_nearest() -> None:
    with pytest.raises(OptionError, match="sum-before-norm"):
        Tune(rules=("sum-befor-norm",))


def test_of_two_rules_for_one_site_the_faster_is_kept() -> None:
    model = graphs.model_of(SHORTCUT)
    after = tuned(model, CountingClock({"Slice": 5.0, "Pad": 5.0, "MaxPool": 2.0, "Conv": 1.0}))
    assert notes(after)["kept"] == ["shortcut-as-conv"]
    assert "nothing left to rewrite" in notes(after)["tried"]["stride-as-pool"]


def test_sites_that_differ_are_judged_apart() -> None:
    """The Sum of eight columns wins, the Sum of four loses; together they gain nothing."""

    def cost(model: Model, feeds: Any) -> float:
        sums = {n.inputs[0].name for n in model.graph if n.op_type == "Sum"}
        return 10.0 - 2 * ("x" in sums) + 3 * ("z" in sums)

    after = tuned(graphs.model_of(TWO_SIZES), CountingClock(cost_of=cost))
    assert graphs.ops(after).count("Sum") == 1
    assert notes(after)["kept"] == ["sum-before-norm at Add float 1x5x8,1x5x8"]


def test_a_group_that_loses_is_taken_out_of_a_rule_that_wins() -> None:
    def cost(model: Model, feeds: Any) -> float:
        sums = {n.inputs[0].name for n in model.graph if n.op_type == "Sum"}
        return 10.0 - 4 * ("x" in sums) + 2 * ("z" in sums)

    after = tuned(graphs.model_of(TWO_SIZES), CountingClock(cost_of=cost))
    assert notes(after)["kept"] == ["sum-before-norm but not at Add float 1x5x4,1x5x4"]


def test_a_combination_that_is_not_faster_than_the_original_is_given_up() -> None:
    class Fickle(CountingClock):
        def compare(self, *args: Any) -> Ratio:
            found = super().compare(*args)
            return found if len(self.asked) < 3 else Ratio(1.0, 0.9, 1.1)

    model = graphs.model_of((NORM % "Add").replace("{ s = Add (x,", "{ r = Relu (x) s = Add (r,"))
    clock = Fickle(SUM_WINS | {"Relu": 5.0, "Clip": 0.1})
    after = tuned(model, clock)
    assert len(clock.asked) == 3
    assert set(graphs.ops(after)) == {"Add", "LayerNormalization", "Relu"}
    assert notes(after)["kept"] == []
    assert "given up" in notes(after)["tried"]["sum-before-norm"]


def test_a_single_choice_needs_no_second_comparison_with_the_original() -> None:
    clock = CountingClock(SUM_WINS)
    tuned(norms(), clock)
    assert len(clock.asked) == 1


@pytest.mark.slow
def test_it_stops_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    class Time:
        @staticmethod
        def monotonic() -> float:
            return now[0]

    def takes(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(tune_trials, "time", Time)
    after = tuned(
        graphs.transformer(), CountingClock(SUM_WINS, takes=takes), seconds=10.0, shapes=LENGTHS
    )
    assert now[0] <= 10.0
    assert notes(after)["kept"]


def test_a_rule_is_left_where_no_time_is_left_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Time:
        now = 0.0

        @classmethod
        def monotonic(cls) -> float:
            cls.now += 30.0
            return cls.now

    monkeypatch.setattr(tune_trials, "time", Time)
    after = tuned(norms(), CountingClock(SUM_WINS), seconds=60.0)
    assert graphs.ops(after) == ["Add", "LayerNormalization"]
    [[node, reason]] = notes(after)["declined"]
    assert node == "sum-before-norm"
    assert "the time was over" in reason


@rewrite_rule("wrong-on-large-values", at="Add")
def wrong_on_large_values(add: ir.Node) -> Found:
    """Equal on small values only."""

    def make(w: Any) -> ir.Value:
        limit = w.weight(np.array(50.0, np.float32))
        return w.op("Min", w.op("Sum", *add.inputs, like=add.outputs[0]), limit)

    return make


def test_a_rule_that_breaks_equality_on_the_users_data_is_dropped_as_our_bug(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = {"wrong-on-large-values": wrong_on_large_values}
    monkeypatch.setattr(rewrites, "rewrite_rules", lambda: known)
    monkeypatch.setattr("trimtab.passes.tuning.candidates.rewrite_rules", lambda: known)
    model = graphs.model_of("(float[n,4] x) => (float[n,4] y) { y = Add (x, x) }")
    data = Dataset.of_arrays({"x": np.full((4, 4), 100.0, np.float32)})
    after = tuned(model, CountingClock({"Add": 9.0, "Min": 0.0}), data)
    assert graphs.ops(after) == ["Add"]
    assert "a bug of trimtab" in notes(after)["tried"]["wrong-on-large-values"]


def test_a_candidate_that_cannot_run_is_dropped_and_takes_nothing_down_with_it() -> None:
    class Crashing(CountingClock):
        def median_ns(self, models: Any, *args: Any) -> list[float]:
            if any("Slice" not in graphs.ops(m) and "Conv" in graphs.ops(m) for m in models):
                raise RunError("no kernel")
            return super().median_ns(models, *args)

    clock = Crashing({"Slice": 5.0, "MaxPool": 1.0})
    after = tuned(graphs.model_of(SHORTCUT), clock)
    assert notes(after)["kept"] == ["stride-as-pool"]


def test_a_graph_of_the_runtimes_optimizer_is_recognised_and_left_alone() -> None:
    model = graphs.model_of(
        "(float[n,4] x) => (float[n,4] y) <float[4,4] w, float[4] g> { "
        "m = com.microsoft.FusedMatMul (x, w) a = Add (m, x) "
        "y = LayerNormalization <axis=-1> (a, g) }",
        imports=', "com.microsoft" : 1',
    )
    after = tuned(model, CountingClock(SUM_WINS))
    assert "FusedMatMul" in notes(after)["declined"][0][1]
    asked = tuned(model, CountingClock(SUM_WINS), optimized=True)
    assert notes(asked)["kept"] == ["sum-before-norm"]


def test_operators_of_the_runtime_alone_are_written_only_where_asked_for() -> None:
    model = graphs.model_of("(float[2,4] x) => (float[2,4] y) { y = Gelu (x) }", opset=20)

    # Cheaper than the standard operator here, which the counting clock cannot tell apart by name.
    def cost(made: Model, feeds: Any) -> float:
        return 1.0 if any(n.domain for n in made.graph) else 2.0

    assert "gelu-contrib" not in notes(tuned(model, CountingClock(cost_of=cost)))["tried"]
    asked = tuned(model, CountingClock(cost_of=cost), contrib=True)
    assert [n.domain for n in asked.graph] == ["com.microsoft"]


def test_a_goal_other_than_time_is_served_where_it_costs_no_time() -> None:
    model = graphs.model_of(SHORTCUT)
    clock = CountingClock({"Slice": 0.5, "Pad": 0.5, "Conv": 1.5, "MaxPool": 1.0})
    assert notes(tuned(model, clock, goal="latency"))["kept"] == []
    smaller = tuned(model, clock, goal="size")
    assert smaller.size_bytes < model.size_bytes + 2000  # lineage aside


def test_less_memory_is_served_where_it_costs_no_time() -> None:
    """Softmax written out holds the maximum beside two values of full size."""
    model = graphs.model_of(SOFTMAX_OPEN)
    even = CountingClock(cost_of=lambda model, feeds: 1.0)
    less = tuned(model, even, goal="memory", rules=("softmax-closed",))
    assert notes(less)["kept"] == ["softmax-closed"]
    assert notes(tuned(model, even, rules=("softmax-closed",)))["kept"] == []
    assert notes(tuned(less, even, goal="memory", rules=("softmax-open",)))["kept"] == []


def test_a_rule_that_another_one_opens_is_tried_after_it() -> None:
    """There is no Clip to split before Max and Min are one."""
    model = graphs.model_of("""(float[1,4] x) => (float[1,4] y)
        <float low = {0.0}, float high = {1.0}> { m = Max (x, low) y = Min (m, high) }""")
    after = tuned(model, CountingClock({"Max": 5.0}))
    assert notes(after)["kept"] == ["clip-from-min-max"]
    assert "relu6-split" in notes(after)["tried"]
    assert "clip-as-min-max" not in notes(after)["tried"]  # which leads back


def quantized() -> Model:
    """A convolution and an Add between Q/DQ pairs, which onnxruntime fuses into int8 kernels."""
    return graphs.model_of("""(float[1,4,6,6] x) => (float[1,8,6,6] y)
        <float one = {0.05}, uint8 zero = {128}, int8[8,4,3,3] w, float half = {0.02},
         int8 none = {0}> {
            q = QuantizeLinear (x, one, zero)
            d = DequantizeLinear (q, one, zero)
            k = DequantizeLinear (w, half, none)
            c = Conv <pads=[1,1,1,1]> (d, k)
            r = Relu (c)
            qr = QuantizeLinear (r, one, zero)
            dr = DequantizeLinear (qr, one, zero)
            a = Add (dr, dr)
            qa = QuantizeLinear (a, one, zero)
            y = DequantizeLinear (qa, one, zero)
        }""")


@rewrite_rule("add-as-sum-anywhere", at="Add")
def add_as_sum_anywhere(add: ir.Node) -> Found:
    """Equal in float, and known to no int8 kernel."""
    return lambda w: w.op("Sum", *add.inputs, like=add.outputs[0])


def test_a_rewrite_that_breaks_int8_fusions_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"add-as-sum-anywhere": add_as_sum_anywhere}
    monkeypatch.setattr(rewrites, "rewrite_rules", lambda: known)
    monkeypatch.setattr("trimtab.passes.tuning.candidates.rewrite_rules", lambda: known)
    after = tuned(quantized(), CountingClock(SUM_WINS))
    assert "Add" in graphs.ops(after)
    assert "breaks int8 fusions" in notes(after)["tried"]["add-as-sum-anywhere"]
