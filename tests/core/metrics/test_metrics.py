"""Built-in metrics: known values by hand, and those of the reference libraries where installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from trimtab.core.data import Array
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, OptionError
from trimtab.core.metric import METRICS, evaluate
from trimtab.core.metrics.classification import area_under_roc
from trimtab.core.metrics.metric import Metric, Quality
from trimtab.core.model import Model

RNG = np.random.default_rng(3)


def identity(array: Array, **metadata: str) -> Model:
    """Return a model whose output `y` is its input `x`."""
    kind, shape = ir.DataType.from_numpy(array.dtype), ir.Shape(["n", *array.shape[1:]])
    value = ir.val("x", kind, shape)
    node = ir.node("Identity", [value], outputs=[ir.val("y", kind, shape)])
    graph = ir.Graph([value], node.outputs, nodes=[node], name="g", opset_imports={"": 17})
    model = ir.Model(graph, ir_version=8)
    model.metadata_props.update(metadata)
    return Model(model)


def value(metric: str | Metric, outputs: Array, labels: Any, **metadata: str) -> Quality:
    """Return a metric of outputs and labels."""
    data = Dataset.of_arrays({"x": outputs}, labels, batch=3)
    return evaluate(identity(outputs, **metadata), data, metric)


def test_numbers_by_hand() -> None:
    mine, truth = np.array([[1.0, 2], [3, 4]], np.float32), np.array([[1.0, 4], [3, 5]], np.float32)
    assert value("mae", mine, truth).value == pytest.approx(0.75)
    assert value("neg_mse", mine, truth).value == pytest.approx(-1.25)
    assert value("pearson", mine, truth).value == pytest.approx(
        np.corrcoef(mine.ravel(), truth.ravel())[0, 1]
    )
    assert value("spearman", mine, 10 * mine**3).value == pytest.approx(1)
    assert value("psnr", mine / 10, (mine + 0.5) / 10).value == pytest.approx(
        10 * np.log10(1 / 0.05**2), rel=1e-5
    )


def test_si_snr_ignores_loudness() -> None:
    truth = RNG.normal(size=(3, 800)).astype(np.float32)
    noise = RNG.normal(size=(3, 800)).astype(np.float32)
    found = [value("si_snr", k * (truth + 0.1 * noise), truth).value for k in (1, 7)]
    assert found[0] == pytest.approx(20, abs=1)
    assert found[1] == pytest.approx(found[0], abs=1e-3)


def test_f1_and_auc_equal_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    scores = RNG.random((60, 4)).astype(np.float32)
    scores /= scores.sum(1, keepdims=True)
    labels = RNG.integers(0, 4, 60)
    assert value("f1", scores, labels).value == pytest.approx(
        sklearn.f1_score(labels, scores.argmax(1), average="macro"), abs=1e-6
    )
    expected = np.mean([sklearn.roc_auc_score(labels == k, scores[:, k]) for k in range(4)])
    assert value("auc", scores, labels).value == pytest.approx(expected, abs=1e-6)
    one, flags = np.round(scores[:, :1], 1), (labels > 1).astype(np.int64)
    assert value("auc", one, flags).value == pytest.approx(
        sklearn.roc_auc_score(flags, one[:, 0]), abs=1e-6
    )


def test_area_is_the_part_of_pairs_in_order() -> None:
    assert area_under_roc(np.array([0.1, 0.4, 0.35, 0.8]), [0, 0, 1, 1]) == pytest.approx(0.75)
    with pytest.raises(DataError, match="all alike"):
        area_under_roc(np.array([0.1, 0.4]), [1, 1])


def test_miou_pools_over_pictures_and_ignores_255() -> None:
    scores = np.zeros((2, 2, 1, 4), np.float32)
    scores[0, 1, 0] = [1, 1, -1, -1]
    scores[1, 1, 0] = [-1, -1, -1, -1]
    labels = np.array([[[1, 0, 0, 255]], [[0, 0, 0, 1]]])
    # class 0: 4 of 6; class 1: 1 of 3
    found = value("miou", scores, labels)
    assert found.value == pytest.approx((4 / 6 + 1 / 3) / 2)
    assert found.standard_error is not None


def lines(*texts: str, alphabet: str = "abc def") -> Array:
    """Return the outputs of a recogniser that reads these texts."""
    made = np.zeros((len(texts), 24, len(alphabet) + 1), np.float32)
    made[..., 0] = 0.5
    for row, text in enumerate(texts):
        for place, letter in enumerate(text):
            made[row, 2 * place, alphabet.index(letter) + 1] = 1
    return made


ALPHABET = "\n".join("abc def")


def test_lines_equal_jiwer() -> None:
    jiwer = pytest.importorskip("jiwer")
    read, truth = ["abc def", "add a", "bad"], ["abc fed", "add a b", "bad"]
    labels = np.array(truth)
    for name in ("cer", "wer"):
        expected = getattr(jiwer, name)(truth, read)
        found = value(name, lines(*read), labels, character=ALPHABET)
        assert found.value == pytest.approx(expected, abs=1e-6)


def test_lines_by_hand(tmp_path: Path) -> None:
    read, labels = lines("abc", "dead"), np.array(["abd", "dead"])
    assert value("cer", read, labels, character=ALPHABET).value == pytest.approx(1 / 7)
    assert value("wer", read, labels, character=ALPHABET).value == pytest.approx(1 / 2)
    exact = value("exact", read, labels, character=ALPHABET)
    assert exact.items is not None
    assert exact.items.tolist() == [0, 1]
    (tmp_path / "symbols.txt").write_text(ALPHABET)
    named = value(f"cer:alphabet={tmp_path / 'symbols.txt'}", read, labels)
    assert named.value == pytest.approx(1 / 7)
    with pytest.raises(OptionError, match="no alphabet"):
        value("cer", read, labels)


def test_rate_of_errors_falls_when_it_drops() -> None:
    labels = np.array(["abc", "dead"])
    good = value("cer", lines("abc", "dead"), labels, character=ALPHABET)
    bad = value("cer", lines("abd", "dead"), labels, character=ALPHABET)
    assert bad.drop_from(good)[0] == pytest.approx(1 / 7)
    assert bad.to_json()["lower_is_better"] is True


def test_perplexity_of_uniform_guesses_is_the_number_of_tokens() -> None:
    labels = RNG.integers(0, 50, (4, 9))
    labels[:, 5:] = -100
    found = value("perplexity", np.zeros((4, 9, 50), np.float32), labels)
    assert found.value == pytest.approx(50)


def test_map_reads_boxes_beside_scores() -> None:
    raw = np.full((2, 30, 7), 0.01, np.float32)
    raw[..., :4] = RNG.uniform(10, 400, (2, 30, 4))
    raw[:, :3, 4], raw[:, :3, 6] = 0.99, 0.98
    objects = np.full((2, 4, 5), -1.0)
    for i in range(2):
        centre, size = raw[i, :3, :2], raw[i, :3, 2:4]
        objects[i, :3] = np.concatenate(
            [np.ones((3, 1)), centre - size / 2, centre + size / 2], axis=1
        )
    scored = Metric("squash", lambda o, _: o, itemwise=False)
    assert scored.by_batch is False
    kind, shape = ir.DataType.FLOAT, ir.Shape(["n", 30, 7])
    value_ = ir.val("x", kind, shape)
    middle = ir.node("Sigmoid", [value_], outputs=[ir.val("m", kind, shape)])
    zero = ir.node("Sub", [middle.outputs[0], middle.outputs[0]])
    out = ir.node("Add", [value_, zero.outputs[0]], outputs=[ir.val("y", kind, shape)])
    graph = ir.Graph(
        [value_], out.outputs, nodes=[middle, zero, out], name="g", opset_imports={"": 17}
    )
    model = Model(ir.Model(graph, ir_version=8))
    data = Dataset.of_arrays({"x": raw}, objects)
    assert evaluate(model, data, "map:head=yolov5").value > 0.99
    assert evaluate(model, data, "map50:head=yolov5").value > 0.99
    assert evaluate(model, data, "found_again", reference=model).value == 1
    with pytest.raises(OptionError, match="must be one of yolox"):
        evaluate(model, data, "map:head=yolo99")


def test_head_that_does_not_fit_says_what_it_saw() -> None:
    data = Dataset.of_arrays({"x": np.zeros((4, 9), np.float32)}, np.zeros((4, 1, 5)))
    with pytest.raises(OptionError, match=r"its outputs are y \[4, 9\]"):
        evaluate(identity(np.zeros((4, 9), np.float32)), data, "map")


def ragged_judge(outputs: Mapping[str, Any], labels: Any) -> float:
    """Return 1 where outputs of unlike lengths come as a list."""
    assert isinstance(outputs["y"], list)
    return float(len(outputs["y"]) == len(labels))


def test_outputs_of_unlike_lengths_come_as_a_list() -> None:
    rows = [({"x": np.zeros((1, n), np.float32)}, np.array([n])) for n in (3, 5, 4)]
    data = Dataset.of_batches(lambda: iter(rows))
    kind, shape = ir.DataType.FLOAT, ir.Shape(["n", "m"])
    value_ = ir.val("x", kind, shape)
    node = ir.node("Identity", [value_], outputs=[ir.val("y", kind, shape)])
    graph = ir.Graph([value_], node.outputs, nodes=[node], name="g", opset_imports={"": 17})
    model = Model(ir.Model(graph, ir_version=8))
    metric = Metric("mine", ragged_judge, itemwise=False)
    assert evaluate(model, data, metric).value == 1.0


def test_wrong_signature_says_what_the_metric_was_called_with() -> None:
    metric = Metric("mine", lambda outputs: 1.0, itemwise=False)  # type: ignore[arg-type,misc]
    with pytest.raises(OptionError, match=r"y: float32\[4, 9\].* int64\[4\] as labels"):
        value(metric, np.zeros((4, 9), np.float32), np.zeros(4, np.int64))


def test_option_restricts_a_metric_to_one_output() -> None:
    scores = RNG.random((6, 4)).astype(np.float32)
    assert value("top1:output=y", scores, scores.argmax(1)).value == 1
    with pytest.raises(OptionError, match="unknown output 'z'"):
        value("top1:output=z", scores, scores.argmax(1))
    with pytest.raises(OptionError, match="unknown option 'hed'"):
        value("map:hed=yolox", scores, scores.argmax(1))


def test_every_metric_says_what_it_needs() -> None:
    assert all(metric.needs for metric in METRICS.values())
    assert {"map", "miou", "cer", "wer", "exact", "f1", "auc", "si_snr", "psnr"} <= set(METRICS)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("cosine", [1.0, 0.0]),
        ("neg_mse", [0.0, -4.0]),
        ("mae", [0.0, 2.0]),
        ("psnr", [100.0, -10 * np.log10(4.0)]),
    ],
)
@pytest.mark.parametrize("names", [("steady", "fragile"), ("p", "q")])
def test_of_several_outputs_the_worst_of_each_item_counts_against_a_reference(
    metric: str, expected: list[float], names: tuple[str, str]
) -> None:
    truth = {
        "steady": np.ones((2, 3), np.float32),
        "fragile": np.array([[0, 0], [2, 0]], np.float32),  # zeros that stay zeros are no loss
    }
    mine = {names[0]: truth["steady"], names[1]: np.array([[0, 0], [0, 2]], np.float32)}
    if metric == "mae":
        mine[names[1]] = np.array([[0, 0], [4, 2]], np.float32)
    np.testing.assert_allclose(METRICS[metric].score(mine, truth), expected, atol=1e-6)


def test_an_output_without_a_row_for_each_item_counts_for_all_and_integers_do_not() -> None:
    truth = {
        "y": np.ones((3, 2), np.float32),
        "scalar": np.float32(4),
        "count": np.array([3]),
    }
    mine = {"y": truth["y"], "scalar": np.float32(3), "count": np.array([9])}
    assert METRICS["mae"].score(mine, truth).tolist() == [1.0, 1.0, 1.0]


def test_labels_are_compared_with_the_first_output_alone() -> None:
    mine = {"y": np.zeros((2, 2), np.float32), "other": np.full((2, 9), 7, np.float32)}
    assert METRICS["mae"].score(mine, np.ones((2, 2))).tolist() == [1.0, 1.0]


def test_two_vectors_of_zeros_are_the_same_and_one_is_not_like_another() -> None:
    rows = np.array([[0, 0], [3, 4], [0, 0]], np.float32)
    data = Dataset.of_arrays({"x": rows}, batch=3)
    same, other = identity(rows), identity(rows)
    found = evaluate(same, data, "cosine", reference=other)
    assert found.value == 1
    shifted = METRICS["cosine"].score({"y": rows}, {"y": rows + 1})
    assert shifted == pytest.approx([0, 32 / (5 * 41**0.5), 0])
