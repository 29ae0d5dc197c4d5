"""Tune keeps what a clock finds faster, and nothing else. The clock here only counts operators."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnx_ir as ir
import pytest
from forms_cases import GEMM, NORM, SHORTCUT

from trimtab.core.context import Context, Ratio
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError, RunError
from trimtab.core.model import Model
from trimtab.core.target import Target
from trimtab.passes import forms, tune_search
from trimtab.passes.forms.form import Found, form
from trimtab.passes.tune import Tune

TWO_SIZES = """(float[1,5,8] x, float[1,5,4] z) => (float[1,5,8] y, float[1,5,4] v)
    <float[8] g, float[4] h> {
        s = Add (x, x)
        y = LayerNormalization <axis=-1> (s, g)
        t = Add (z, z)
        v = LayerNormalization <axis=-1> (t, h)
    }"""


@dataclass
class CountingClock:
    """Finds a model as slow as the sum of what its operators cost.

    Attributes:
        cost: of an operator; 1 where absent.
        spread: half of the width of intervals, relative.
        takes: whether a measurement uses the whole time that it is given.
    """

    cost: dict[str, float] = field(default_factory=dict)
    spread: float = 0.01
    takes: Callable[[float], None] = lambda seconds: None
    asked: list[float] = field(default_factory=list)
    cost_of: Callable[[Any, Any], float] | None = None

    def total(self, model: Model, feeds: Any) -> float:
        if self.cost_of is not None:
            return self.cost_of(model, feeds)
        return 10.0 + sum(self.cost.get(op, 1.0) for op in graphs.ops(model))

    def compare(
        self, base: Model, candidate: Model, feeds: Any, config: Any, seconds: float
    ) -> Ratio:
        self.asked.append(seconds)
        self.takes(seconds)
        value = self.total(base, feeds) / self.total(candidate, feeds)
        return Ratio(value, value * (1 - self.spread), value * (1 + self.spread))

    def median_ns(
        self, models: Sequence[Model], feeds: Any, config: Any, seconds: float
    ) -> list[float]:
        self.takes(seconds)
        return [1000 * self.total(m, feeds) for m in models]


def context(clock: Any, data: Dataset | None = None) -> Context:
    return Context(target=Target.named("x64-avx512-vnni"), clock=clock, data=data)


def tuned(model: Model, clock: Any, data: Dataset | None = None, **fields: Any) -> Model:
    return Tune(**fields)(model, context(clock, data))


def notes(model: Model) -> dict[str, Any]:
    return dict(model.lineage[-1].notes)


def norms() -> Model:
    return graphs.model_of(NORM % "Add")


SUM_WINS = {"Sum": 0.1, "Add": 5.0}


def test_keeps_a_form_that_is_faster_and_tells_by_how_much() -> None:
    after = tuned(norms(), CountingClock(SUM_WINS))
    assert graphs.ops(after) == ["Sum", "LayerNormalization"]
    assert notes(after)["kept"] == ["sum-before-norm"]
    assert notes(after)["speedup"].startswith("1.44x")
    assert "kept" in notes(after)["tried"]["sum-before-norm"]


def test_leaves_a_form_that_is_slower() -> None:
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


def test_it_stops_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    class Time:
        @staticmethod
        def monotonic() -> float:
            return now[0]

    def takes(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(tune_search, "time", Time)
    after = tuned(
        graphs.transformer(), CountingClock(SUM_WINS, takes=takes), seconds=10.0, **LENGTHS
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

    monkeypatch.setattr(tune_search, "time", Time)
    after = tuned(norms(), CountingClock(SUM_WINS), seconds=60.0)
    assert graphs.ops(after) == ["Add", "LayerNormalization"]


LENGTHS = {"shapes": ("x=2x6x16",)}


def test_dynamic_sizes_are_asked_for() -> None:
    with pytest.raises(OptionError, match="x=1x128x16"):
        tuned(graphs.transformer(), CountingClock())


def test_given_sizes_are_fed() -> None:
    seen = []

    def cost(model: Model, feeds: Any) -> float:
        seen.append(feeds["x"].shape)
        return 1.0

    tuned(graphs.transformer(), CountingClock(cost_of=cost), **LENGTHS)
    assert set(seen) == {(2, 6, 16)}


@pytest.mark.parametrize(("over", "kept"), [("mean", True), ("worst", False)])
def test_several_sizes_are_judged_by_their_mean_or_by_the_worst(over: str, *, kept: bool) -> None:
    """The Sum is twice as fast on the short input, a little slower on the long one."""

    def cost(model: Model, feeds: Any) -> float:
        if "Sum" not in graphs.ops(model):
            return 1.0
        return 0.5 if feeds["x"].shape[1] == 4 else 1.2

    shapes = ("x=1x4x16", "x=1x8x16")
    after = tuned(
        graphs.transformer(),
        CountingClock(cost_of=cost),
        shapes=shapes,
        over=over,
        rules=("sum-before-norm",),
    )
    assert ("Sum" in graphs.ops(after)) is kept


@pytest.mark.parametrize("text", ["x", "x=", "x=1xy", "=1x2", "x=0x2"])
def test_a_text_that_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="is no shape"):
        Tune(shapes=(text,))


def test_a_shape_for_an_input_that_does_not_exist_is_refused() -> None:
    with pytest.raises(OptionError, match="no input 'z'"):
        tuned(graphs.mlp(), CountingClock(), shapes=("z=1x2",))


def test_the_first_rows_of_the_data_are_fed_where_no_sizes_are_given() -> None:
    data = Dataset.of_arrays({"x": np.zeros((4, 7, 16), np.float32)})
    seen = []

    def cost(model: Model, feeds: Any) -> float:
        seen.append(feeds["x"].shape)
        return 1.0

    tuned(graphs.transformer(), CountingClock(cost_of=cost), data)
    assert set(seen) == {(1, 7, 16)}


@form("wrong-on-large-values", at="Add")
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
    monkeypatch.setattr(forms, "forms", lambda: known)
    monkeypatch.setattr("trimtab.passes.tune_candidates.forms", lambda: known)
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


def test_what_was_found_is_known_to_the_next_run(tmp_path: Any) -> None:
    cache = str(tmp_path / "known" / "forms.json")
    tuned(norms(), CountingClock({"Sum": 0.999}), cache=cache, goal="size")
    known = json.loads(Path(cache).read_text())
    [[place, rows]] = known.items()
    assert "onnxruntime" in place
    assert place.endswith("float")
    assert list(rows) == ["sum-before-norm | Add float nx5x8,nx5x8"]
    assert math.isclose(next(iter(rows.values()))[0], 1.0, abs_tol=0.01)


def test_a_known_loser_is_not_tried_again_unless_named(tmp_path: Any) -> None:
    cache = str(tmp_path / "forms.json")

    class TwoFaced(CountingClock):
        def median_ns(self, models: Any, *args: Any) -> list[float]:
            return [1000.0, *([900.0] * (len(models) - 1))]

    clock = TwoFaced({"Sum": 9.0})
    assert "slower" in notes(tuned(norms(), clock, cache=cache))["tried"]["sum-before-norm"]
    again = notes(tuned(norms(), clock, cache=cache))["tried"]["sum-before-norm"]
    assert "was slower at such sites before" in again
    named = tuned(norms(), clock, cache=cache, rules=("sum-before-norm",))
    assert "measured" in notes(named)["tried"]["sum-before-norm"]


def test_a_cache_that_cannot_be_read_or_written_is_no_failure(tmp_path: Any) -> None:
    broken = tmp_path / "forms.json"
    broken.write_text("{")
    assert notes(tuned(norms(), CountingClock(SUM_WINS), cache=str(broken)))["kept"]
    assert notes(tuned(norms(), CountingClock(SUM_WINS), cache=str(broken / "no.json")))["kept"]


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


@form("add-as-sum-anywhere", at="Add")
def add_as_sum_anywhere(add: ir.Node) -> Found:
    """Equal in float, and known to no int8 kernel."""
    return lambda w: w.op("Sum", *add.inputs, like=add.outputs[0])


def test_a_form_that_breaks_int8_fusions_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"add-as-sum-anywhere": add_as_sum_anywhere}
    monkeypatch.setattr(forms, "forms", lambda: known)
    monkeypatch.setattr("trimtab.passes.tune_candidates.forms", lambda: known)
    after = tuned(quantized(), CountingClock(SUM_WINS))
    assert "Add" in graphs.ops(after)
    assert "breaks int8 fusions" in notes(after)["tried"]["add-as-sum-anywhere"]
