from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
from graphs import model_of
from heard import Heard
from int8_graphs import (
    chain,
    detector,
    graph,
    normal,
    residual,
    stubborn,
    transformer_block,
)

from trimtab.cli import main
from trimtab.core.context import Context, Ratio
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, InputError, ModelError, OptionError
from trimtab.core.model import Model
from trimtab.core.ort.int8_share import int8_share
from trimtab.core.ort.session import build_session, run
from trimtab.core.target import Target
from trimtab.passes.base import Rewrite
from trimtab.passes.graph.declined import Declined
from trimtab.passes.quantization.auto import QuantizeAuto
from trimtab.passes.quantization.file_size import plain_bytes
from trimtab.passes.quantization.greedy_search import GreedySearch, slower
from trimtab.passes.quantization.hold_out import hold_out, judging_batches
from trimtab.passes.quantization.judge import Judge, Verdict
from trimtab.passes.quantization.static import QuantizeStatic
from trimtab.passes.quantization.wanted import Wanted
from trimtab.report.lines import promise_line

VNNI = Context(target=Target.named("x64-avx512-vnni"))


def steps(model: Model) -> list[dict]:
    """Return what a search tried, none of which failed by a fault of the tool."""
    tried = model.lineage[-1].notes["steps"]
    assert not [step for step in tried if "bug of trimtab" in step.get("why", "")]
    return tried


def depthwise() -> Model:
    return graph(
        """g (float[N, 8, 9, 9] x) => (float[N, 6] y) {
          [wide] a = Conv (x, w1)
          b = Relu (a)
          [depth] c = Conv <group = 16, pads = [1, 1, 1, 1]> (b, w2)
          d = Relu (c)
          e = GlobalAveragePool (d)
          f = Flatten (e)
          [head] y = Gemm <transB = 1> (f, w3)
        }""",
        w1=(16, 8, 1, 1),
        w2=(16, 1, 3, 3),
        w3=(6, 16),
    )


@pytest.mark.slow
@pytest.mark.parametrize("make", [residual, depthwise])
def test_a_convolutional_network_loses_no_more_than_plain_static_and_runs_as_fast(make):
    model = make()
    data, fresh = normal(model, rows=96), list(normal(model, rows=64, seed=9))
    auto = QuantizeAuto(data=data, samples=64, all_int8=True)(model, VNNI)
    plain = QuantizeStatic(data=data, samples=64)(model, VNNI)
    # Exact where this machine would saturate.
    error, other = (Judge(model, fresh, VNNI.target).of(m).loss for m in (auto, plain))
    assert error <= 1.05 * other
    assert int8_share(auto).int8_share == 1.0
    assert not slower(auto, plain)


def test_every_step_is_reported_with_its_error_on_held_out_samples():
    model = depthwise()
    auto = QuantizeAuto(data=normal(model, rows=96), samples=64, all_int8=True)(model, VNNI)
    notes = auto.lineage[-1].notes
    names = [step["step"] for step in steps(auto)]
    assert names[0] == "static int8, ranges mse"
    assert {"ranges minmax", "scales mse", "equalize", "correct bias"} <= set(names)
    assert (notes["samples"], notes["held_out"]) == (64, 32)
    kept = [step["squared_relative_error"] for step in steps(auto) if step["kept"]]
    assert kept == sorted(kept, reverse=True)
    assert notes["squared_relative_error"] == pytest.approx(kept[-1], rel=1e-3)
    assert all(step["kept"] or step["why"] for step in steps(auto))


def test_a_transformer_becomes_dynamic_where_that_stays_close():
    model = transformer_block()
    auto = QuantizeAuto(data=normal(model, rows=32))(model, VNNI)
    assert [step["step"] for step in steps(auto) if step["kept"]] == ["dynamic int8"]
    assert auto.lineage[-1].notes["int8_ops"] == 3


@pytest.mark.slow
def test_a_transformer_that_dynamic_int8_distorts_gets_the_least_error(monkeypatch):
    monkeypatch.setattr("trimtab.passes.quantization.auto.CLOSE", 0.0)
    model = transformer_block()
    auto = QuantizeAuto(data=normal(model, rows=32))(model, VNNI)
    tried = steps(auto)
    assert [s["step"] for s in tried[:2]] == ["dynamic int8", "static int8"]
    least = min(s["squared_relative_error"] for s in tried if "squared_relative_error" in s)
    assert auto.lineage[-1].notes["squared_relative_error"] == pytest.approx(least, rel=0.03)


def spoiled() -> tuple[Model, Dataset]:
    # One feature is so large that in its tensor's scale the others vanish; its weights are small.
    size = np.where(np.arange(8) == 0, 3000, 1)
    weight = np.random.default_rng(1).standard_normal((8, 8)) / size[:, None]
    model = graph(
        """g (float[N, 8] x) => (float[N, 4] y) {
          [bad] a = MatMul (x, w1)
          b = Relu (a)
          [good] y = MatMul (b, w2)
        }""",
        w1=weight.astype(np.float32),
        w2=(8, 4),
    )
    x = np.random.default_rng(0).standard_normal((96, 8)) * size
    return model, Dataset.of_arrays({"x": x.astype(np.float32)})


class FixedClock:
    """A clock that always measures the same."""

    def __init__(self, ratio: Ratio) -> None:
        self.ratio = ratio

    def compare(self, *_: object) -> Ratio:
        return self.ratio

    def median_ns(self, models, *_: object) -> list[float]:
        return [1e6, *[1e6 / self.ratio.value] * (len(models) - 1)]


class SlowNode(FixedClock):
    """A clock that finds what is in int8 slower while one node is, and faster if that is float."""

    def __init__(self, node: str) -> None:
        self.node = node

    def _ns(self, model) -> float:
        share = int8_share(model)
        if not share.int8_ops:
            return 1e6
        return 2e6 if self.node not in share.float_nodes else 5e5

    def compare(self, base, candidate, *_: object) -> Ratio:
        ratio = self._ns(base) / self._ns(candidate)
        return Ratio(ratio, 0.99 * ratio, 1.01 * ratio)

    def median_ns(self, models, *_: object) -> list[float]:
        return [*map(self._ns, models)]


def test_where_one_layer_makes_int8_slower_the_others_are_int8():
    model, data = stubborn(4)
    node = model.graph[2].name
    timed = Context(target=VNNI.target, clock=SlowNode(node))
    auto = QuantizeAuto(data=data, fidelity=0.5)(model, timed)
    found = next(step for step in steps(auto) if step["step"] == "int8 where it is faster")
    assert found["kept"], found
    assert auto.lineage[-1].notes["mixed"]["slower"] == [node]
    assert int8_share(auto).int8_ops == 3


def test_where_int8_makes_no_layer_slower_no_mixture_is_timed():
    model, data = stubborn(4)
    timed = Context(target=VNNI.target, clock=FixedClock(Ratio(1.8, 1.7, 1.9)))
    auto = QuantizeAuto(data=data, fidelity=0.5)(model, timed)
    found = next(step for step in steps(auto) if step["step"] == "int8 where it is faster")
    assert found["why"] == "int8 makes no layer slower"
    assert int8_share(auto).int8_ops == 4


def test_dynamic_int8_that_keeps_more_is_taken_where_it_is_faster_than_float(monkeypatch):
    """Rows of sizes that differ a thousandfold have no range together, and each its own.

    Less of it runs in int8 than of the static one, as a convolution stays float. No mixture is
    better here.
    """
    monkeypatch.setattr(Wanted, "offer_mixed", lambda *_: False)
    model = graph(
        """g (float[1, 8, 6, 6] x) => (float[1, 4] logits) {
          a = Conv (x, w1)
          b = Relu (a)
          c = Flatten (b)
          [last] logits = MatMul (c, w2)
        }""",
        w1=(8, 8, 1, 1),
        w2=(288, 4),
    )
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((96, 8, 6, 6)) * 10 ** rng.uniform(-3, 0, (96, 1, 1, 1))
    timed = Context(target=VNNI.target, clock=FixedClock(Ratio(1.8, 1.7, 1.9)))
    data = Dataset.of_arrays({"x": rows.astype(np.float32)})
    auto = QuantizeAuto(data=data, fidelity=0.9995)(model, timed)
    tried = {step["step"]: step for step in steps(auto)}
    assert tried["dynamic int8"]["why"] == "less of it runs in int8"
    assert tried["dynamic int8, as static keeps too little"]["kept"]


@pytest.mark.parametrize(
    ("ratio", "effort", "refined"),
    [
        (Ratio(0.8, 0.7, 0.9), "normal", False),
        (Ratio(0.8, 0.7, 0.9), "thorough", True),
        (Ratio(1.2, 1.1, 1.3), "normal", True),
    ],
)
def test_int8_that_is_not_faster_is_not_refined_and_weights_alone_are_stored(
    ratio, effort, refined
):
    model = depthwise()
    timed = Context(target=VNNI.target, clock=FixedClock(ratio))
    auto = QuantizeAuto(data=normal(model, rows=48), effort=effort)(model, timed)
    tried = {step["step"]: step for step in steps(auto)}
    assert ("ranges minmax" in tried) is refined
    assert ("refine static int8" in tried) is not refined
    assert ("float arithmetic, stored in 8 bits" in tried) is not ratio.faster


def test_max_drop_leaves_layers_float():
    model, data = spoiled()
    auto = QuantizeAuto(data=data, samples=48, max_drop=0.001, metric="cosine")(model, VNNI)
    assert auto.lineage[-1].notes["mixed"]["float"] == ["bad"]
    assert "mixed precision" in [s["step"] for s in steps(auto)]


@pytest.mark.slow
def test_layers_stay_float_until_the_promise_is_kept():
    model, data = spoiled()
    auto, forced = (
        QuantizeAuto(data=data, samples=48, fidelity=0.94, all_int8=forced)(model, VNNI)
        for forced in (False, True)
    )
    promise = auto.lineage[-1].notes["promise"]
    assert promise["fidelity"] >= 0.94
    assert not promise["broken"]
    assert int8_share(auto).float_nodes == ("bad",)
    assert forced.lineage[-1].notes["promise"]["broken"]
    fresh = list(data.take(16))
    assert Judge(model, fresh, VNNI.target).of(auto).kept >= 0.93


@pytest.mark.slow
def test_what_loses_too_much_is_trained_before_layers_stay_float():
    model = chain()
    auto = QuantizeAuto(data=normal(model, rows=96), samples=48, fidelity=1.0, train="1s")(
        model, VNNI
    )
    tried = [step["step"] for step in steps(auto)]
    trained = steps(auto)[tried.index("train through int8, 1s")]
    assert {"fidelity", "kept"} <= trained.keys()
    assert tried.index("train through int8, 1s") < tried.index("mixed precision")


@pytest.mark.slow
def test_what_keeps_enough_is_not_trained():
    model = residual()
    auto = QuantizeAuto(data=normal(model, rows=64), fidelity=0.5, train="60s")(model, VNNI)
    assert not any("train" in step["step"] for step in steps(auto))


def test_what_is_not_faster_is_not_trained_and_says_so():
    timed = Context(target=VNNI.target, clock=FixedClock(Ratio(0.8, 0.7, 0.9)))
    model = depthwise()
    auto = QuantizeAuto(data=normal(model, rows=48), train="60s")(model, timed)
    (step,) = (step for step in steps(auto) if "train" in step["step"])
    assert "not clearly faster" in step["why"]


@pytest.mark.slow
def test_training_is_not_left_out_silently():
    model = chain()
    data = normal(model, rows=96)
    forced = QuantizeAuto(data=data, samples=48, fidelity=1.0, all_int8=True, train="1s")
    assert forced.decides_by_time()
    assert any("train through" in step["step"] for step in steps(forced(model, VNNI)))
    assert QuantizeAuto(max_drop=0.1, train="1s").decides_by_time()
    with pytest.raises(DataError):
        QuantizeAuto(train="1s")(model, VNNI)


@pytest.mark.slow
def test_training_goes_on_from_its_checkpoint(tmp_path):
    model, heard = chain(), Heard()
    step = QuantizeAuto(data=normal(model, rows=96), samples=48, fidelity=1.0, all_int8=True)
    step = step.with_fields(train="1s", checkpoint=str(tmp_path / "state"))
    for _ in range(2):
        step(model, dataclasses.replace(VNNI, progress=heard))
    assert sum("resumed from step" in line for line in heard.said) == 1
    (tmp_path / "state").write_text("of something else")
    with pytest.raises(ModelError, match="is not a checkpoint"):
        step(model, VNNI)
    with pytest.raises(OptionError, match="none is asked for"):
        QuantizeAuto(checkpoint="state")


def test_a_time_that_cannot_be_read_is_refused():
    with pytest.raises(OptionError, match="'soon' is not a duration"):
        QuantizeAuto(train="soon")


@pytest.mark.slow
def test_the_scores_of_a_detector_do_not_share_the_scale_of_its_boxes():
    model = detector()
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((30, 3, 32, 32)).astype(np.float32)
    data = Dataset.of_arrays({"x": rows[:24]})
    auto = QuantizeAuto(data=data, samples=16)(model, VNNI)
    session, other = build_session(model), build_session(auto)
    for row in rows[24:]:
        truth, got = (run(s, {"x": row[None]})["y"][0, 4:] for s in (session, other))
        assert np.abs(truth - got).mean() < 0.02
        assert len(np.unique(got)) > 50


@pytest.mark.parametrize(
    ("broken", "speed_up", "expected"),
    [
        (False, Ratio(1.2, 1.1, 1.3), ""),
        (False, Ratio(0.8, 0.7, 0.9), "COULD NOT be faster than float"),
        (True, Ratio(1.2, 1.1, 1.3), "COULD NOT keep 0.98 of the answers"),
        (True, Ratio(1, 0.9, 1.1), "COULD NOT keep 0.98 of the answers NOR be faster than float"),
        (False, Ratio(2.2, 0.0, math.inf), "COULD NOT be shown to be faster than float"),
        (False, None, ""),
    ],
)
def test_the_line_names_what_could_not_be_done(broken, speed_up, expected):
    promise = {"fidelity": 0.9812, "wanted": 0.98, "rows": 12, "held_out": 12, "broken": broken}
    line = promise_line(promise, speed_up)
    assert line.startswith("keeps 0.981 of the float model's answers on 12 rows")
    told = promise_line(promise | {"rows": 36}, speed_up)
    assert told == line.replace("12 rows", "36 rows (12 held out)")
    assert line.partition(". ")[2] == expected
    unsure = promise_line(promise | {"interval": [0.93, 1.0]}, speed_up)
    assert unsure == line.replace("0.981", "0.981 [0.930, 1.000]")


def test_a_promise_on_few_rows_has_its_interval():
    model = chain()
    auto = QuantizeAuto(data=normal(model, rows=36), samples=24)(model, VNNI)
    promise = auto.lineage[-1].notes["promise"]
    low, high = promise["interval"]
    assert low <= promise["fidelity"] <= high


def test_a_step_that_helps_by_less_than_the_margin_is_left_out():
    model = chain()
    data = normal(model, rows=16)
    search = GreedySearch(model, (list(data), []), VNNI)
    search.start("int8", QuantizeStatic(data=data))
    before = search.chosen
    assert not search.improve("nothing", lambda best: Rewrite(best.ir, [Declined("a", "b")]))
    assert search.chosen is before
    assert search.steps[-1]["why"] == "the error would not fall"


def test_a_step_that_fails_is_reported_and_left_out():
    model = chain()
    data = normal(model, rows=16)
    search = GreedySearch(model, (list(data), []), VNNI)
    search.start("int8", QuantizeStatic(data=data))
    assert not search.offer("wrong", QuantizeStatic(data=data, exclude=("nowhere",)))
    assert "matches no node" in search.steps[-1]["why"]


def recurrent() -> Model:
    return graph(
        """g (float[1, 1, 32] x, float[1, 1, 64] h, float[1, 1, 64] c)
            => (float[1, 1, 32] mask, float[1, 1, 64] h2, float[1, 1, 64] c2) {
          sequence, h2, c2 = LSTM <hidden_size = 64> (x, W, R, B, , h, c)
          y = Squeeze (sequence, one)
          t = MatMul (y, w)
          mask = Sigmoid (t)
        }""",
        W=(1, 256, 32),
        R=(1, 256, 64),
        B=(1, 512),
        w=(64, 32),
        one=np.array([1], np.int64),
    )


def test_a_recurrent_network_becomes_dynamic_and_its_states_stay_float():
    model = recurrent()
    rng = np.random.default_rng(0)
    shapes = {spec.name: spec.shape for spec in model.inputs}
    rows = [
        {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        for _ in range(24)
    ]
    auto = QuantizeAuto(data=Dataset.of_batches(lambda: iter(rows)))(model, VNNI)
    kept = [step["step"] for step in steps(auto) if step["kept"]]
    assert "dynamic int8" in kept
    assert auto.lineage[-1].notes["quantized"] == {"LSTM": 1, "MatMul": 1}
    assert plain_bytes(auto) < 0.35 * plain_bytes(model)
    assert not any(node.op_type == "QuantizeLinear" for node in auto.nodes())


def test_what_has_no_layer_for_integers_is_stored_in_8_bits():
    """As an LSTM that is written out in a Loop, which hands its weights from step to step."""
    model = graph(
        """g (float[N, 64] x) => (float[N, 64] y) {
          y, last = Loop (times, yes, x, w) <body = b (int64 i, bool go, float[N, 64] h,
                float[64, 64] v) => (bool on, float[N, 64] t, float[64, 64] next) {
              on = Identity (go)
              m = MatMul (h, v)
              t = Tanh (m)
              next = Identity (v)
            }>
        }""",
        times=np.array(3),
        yes=np.array(True),
        w=(64, 64),
    )
    auto = QuantizeAuto(data=normal(model, rows=24))(model, VNNI)
    assert [s["step"] for s in steps(auto) if s["kept"]][-1] == "float arithmetic, stored in 8 bits"
    assert plain_bytes(auto) < 0.5 * plain_bytes(model)
    with pytest.raises(DataError, match="nothing to quantize"):
        QuantizeAuto(data=normal(model, rows=24), all_int8=True)(model, VNNI)


@pytest.mark.slow
def test_a_convolutional_network_stays_static_though_its_head_could_be_dynamic():
    model = depthwise()
    tried = {s["step"]: s for s in steps(QuantizeAuto(data=normal(model, rows=96))(model, VNNI))}
    assert tried["dynamic int8"]["kept"] is False
    assert tried["dynamic int8"]["why"] == "less of it runs in int8"


def test_without_data_it_is_dynamic_where_that_does_something():
    auto = QuantizeAuto()(recurrent(), VNNI)
    assert "no data" in auto.lineage[-1].notes["note"]
    assert auto.lineage[-1].notes["quantized"] == {"LSTM": 1, "MatMul": 1}
    with pytest.raises(DataError, match="needs data"):
        QuantizeAuto()(chain(), VNNI)


def test_the_error_of_classes_is_the_share_that_differs():
    def classes(column: int) -> Model:
        return graph(
            """g (float[N, 4] x) => (int64[N, 1] y, float[N, 4] z) {
              y = ArgMax <axis = 1> (x)
              z = Mul (x, w)
            }""",
            w=np.eye(4, dtype=np.float32)[column],
        )

    x = np.eye(4, dtype=np.float32)
    batches = list(Dataset.of_arrays({"x": x}))
    of = Judge(classes(0), batches, VNNI.target).of
    assert (of(classes(0)).kept, of(classes(0)).loss) == (1, 0)
    # Other elements of z, of the same size: twice that size is the squared error; y agrees.
    assert of(classes(1)).loss == pytest.approx((0 + 2) / 2)
    assert of(classes(1)).kept == 0


def test_the_lower_of_what_is_kept_with_and_without_samples_of_the_calibration_counts():
    def classes(column: int) -> Model:
        return graph("g (float[N, 3] x) => (float[N, 3] y) { y = Mul (x, w) }", w=sign(column))

    def sign(column: int) -> np.ndarray:
        return np.where(np.arange(3) == column, -1, 1).astype(np.float32)

    def rows(*chosen: int) -> Dataset:
        return Dataset.of_arrays({"x": 9 * np.eye(3, dtype=np.float32)[list(chosen)]})

    held_out, used = list(rows(0, 1, 0, 1)), list(rows(2, 2, 0, 1))
    kept = [Judge(classes(9), held_out, VNNI.target, also=used).of(classes(k)).kept for k in (2, 0)]
    assert kept == [0.75, 0.5]  # of all eight; of the four that are held out


@pytest.mark.parametrize(
    ("rows", "judging"), [(30, (10, 20)), (120, (40, 24)), (300, (100, 0)), (1, (1, 0))]
)
def test_samples_of_the_calibration_judge_where_few_are_held_out(rows, judging):
    data = normal(chain(), rows=rows)
    held_out, also = judging_batches(chain(), *hold_out(data, 256))
    assert tuple(sum(b.size for b in part) for part in (held_out, also)) == judging


def test_outputs_that_are_no_longer_finite_keep_nothing():
    def scaled(by: float) -> Model:
        return graph("g (float[N, 4] x) => (float[N, 4] y) { y = Div (x, w) }", w=np.float32(by))

    batches = list(Dataset.of_arrays({"x": np.ones((2, 4), np.float32)}))
    verdict = Judge(scaled(1), batches, VNNI.target).of(scaled(0))
    assert verdict.kept == 0
    assert verdict.loss == np.inf


@pytest.fixture
def files(tmp_path):
    model = residual()
    batch = next(iter(normal(model, rows=48)))
    np.savez(tmp_path / "data.npz", **batch.feeds)
    return str(model.save(tmp_path / "float.onnx")), str(tmp_path / "data.npz"), tmp_path


@pytest.mark.slow
def test_the_first_line_tells_what_is_kept_and_strict_exits_with_1(files, capsys):
    model, data, folder = files
    command = ["quantize", model, "-o", str(folder / "o.onnx"), "--data", data, "--fidelity", "1"]
    assert main([*command, "--all-int8"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert "of the float model's answers on" in first
    assert "COULD NOT keep 1 of the answers" in first
    assert main([*command, "--all-int8", "--strict"]) == 1
    assert (folder / "o.onnx").exists()


@pytest.mark.parametrize(("fidelity", "far"), [(0.9, False), (0.99, True)])
def test_biases_are_not_corrected_where_much_more_is_lost_than_was_allowed(fidelity, far):
    auto, search = QuantizeAuto(fidelity=fidelity), GreedySearch(chain(), ([], []), VNNI, fidelity)
    search.verdict = Verdict(0.8, 0.1)
    assert auto._is_far(search, Wanted(search, normal(chain()), 8, fidelity)) is far
    forced = QuantizeAuto(fidelity=fidelity, all_int8=True)
    assert not forced._is_far(search, Wanted(search, normal(chain()), 8, fidelity))


def last_pass(path) -> str:
    return Model.load(path).lineage[-1].pass_name


@pytest.mark.slow
def test_the_command_with_data_alone_takes_auto_and_reports_the_steps(files, capsys):
    model, data, folder = files
    command = ["quantize", model, "-o", str(folder / "o.onnx"), "--data", data]
    assert main([*command, "--effort", "thorough"]) == 0
    assert last_pass(folder / "o.onnx") == "quantize-auto"
    out = capsys.readouterr().out
    assert re.search(r"(?m)^  static int8, ranges mse +yes ", out)
    assert "correct bias" in out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--ranges", "minmax"], "quantize-static"),
        (["--mode", "static"], "quantize-static"),
        (["--mode", "dynamic", "--keep"], "quantize-dynamic"),  # it changes no convolution
    ],
)
def test_the_command_takes_the_requested_pass(files, options, expected):
    model, data, folder = files
    assert main(["quantize", model, "-o", str(folder / "o.onnx"), "--data", data, *options]) == 0
    assert last_pass(folder / "o.onnx") == expected


@pytest.mark.parametrize("bits", ["4", "8"])
def test_the_command_stores_only_weights_in_few_bits(tmp_path, bits):
    model = transformer_block().save(tmp_path / "float.onnx")
    out = tmp_path / "o.onnx"
    arguments = ["quantize", str(model), "-o", str(out), "--mode", "weights", "--bits", bits]
    assert main(arguments) == 0
    made = Model.load(out)
    assert made.lineage[-1].pass_name == "quantize-weights"
    assert any(node.op_type == "MatMulNBits" for node in made.nodes())


def test_a_model_without_layers_is_refused_though_it_ends_in_scores():
    """As scikit-learn's columns that are joined, and classified by an operator of its own."""
    model = model_of(
        """(float[N,2] a, float[N,2] b) => (float[N,4] y) <int64[2] shape = {-1, 2}> {
            s = ai.onnx.ml.Scaler <offset=[0.5, 0.1], scale=[2.0, 3.0]> (a)
            r = Reshape (s, shape)  y = Concat <axis=1> (r, b) }""",
        imports=', "ai.onnx.ml": 1',
    )
    rng = np.random.default_rng(0)
    rows = {name: rng.normal(size=(64, 2)).astype(np.float32) for name in "ab"}
    with pytest.raises(InputError, match="has nothing to quantize"):
        QuantizeAuto(data=Dataset.of_arrays(rows))(model, Context())


@pytest.mark.parametrize("make", [depthwise, transformer_block])
def test_a_pattern_of_exclude_that_no_node_has_ends_it_at_once(make):
    model = make()
    with pytest.raises(OptionError, match="matches no node: 'hed'"):
        QuantizeAuto(data=normal(model, rows=8), exclude=("hed",))(model, VNNI)


@pytest.mark.parametrize(("rows", "said"), [(1, "(none held out)"), (3, "3 rows (1 held out)")])
def test_a_row_that_calibrates_is_not_called_held_out(rows, said, tmp_path, capsys):
    data = np.random.default_rng(0).normal(size=(rows, 8)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=data)
    model = "(float[n,8] x) => (float[n,8] y) <float[8,8] w> { y = MatMul (x, w) }"
    source = str(model_of(model).save(tmp_path / "m.onnx"))
    out = ["-o", str(tmp_path / "o.onnx"), "--data", str(tmp_path / "d.npz"), "--keep"]
    assert main(["quantize", source, *out]) == 0
    assert said in capsys.readouterr().out.partition("\n")[0]
