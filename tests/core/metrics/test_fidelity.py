"""Fidelity: what a candidate keeps of the float model's answers, output by output."""

from __future__ import annotations

from collections.abc import Callable

import graphs
import numpy as np
import onnx_ir as ir
import pytest

from trimtab.core.data import Array
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError
from trimtab.core.metric import evaluate, find_metric, fitted
from trimtab.core.metrics.detections import Detections, found_again
from trimtab.core.metrics.fidelity import collapsed, edits, fidelity_of
from trimtab.core.metrics.metric import Pooled
from trimtab.core.metrics.recognition import output_kinds
from trimtab.core.model import Model

RNG = np.random.default_rng(0)
START = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    """Draw the same numbers in each test, whichever ran before it."""
    RNG.bit_generator.state = START


def model_of(**outputs: Array) -> Model:
    """Return a model that returns its inputs `x_NAME`, of which those named score are squashed."""
    inputs, results, nodes = [], [], []
    for name, array in outputs.items():
        kind = ir.DataType.from_numpy(array.dtype)
        shape = ir.Shape(["n", *array.shape[1:]])
        value = ir.val(f"x_{name}", kind, shape)
        op = "Sigmoid" if name == "squashed" else "Identity"
        node = ir.node(op, [value], outputs=[ir.val(name, kind, shape)])
        inputs.append(value)
        results.append(node.outputs[0])
        nodes.append(node)
    graph = ir.Graph(inputs, results, nodes=nodes, name="g", opset_imports={"": 17})
    return Model(ir.Model(graph, ir_version=8))


def judged(truth: dict[str, Array], mine: dict[str, Array]) -> Pooled:
    """Return the fidelity of outputs to others."""
    metric = fidelity_of(model_of(**truth), [truth])
    assert metric.finish is not None
    return metric.finish([metric.score(mine, truth)])


def probabilities(*shape: int) -> Array:
    """Return probabilities along the last axis."""
    raw = np.exp(6 * RNG.normal(size=shape))
    return (raw / raw.sum(-1, keepdims=True)).astype(np.float32)


def test_kind_follows_the_values_of_the_float_model() -> None:
    logits = np.zeros((8, 10), np.float32)
    logits[np.arange(8), RNG.integers(0, 10, 8)] = 9
    unit = RNG.normal(size=(8, 32)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    mask = probabilities(8, 6, 6, 3).transpose(0, 3, 1, 2)
    lines = np.zeros((4, 20, 30), np.float32)
    lines[:, :, 0] = 1
    lines[:, ::3] = probabilities(4, 7, 30)
    values = {
        "integers": RNG.integers(0, 9, (8,)),
        "class": probabilities(8, 5),
        "logits": logits,
        "unit": unit,
        "mask": mask,
        "lines": lines,
        "scores": RNG.random((8, 40)).astype(np.float32),
        "waves": RNG.normal(size=(8, 400)).astype(np.float32),
    }
    found = {n: k.kind for n, k in output_kinds(model_of(**values), [values]).items()}
    assert found == {
        "integers": "integers",
        "class": "class",
        "logits": "class",
        "unit": "embedding",
        "mask": "classes",
        "lines": "sequence",
        "scores": "scores",
        "waves": "signal",
    }


def test_numbers_of_few_columns_are_a_signal_where_the_largest_is_no_decision() -> None:
    spread = RNG.normal(size=(40, 4)).astype(np.float32)
    logits = 6 * spread
    values = {
        "sides_of_a_box": spread / 5,
        "marks": np.array([3.2, 4.1, 2.9], np.float32) + spread[:, :3] / 10,
        "logits": logits,
        "logits_of_few_items": logits[:4],
    }
    kinds = {n: output_kinds(model_of(y=v), [{"y": v}])["y"].kind for n, v in values.items()}
    assert kinds == {
        "sides_of_a_box": "numbers",
        "marks": "numbers",
        "logits": "class",
        "logits_of_few_items": "class",
    }


def test_what_an_activation_made_or_a_layer_reads_is_no_decision() -> None:
    """As the features beside the one score that is made of them."""
    model = graphs.model_of("""(float[N,32] x) => (float[N,32] logits, float[N,32] z, float[N,32] r,
        float[N,32] s) <float[32,32] w> {
        logits = Identity (x) z = Identity (x) r = Relu (x) s = MatMul (z, w) }""")
    peaks = 0.1 * RNG.standard_normal((40, 32)).astype(np.float32)
    peaks[np.arange(40), RNG.integers(0, 32, 40)] += 8
    kinds = output_kinds(model, [dict.fromkeys(("logits", "z", "r", "s"), peaks)])
    assert {name: kind.kind for name, kind in kinds.items()} == {
        "logits": "class",
        "z": "signal",
        "r": "signal",
        "s": "class",
    }


@pytest.mark.parametrize(("squashed", "kind"), [(False, "numbers"), (True, "scores")])
def test_landmarks_within_one_are_scores_only_where_something_bounds_them(
    squashed: bool, kind: str
) -> None:
    x = ir.val("x", ir.DataType.FLOAT, ir.Shape(["n", 3]))
    weight = ir.val("w", const_value=ir.tensor(np.eye(3, 10, dtype=np.float32), name="w"))
    product = ir.node("MatMul", [x, weight])
    last = ir.node("Sigmoid" if squashed else "Identity", product.outputs)
    last.outputs[0].name = "y"
    graph = ir.Graph(
        [x], last.outputs, nodes=[product, last], initializers=[weight], opset_imports={"": 17}
    )
    found = {"y": RNG.random((40, 10)).astype(np.float32)}
    assert output_kinds(Model(ir.Model(graph, ir_version=8)), [found])["y"].kind == kind


def test_numbers_are_compared_with_their_spread_and_not_with_their_mean() -> None:
    marks = (np.array([100, 3, 5]) + RNG.normal(size=(400, 3))).astype(np.float32)
    marks[:, 2] = 5  # the same for all
    noise = RNG.normal(size=marks.shape) * [0.3, 0.3, 0]
    assert judged({"y": marks}, {"y": marks}).value == 1
    lost = 0.3**2 * 2 / 3
    assert judged({"y": marks}, {"y": marks + noise}).value == pytest.approx(1 - lost, abs=0.01)
    constant = np.repeat(marks[:1], len(marks), axis=0)
    assert judged({"y": marks[:, :2]}, {"y": constant[:, :2]}).value == 0
    ages = marks[:, 0]  # (N,): an output without a second axis
    assert judged({"y": ages}, {"y": ages + noise[:, 0]}).value == pytest.approx(0.91, abs=0.02)


def spelled(*lines: list[int], symbols: int = 12) -> Array:
    """Return logits (N, time, symbols) that are sure of these symbols; 0 is the blank."""
    raw = RNG.normal(size=(len(lines), len(lines[0]), symbols)).astype(np.float32)
    np.put_along_axis(raw, np.array(lines)[..., None], np.float32(9), 2)
    return raw


@pytest.mark.parametrize("time_major", [False, True], ids=["item first", "time first"])
@pytest.mark.parametrize("exact", [False, True], ids=["logits", "probabilities"])
def test_lines_are_read_from_logits_and_with_time_first(time_major: bool, exact: bool) -> None:
    truth = spelled([0, 3, 3, 0, 5, 0, 0, 7, 0])
    same = spelled([3, 3, 0, 0, 5, 5, 0, 7, 0])  # aligned otherwise, it reads the same
    other = spelled([0, 3, 3, 0, 5, 0, 0, 8, 0])

    def laid(array: Array) -> Array:
        array = np.exp(array) / np.exp(array).sum(2, keepdims=True) if exact else array
        return array.swapaxes(0, 1) if time_major else array

    assert judged({"y": laid(truth)}, {"y": laid(same)}).value == 1
    assert judged({"y": laid(truth)}, {"y": laid(other)}).value == 0


@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("kind", ["lines", "states"])
def test_items_are_those_of_the_axis_that_is_named_as_the_first_of_an_input(
    kind: str, rows: int
) -> None:
    """Recurrent networks give (time, N, symbols) and (layers, N, features), of many rows."""
    model = graphs.model_of(
        "(float[N,9,10] x) => (float[9,N,10] y) { y = Transpose<perm=[1, 0, 2]>(x) }"
    )
    lines = [[0, 3, 3, 0, 5, 0, 0, 7, 0], [2, 2, 0, 0, 4, 1, 0, 0, 0], [9, 0, 0, 6, 0, 0, 8, 0, 1]]
    read = spelled(*(lines * 2)[:rows])
    truth = read if kind == "lines" else RNG.normal(size=read.shape).astype(np.float32)
    wrong = truth.copy()
    wrong[-1] = wrong[-1][::-1]  # the last line alone is read from behind
    metric = fidelity_of(model, [{"y": truth.swapaxes(0, 1)}])
    assert metric.finish is not None

    def kept(array: Array) -> Pooled:
        score = metric.score({"y": array.swapaxes(0, 1)}, {"y": truth.swapaxes(0, 1)})
        return metric.finish([score])  # type: ignore[misc]  # asserted above

    assert kept(truth).value == 1
    found = kept(wrong)
    assert np.shape(found.items) == (rows,)
    if kind == "lines":
        assert found.value == pytest.approx(1 - 1 / rows)


def test_features_and_bins_of_boxes_are_not_read_as_lines() -> None:
    values = {
        "features": RNG.normal(size=(2, 40, 32)).astype(np.float32),
        "bins": (4 * RNG.normal(size=(1, 300, 32))).astype(np.float32),
    }
    values["bins"][..., ::8] += 6  # the first bin of each side is the likeliest
    assert {k.kind for k in output_kinds(model_of(**values), [values]).values()} == {"signal"}


def test_worst_output_counts_and_is_named() -> None:
    truth = {"a": probabilities(10, 5), "b": RNG.normal(size=(10, 50)).astype(np.float32)}
    mine = {"a": truth["a"], "b": truth["b"] * np.float32(0.7)}
    found = judged(truth, mine)
    assert found.value == pytest.approx(0.7, abs=1e-6)
    assert [(o.name, round(o.value, 4)) for o in found.outputs] == [("a", 1.0), ("b", 0.7)]


def test_class_is_the_share_of_equal_decisions() -> None:
    truth = probabilities(8, 4)
    mine = truth.copy()
    mine[:2] = np.roll(truth[:2], 1, axis=1)
    found = judged({"y": truth}, {"y": mine})
    assert found.value == pytest.approx(6 / 8)
    assert found.items.tolist() == [0, 0, 1, 1, 1, 1, 1, 1]


def test_error_of_a_signal_is_pooled_so_that_silence_does_not_dominate() -> None:
    truth = RNG.normal(size=(10, 100)).astype(np.float32)
    truth[0] = 1e-4 * truth[0]
    mine = truth.copy()
    mine[0] = -truth[0]  # all wrong, and not to be heard
    found = judged({"y": truth}, {"y": mine})
    assert found.value > 0.999


def test_items_of_a_pooled_value_have_it_as_their_mean() -> None:
    truth = {"y": (RNG.random((12, 30)) ** 4).astype(np.float32)}
    found = judged(truth, {"y": np.clip(truth["y"] + 0.2 * RNG.random((12, 30)), 0, 1)})
    assert 0.2 < found.value < 0.98
    assert found.items.mean() == pytest.approx(found.value)


def test_scores_are_f1_of_the_entries_above_the_thresholds() -> None:
    truth = np.array([[0.9, 0.1, 0.4, 0.0]], np.float32)
    mine = np.array([[0.9, 0.6, 0.2, 0.0]], np.float32)
    # above 0.3: {0, 2} and {0, 1}; above 0.5: {0} and {0, 1}, of which less is lost
    assert judged({"y": truth}, {"y": mine}).value == pytest.approx(2 / 4)


def test_gains_of_frames_are_a_signal_and_notes_are_scores() -> None:
    gains = RNG.random((4, 1, 64)).astype(np.float32)
    notes = np.where(RNG.random((4, 20, 30)) > 0.9, 0.9, 0.02).astype(np.float32)
    values = {"gains": gains, "notes": notes}
    found = {n: k.kind for n, k in output_kinds(model_of(**values), [values]).items()}
    assert found == {"gains": "signal", "notes": "scores"}
    assert judged({"y": gains}, {"y": gains * np.float32(0.9)}).value == pytest.approx(0.9)


def test_scores_of_nothing_are_kept_where_nothing_is_found() -> None:
    truth = np.full((3, 9), 0.01, np.float32)
    assert judged({"squashed": truth}, {"squashed": truth}).value == 1
    assert judged({"squashed": truth}, {"squashed": truth + np.float32(0.9)}).value == 0


def test_output_without_rows_counts_for_nothing() -> None:
    empty = np.zeros((0, 8), np.float32)
    whole = np.full((3, 9), 0.9, np.float32)
    truth = {"squashed": whole, "none": empty}
    assert judged(truth, truth).value == 1
    assert judged(truth, {"squashed": -whole, "none": empty}).value == 0


def test_batches_of_unlike_numbers_of_rows_are_judged_together() -> None:
    some, none = np.full((3, 9), 0.9, np.float32), np.zeros((0, 9), np.float32)
    metric = fidelity_of(model_of(squashed=some), [{"squashed": some}])
    assert metric.finish is not None
    batches = [(some, some), (none, none), (some[:2], some), (some, -some)]
    scored = [metric.score({"squashed": a}, {"squashed": b}) for a, b in batches]
    assert metric.finish(scored[:2]).value == 1
    assert 0 < metric.finish(scored).value < 1


def test_boxes_with_an_angle_are_detections() -> None:
    raw = np.full((2, 40, 7), 0.5, np.float32)
    raw[..., :5] = np.random.default_rng(1).uniform(20, 600, (2, 40, 5))
    found = judged({"squashed": raw}, {"squashed": raw + np.float32([1, 1, 1, 1, 1, 0, 0])})
    assert found.outputs[0].kind.startswith("boxes and scores")
    assert found.value == 1


def test_detections_are_found_again_or_lost() -> None:
    """Boxes of pixels beside scores: a small average error may lose every object."""
    raw = np.zeros((2, 40, 8), np.float32)
    raw[..., :2], raw[..., 2:4] = RNG.uniform(50, 600, (2, 40, 2)), RNG.uniform(20, 80, (2, 40, 2))
    raw[..., 4:] = 0.01
    raw[:, :6, 4], raw[:, :6, 6] = 0.95, 0.9
    truth = {"squashed": raw}
    quiet = raw.copy()
    quiet[:, :6, 4] = 0.02  # all objects gone, while the boxes are exact
    found = judged(truth, {"squashed": quiet})
    assert found.outputs[0].kind.startswith("boxes and scores")
    assert found.value == 0
    near = raw.copy()
    near[..., :4] += 1
    assert judged(truth, {"squashed": near}).value == 1
    assert found.outputs[0].loss > 0.1


def mask_logits(classes: int, scale: float = 6) -> Array:
    """Return logits (4, classes, 24, 24), the classes in blocks."""
    chosen = RNG.integers(0, classes, (4, 6, 6)).repeat(4, 1).repeat(4, 2)
    hot = np.moveaxis(np.eye(classes)[chosen], 3, 1) - 0.5
    return (scale * hot + RNG.normal(size=hot.shape)).astype(np.float32)


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (lambda: mask_logits(19), "classes"),
        (lambda: mask_logits(2), "classes"),
        (lambda: np.moveaxis(mask_logits(5), 1, 3), "classes"),
        (lambda: RNG.uniform(0, 255, (4, 3, 24, 24)), "signal"),  # a picture
        (lambda: np.tanh(3 * RNG.normal(size=(4, 3, 24, 24))), "signal"),  # one from -1 to 1
        (lambda: 9 * RNG.normal(size=(4, 2, 24, 24)), "signal"),  # a field of motion
        (lambda: 0.3 * RNG.normal(size=(4, 16, 24, 24)), "signal"),  # features
        (lambda: 9 * RNG.normal(size=(4, 1, 1, 96)), "signal"),  # features of the whole
        (lambda: 9 * RNG.normal(size=(4, 96, 1, 1)), "signal"),
    ],
)
def test_logits_of_a_mask_are_decisions_and_pictures_are_none(
    made: Callable[[], Array], kind: str
) -> None:
    array = made().astype(np.float32)
    assert output_kinds(model_of(y=array), [{"y": array}])["y"].kind == kind


@pytest.mark.parametrize(("tokens", "kind"), [(True, "classes"), (False, "signal")])
def test_logits_of_tokens_are_decisions_where_the_model_takes_text(tokens: bool, kind: str) -> None:
    names = ir.DataType.INT64 if tokens else ir.DataType.FLOAT
    x = ir.val("x", names, ir.Shape(["n", 16]))
    cast = ir.node("Cast", [x], {"to": int(ir.DataType.FLOAT)})
    y = ir.node("Unsqueeze", [cast.outputs[0], ir.val("axes")])
    y.outputs[0].name = "y"
    graph = ir.Graph([x], y.outputs, nodes=[cast, y], opset_imports={"": 17})
    logits = mask_logits(6).reshape(4, 6, -1).swapaxes(1, 2)
    found = output_kinds(Model(ir.Model(graph, ir_version=8)), [{"y": logits}])
    assert found["y"].kind == kind


def yolo(*more: Array, objects: int = 6) -> Array:
    """Return boxes, the scores of three classes, and what stands behind: (2, columns, 400)."""
    boxes = np.concatenate([RNG.uniform(50, 600, (2, 2, 400)), RNG.uniform(20, 80, (2, 2, 400))], 1)
    scores = RNG.uniform(0, 0.02, (2, 3, 400))
    scores[:, 1, :objects] = 0.9
    return np.concatenate([boxes, scores, *more], 1).astype(np.float32)


@pytest.mark.parametrize("form", ["coefficients of masks", "landmarks", "an angle"])
def test_objects_count_where_more_stands_behind_their_scores(form: str) -> None:
    more = {
        "coefficients of masks": RNG.normal(size=(2, 32, 400)),
        "landmarks": RNG.uniform(0, 640, (2, 10, 400)),
        "an angle": RNG.uniform(-0.7, 0.7, (2, 1, 400)),
    }[form]
    truth = yolo(more)
    found = judged({"squashed": truth}, {"squashed": truth})
    assert (found.value, found.outputs[0].kind[:16]) == (1, "boxes and scores")
    lost, other = truth.copy(), truth.copy()
    lost[:, 5, :6] = 0.02
    other[:, 7:, :6] += 0.5 * more.std() * RNG.normal(size=other[:, 7:, :6].shape)
    assert judged({"squashed": truth}, {"squashed": lost}).value == 0
    assert 0.1 < judged({"squashed": truth}, {"squashed": other}).value < 0.8


@pytest.mark.parametrize("classes", [1, 2, 7])
def test_the_last_column_may_be_the_number_of_the_class(classes: int) -> None:
    """Rows (left, top, right, bottom, score, class) that a graph has sorted itself."""
    corner = RNG.uniform(0, 500, (2, 60, 2))
    score = np.sort(RNG.random((2, 60, 1)) ** 6, axis=1)[:, ::-1]
    number = RNG.integers(0, classes, (2, 60, 1)).astype(float)
    number[0, 0] = classes - 1
    truth = np.concatenate([corner, corner + 60, score, number], 2).astype(np.float32)
    sorted_otherwise = truth[:, ::-1]
    assert judged({"squashed": truth}, {"squashed": sorted_otherwise}).value == 1
    wrong = truth.copy()
    wrong[..., 5] = (wrong[..., 5] + 1) % classes
    lost = truth.copy()
    lost[..., 4] /= 100
    assert judged({"squashed": truth}, {"squashed": lost}).value == 0
    if classes > 1:
        assert judged({"squashed": truth}, {"squashed": wrong}).value < 0.6


def test_line_with_an_edit_is_lost_and_a_long_one_in_part() -> None:
    assert collapsed(np.array([0, 3, 3, 0, 3, 5]), 0) == [3, 3, 5]
    assert edits("kitten", "sitting") == 3
    lines = np.zeros((2, 90, 12), np.float32)
    lines[..., 0] = 1
    for place in range(1, 81, 2):
        lines[:, place] = np.eye(12, dtype=np.float32)[1 + place // 2 % 11]
    mine = lines.copy()
    mine[0, 1] = np.eye(12, dtype=np.float32)[7]
    # 40 symbols are three parts, of which one has the edit
    assert judged({"y": lines}, {"y": mine}).value == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.parametrize(("alphabet", "kept"), [("a\nb\nc", 1.0), (None, 0.0)])
def test_spaces_of_a_recogniser_of_text_do_not_count(alphabet: str | None, kept: float) -> None:
    lines = np.eye(5, dtype=np.float32)[[[0, 1, 0, 4, 2, 0, 0, 3, 0, 0, 0, 0]]]  # "a bc"
    mine = lines.copy()
    mine[0, 3] = lines[0, 0]  # "abc"
    model = model_of(y=lines)
    if alphabet is not None:
        model.ir.metadata_props["character"] = alphabet
    metric = fidelity_of(model, [{"y": lines}])
    assert metric.finish is not None
    assert metric.finish([metric.score({"y": mine}, {"y": lines})]).value == kept


def test_detection_is_matched_once() -> None:
    box = np.array([[0.0, 0, 10, 10]])
    one = Detections(box, np.array([1]), np.array([0.9]))
    twice = Detections(np.repeat(box, 2, 0), np.array([1, 1]), np.array([0.9, 0.8]))
    other = Detections(box, np.array([2]), np.array([0.9]))
    kept, all_ = found_again([one, one, one], [one, twice, other])
    assert kept.tolist() == [2, 2, 0]
    assert all_.tolist() == [2, 3, 2]


def test_nan_of_a_candidate_is_a_loss_and_infinity_by_design_is_not() -> None:
    truth = RNG.normal(size=(4, 20)).astype(np.float32)
    truth[:, 0] = -np.inf
    broken = truth.copy()
    broken[1, 3] = np.nan
    assert judged({"y": truth}, {"y": truth}).value == 1
    assert judged({"y": truth}, {"y": broken}).value == 0


def test_evaluation_without_labels_judges_every_output() -> None:
    values = {"a": probabilities(20, 5), "b": RNG.normal(size=(20, 30)).astype(np.float32)}
    model = model_of(**values)
    data = Dataset.of_arrays({f"x_{n}": a for n, a in values.items()}, batch=8)
    quality = evaluate(model, data, reference=model)
    assert (quality.metric, quality.value, quality.count) == ("fidelity", 1.0, 20)
    assert [output["name"] for output in quality.to_json()["outputs"]] == ["a", "b"]
    assert quality.drop_from(quality) == (0.0, 0.0)


def test_error_of_an_embedding_is_squared_as_in_the_cosine() -> None:
    truth = RNG.normal(size=(20, 64))
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    mine = truth + 0.01 * RNG.normal(size=truth.shape)
    mine /= np.linalg.norm(mine, axis=1, keepdims=True)
    found = judged({"y": truth.astype(np.float32)}, {"y": mine.astype(np.float32)})
    cosine = float((truth * mine).sum(1).mean())
    assert found.value == pytest.approx(1 - 2 * (1 - cosine), abs=1e-4)


@pytest.mark.parametrize("rows", [1, 4])
def test_it_is_fitted_to_a_model_of_a_fixed_batch(rows: int) -> None:
    """As `optimize` does before the first candidate; detectors are often exported for one image."""
    model = graphs.model_of(
        f"(float[{rows},8] x) => (float[{rows},3] y) <float[8,3] w> {{ y = MatMul (x, w) }}"
    )
    x = RNG.normal(size=(42, 8)).astype(np.float32)
    data = Dataset.of_arrays({"x": x})
    metric = fitted(find_metric("fidelity", data), model, data)
    found = evaluate(model, data, metric, reference=model)
    assert (found.value, found.count) == (1.0, 42 - 42 % rows)  # without an incomplete batch
    assert evaluate(model, data, reference=model).count == found.count


def test_fewer_rows_than_a_fixed_batch_are_refused() -> None:
    model = graphs.model_of("(float[4,8] x) => (float[4,8] y) { y = Relu (x) }")
    data = Dataset.of_arrays({"x": np.zeros((3, 8), np.float32)})
    with pytest.raises(DataError, match=r"has 3 rows, and .* takes 4 at once"):
        evaluate(model, data, reference=model)


@pytest.mark.parametrize("kind", ["lines", "lines, time first", "scores", "signal", "integers"])
def test_parts_of_many_items_are_judged_as_all_of_them(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Items are judged some at a time where they are large; nothing may hang on how many."""
    rng = np.random.default_rng(3)
    truth = {
        "lines": spelled(*([0, 3, 3, 0, 5, 0, 0, 6 + i, 0] for i in range(6))),
        "scores": probabilities(6, 40),
        "signal": rng.normal(size=(6, 50)).astype(np.float32),
        "integers": rng.integers(0, 5, (6, 7)),
    }[kind.partition(",")[0]]
    mine = truth.copy()
    mine[2:4] = 0.9 * mine[1:3] if kind == "signal" else mine[1:3]
    if kind.endswith("time first"):
        truth, mine = truth.swapaxes(0, 1), mine.swapaxes(0, 1)
    whole = judged({"y": truth}, {"y": mine})
    monkeypatch.setattr("trimtab.core.metrics.fidelity.PART_ELEMENTS", 8)
    parts = judged({"y": truth}, {"y": mine})
    assert parts.value < 1
    assert parts.value == pytest.approx(whole.value)
    assert parts.items == pytest.approx(whole.items)
    assert parts.outputs[0].loss == pytest.approx(whole.outputs[0].loss)
