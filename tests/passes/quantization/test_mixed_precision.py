from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from int8_graphs import PATTERNS, chain, graph, normal, spoiled, stubborn

from trimtab.core.context import Context, Ratio
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError, PassError
from trimtab.core.metric import evaluate
from trimtab.core.ort.int8_share import int8_share
from trimtab.core.target import Target
from trimtab.passes.quantization.float_node_search import FloatNodeSearch
from trimtab.passes.quantization.hold_out import hold_out
from trimtab.passes.quantization.judge import MARGIN_OF_PROMISE
from trimtab.passes.quantization.static import QuantizeStatic

VNNI = Context(target=Target.named("x64-avx512-vnni"))


def notes(model):
    return model.lineage[-1].notes


def test_nothing_is_float_where_the_drop_allows_it():
    model = chain()
    quantized = QuantizeStatic(data=normal(model), max_drop=0.05)(model, VNNI)
    assert int8_share(quantized).int8_share == 1.0
    assert notes(quantized)["mixed"]["float"] == []
    assert [point["float"] for point in notes(quantized)["mixed"]["curve"]] == [0]


def test_the_drop_is_kept_on_held_out_samples():
    model, data = spoiled()
    plain = QuantizeStatic(data=data)(model, VNNI)
    fresh = normal(model, rows=64, seed=9)
    allowed = 0.3 * (1 - evaluate(plain, fresh, "cosine", reference=model).value)
    mixed = QuantizeStatic(data=data, max_drop=allowed, metric="cosine")(model, VNNI)
    report = notes(mixed)["mixed"]
    assert 0 <= report["drop"] <= allowed
    assert 1 - evaluate(mixed, fresh, "cosine", reference=model).value < 2 * allowed
    assert report["float"]
    assert int8_share(mixed).int8_ops > 0


def test_evaluations_are_few_and_listed_in_the_curve():
    model, data = stubborn(8)
    report = notes(QuantizeStatic(data=data, max_drop=2e-4, metric="cosine")(model, VNNI))["mixed"]
    assert len(report["curve"]) <= 2 + 3 + 6
    assert all({"float", "drop"} == set(point) for point in report["curve"])
    assert {"float": len(report["float"]), "drop": report["drop"]} in report["curve"]
    assert 0 < len(report["float"]) < 8


def test_two_runs_give_the_same():
    model, data = stubborn(3)
    made = [
        QuantizeStatic(data=data, max_drop=2e-4, metric="cosine")(model, VNNI).to_bytes()
        for _ in range(2)
    ]
    assert made[0] == made[1]


def test_a_drop_that_no_int8_layer_allows_is_an_error():
    model, data = stubborn(2)
    with pytest.raises(PassError, match=r"cosine falls by at least 0\.0"):
        QuantizeStatic(data=data, max_drop=0.0, metric="cosine")(model, VNNI)


class SlowWhereFloat:
    """Finds a model slower by a millisecond for each node of these names that is float."""

    def __init__(self, *expensive: str) -> None:
        self.expensive = expensive

    def median_ns(self, models, feeds, config, seconds):
        return [
            1e6 * (1 + sum(n in int8_share(m).float_nodes for n in self.expensive)) for m in models
        ]

    def compare(self, *args) -> Ratio:
        raise AssertionError


def test_with_a_clock_the_cheap_layer_becomes_float_before_the_expensive_one():
    model, data = stubborn(3)
    free = QuantizeStatic(data=data, max_drop=2e-4, metric="cosine")(model, VNNI)
    first = notes(free)["mixed"]["ranking"][0][0]
    timed = dataclasses.replace(VNNI, clock=SlowWhereFloat(first))
    dear = QuantizeStatic(data=data, max_drop=2e-4, metric="cosine")(model, timed)
    order = [name for name, _ in notes(dear)["mixed"]["ranking"]]
    assert order.index(first) > 0


class SlowWhereInt8(SlowWhereFloat):
    """Finds a model faster by a millisecond for each node in int8, slower for these."""

    def median_ns(self, models, feeds, config, seconds):
        return [1e6 * (20 + self.slower(m) - self.faster(m)) for m in models]

    def slower(self, model):
        return sum(n not in int8_share(model).float_nodes for n in self.expensive) * 3

    def faster(self, model):
        return int8_share(model).int8_ops


@pytest.mark.parametrize("closest", [False, True])
def test_layers_that_int8_makes_slower_stay_float(closest):
    model, data = stubborn(4)
    node = model.graph[2].name
    timed = dataclasses.replace(VNNI, clock=SlowWhereInt8(node))
    quantized = QuantizeStatic(data=data, max_drop=0.9, closest=closest)(model, timed)
    mixed = notes(quantized)["mixed"]
    assert mixed["float"] == mixed["slower"] == [node]
    assert not mixed["ranking"]  # nothing else costs too much
    assert [node, "int8 makes it slower"] in [list(pair) for pair in notes(quantized)["declined"]]


def test_where_int8_makes_all_layers_slower_float_is_the_closest():
    model, data = stubborn(3)
    timed = dataclasses.replace(VNNI, clock=SlowWhereInt8(*[n.name for n in model.graph]))
    with pytest.raises(PassError, match="int8 makes no layer clearly faster"):
        QuantizeStatic(data=data, max_drop=0.9, closest=True)(model, timed)
    asked_for = QuantizeStatic(data=data, max_drop=0.9)(model, timed)
    assert notes(asked_for)["mixed"]["float"] == []


def test_a_layer_is_int8_without_the_operators_behind_it_that_lose_too_much():
    """A sum with a thousand has steps of four in int8, and nothing of the layer is left."""
    model = graph(
        """g (float[N, 8, 6, 6] x) => (float[N, 8, 6, 6] y) {
          [layer] a = Conv (x, w)
          [clipped] b = Relu (a)
          [up] c = Add (b, thousand)
          [down] y = Add (c, minus)
        }""",
        w=(8, 8, 1, 1),
        thousand=np.array([1000], np.float32),
        minus=np.array([-1000], np.float32),
    )
    quantized = QuantizeStatic(data=normal(model), max_drop=0.02, closest=True)(model, VNNI)
    assert set(notes(quantized)["mixed"]["float"]) == {"up", "down"}
    assert int8_share(quantized).int8_share == 1.0


def test_a_mixture_keeps_as_many_layers_in_int8_as_make_it_worth_while():
    """Two layers of 0.03 each are worth it, one is not: the search does not look at that."""
    model, _ = stubborn(1)
    seen = []

    def write(names):
        seen.append(len(names))
        return model.ir

    search = FloatNodeSearch(model, write, "fidelity", 0.01, lambda _: 0.1, closest=True)
    search.take([], [([name], 0.03) for name in "abcd"])
    assert search.choose(lambda: [[(name, 0.0)] for name in "abcd"]) is None
    assert seen == [0, 2]


@pytest.mark.parametrize("numbers", [False, True])
def test_labels_are_evaluated_by_top1_and_ranked_by_divergence(numbers):
    """Class numbers have no divergence: layers stay in their order."""
    out, last = "int64[N] k", "k = ArgMax <axis = 1, keepdims = 0> (y)"
    model = graph(
        f"""g (float[N, 16] x) => ({out if numbers else "float[N, 4] y"}) {{
          h = Gemm <transB = 1> (x, w1)
          r = Relu (h)
          y = Gemm <transB = 1> (r, w2)
          {last if numbers else ""}
        }}""",
        w1=(32, 16),
        w2=(4, 32),
    )
    x = np.random.default_rng(0).standard_normal((60, 16)).astype(np.float32)
    data = Dataset.of_arrays({"x": x}, np.arange(60) % 4)
    quantized = QuantizeStatic(data=data, max_drop=0.2)(model, VNNI)
    assert notes(quantized)["mixed"]["metric"] == "top1"


@pytest.mark.parametrize("pattern", PATTERNS)
def test_any_single_node_of_any_pattern_can_stay_float(pattern):
    model = PATTERNS[pattern]()
    quantized = QuantizeStatic(data=normal(model, rows=12), max_drop=0.0, closest=True)(model, VNNI)
    ranking = notes(quantized)["mixed"]["ranking"]  # each of which ran alone in int8
    assert ranking
    assert all(np.isfinite(sensitivity) for _, sensitivity in ranking)


def test_held_out_samples_are_disjoint():
    data = Dataset.of_arrays({"x": np.zeros((100, 1), np.float32)})
    for samples in (10, 50, 100, 1000):
        used, held_out = hold_out(data, samples)
        assert not used.overlaps(held_out)
        assert 1 <= len(held_out) <= 50
        assert len(used) >= min(samples, 60)


def test_too_small_a_share_names_float_operators_and_reasons():
    model = PATTERNS["chain"]()
    data = normal(model, rows=8)
    names = [node.name for node in QuantizeStatic(data=data)(model, VNNI).graph]
    conv = next(n for n in names if "conv" in (n or "").lower() and "quant" not in n.lower())
    with pytest.raises(PassError, match="excluded by the user"):
        QuantizeStatic(data=data, exclude=(conv,), min_share=0.9)(model, VNNI)
    done = QuantizeStatic(data=data, min_share=1.0)(model, VNNI)
    assert notes(done)["float_nodes"] == []


@pytest.mark.parametrize("fields", [{"max_drop": -1.0}, {"min_share": 1.5}])
def test_invalid_fields_are_refused(fields):
    with pytest.raises(OptionError):
        QuantizeStatic(**fields)


@pytest.mark.parametrize("name", ["c0", "c2", "c4"])
def test_an_excluded_layer_between_int8_layers_runs_in_float(name):
    model, data = stubborn()
    quantized = QuantizeStatic(data=data, exclude=(name,))(model, VNNI)
    share = int8_share(quantized)
    assert share.float_nodes == (name,)
    assert share.int8_ops == 4
    assert notes(quantized)["float_nodes"] == [[name, "excluded by the user"]]


def test_an_average_pool_after_a_float_layer_has_a_range_of_its_own():
    model = graph(
        """g (float[N, 4, 6, 6] x) => (float[N, 3] y) {
          [c] a = Conv (x, w)
          [r] b = Relu (a)
          [p] d = GlobalAveragePool (b)
          [f] e = Flatten (d)
          [h] y = Gemm <transB = 1> (e, v)
        }""",
        w=(8, 4, 1, 1),
        v=(3, 8),
    )
    quantized = QuantizeStatic(data=normal(model), max_drop=0.0, closest=True)(model, VNNI)
    assert [n for n, _ in notes(quantized)["mixed"]["ranking"]] != []


def test_a_model_of_a_fixed_batch():
    model = graph(
        "g (float[4, 16] x) => (float[4, 6] y) { y = Gemm <transB = 1> (x, w) }", w=(6, 16)
    )
    rows = np.random.default_rng(0).standard_normal((50, 16)).astype(np.float32)
    data = Dataset.of_arrays({"x": rows})
    done = QuantizeStatic(data=data, max_drop=1.0, check_overflow=True)(model, VNNI)
    assert notes(done)["mixed"]["float"] == []


def test_16_bits_come_before_float_where_the_target_has_them():
    model, data = spoiled()
    target = Context(target=Target.named("generic-qdq"))
    quantized = QuantizeStatic(data=data, max_drop=2e-3, metric="cosine")(model, target)
    mixed = notes(quantized)["mixed"]
    assert mixed["float"] == []
    assert "d" in mixed["wide"]
    assert mixed["drop"] <= 2e-3
    wide = [n for n in quantized.graph if n.op_type == "QuantizeLinear"]
    kinds = {n.inputs[0].name: n.inputs[2].dtype.name for n in wide}
    assert kinds["d"] == "UINT16"
    assert "UINT8" in kinds.values()


def test_named_activations_have_16_bits():
    model, data = spoiled()
    target = Context(target=Target.named("generic-qdq"))
    quantized = QuantizeStatic(data=data, wide=("d",))(model, target)
    kinds = {v.dtype.name for n, v in quantized.graph.initializers.items() if n == "d_zero_point"}
    assert kinds == {"UINT16"}


@pytest.mark.parametrize(
    ("target", "name", "message"),
    [("x64-avx2", "d", "no kernels for 16-bit"), ("generic-qdq", "dd", "matches no quantized")],
)
def test_unsupported_16_bits_are_refused(target, name, message):
    model, data = spoiled()
    with pytest.raises(OptionError, match=message):
        QuantizeStatic(data=data, wide=(name,))(model, Context(target=Target.named(target)))


@pytest.mark.parametrize(
    ("tie", "int8"), [(0.0, 6), (0.02, 6), (0.03, 0)], ids=["none", "promised", "too much"]
)
def test_a_decision_that_any_int8_turns_does_not_leave_all_layers_float(tie, int8):
    """A tie is lost by the first layer in int8; six of ten layers lose nothing more."""
    model, _ = stubborn(1)
    float_nodes = []

    def write(names):
        float_nodes[:] = names
        return model.ir

    def drop_of(_):
        count = 10 - len(float_nodes)
        return 0.0 if not count else tie if count <= 6 else 0.3

    search = FloatNodeSearch(model, write, "fidelity", MARGIN_OF_PROMISE * 0.02, drop_of, True)
    chosen = search.choose(lambda: [[(name, 0.0)] for name in "abcdefghij"])
    chosen = search.closest_to_float("abcdefghij") if chosen is None else chosen
    assert len(chosen) == (10 - int8 if int8 else 9)
