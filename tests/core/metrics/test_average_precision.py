"""Average precision: that of pycocotools, on drawn boxes and on a detector's pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from shared_data import shared

from trimtab.core.context import Context
from trimtab.core.data import Array
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, OptionError
from trimtab.core.metric import evaluate
from trimtab.core.metrics.average_precision import (
    LEAST_SCORE,
    DetectionReader,
    average_precision,
    matches,
)
from trimtab.core.metrics.detections import Detections
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig
from trimtab.core.runner import run_here
from trimtab.passes.pruning.magnitude import PruneMagnitude


def pictures(seed: int, spread: float) -> list[Detections]:
    """Return objects, or detections that differ from them by `spread` pixels."""
    rng = np.random.default_rng(seed)
    made = []
    for picture in range(12):
        base = np.random.default_rng(picture)
        count = int(base.integers(0, 9))
        corner, size = base.uniform(0, 300, (count, 2)), base.uniform(10, 90, (count, 2))
        boxes = np.concatenate([corner, corner + size], 1) + rng.normal(0, spread, (count, 4))
        kinds = base.integers(0, 3, count)
        if spread:
            boxes = np.concatenate([boxes, boxes[: count // 2] + 30])
            kinds = np.concatenate([kinds, kinds[: count // 2]])
        scores = np.sort(rng.random(len(boxes)))[::-1]
        made.append(Detections(boxes, kinds, scores))
    return made


def coco_values(truth: list[Detections], found: list[Detections]) -> Any:
    """Return AP at ten overlaps and at 0.5, as pycocotools computes them."""
    coco = pytest.importorskip("pycocotools.coco")
    evaluator = pytest.importorskip("pycocotools.cocoeval")

    def rows(sets: list[Detections], *, scored: bool) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = []
        for image, one in enumerate(sets, 1):
            for (x, y, right, low), kind, score in zip(
                one.boxes, one.classes, one.scores, strict=True
            ):
                box = [x, y, right - x, low - y]
                row = {"image_id": image, "category_id": int(kind) + 1, "bbox": box}
                extra = {"score": float(score)} if scored else {"iscrowd": 0}
                made.append({**row, **extra, "id": len(made) + 1, "area": box[2] * box[3]})
        return made

    base = coco.COCO()
    base.dataset = {
        "images": [{"id": i + 1} for i in range(len(truth))],
        "categories": [{"id": k + 1} for k in range(80)],
        "annotations": rows(truth, scored=False),
    }
    base.createIndex()
    judge = evaluator.COCOeval(base, base.loadRes(rows(found, scored=True)), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return judge.stats[:2]


def test_average_precision_equals_pycocotools() -> None:
    truth, found = pictures(0, 0.0), pictures(1, 4.0)
    mine = [matches(a, b) for a, b in zip(truth, found, strict=True)]
    expected = coco_values(truth, found)
    values = [average_precision(mine, overlap) for overlap in (None, 0.5)]
    assert values == pytest.approx(expected, abs=1e-6)
    assert 0.05 < expected[0] < 0.95


@pytest.mark.slow
def test_average_precision_of_a_detector_on_pictures_equals_pycocotools() -> None:
    """The truth is what the float model finds; the candidate has lost a tenth of its weights."""
    pytest.importorskip("PIL")
    model = Model.load(shared("data/real/yolox_nano.onnx"))
    options = "?resize=letterbox-corner:416&colour=bgr&scale=1"
    data = Dataset.open(f"{shared('data/real/pictures')}{options}", batch=1).bind(model).take(20)
    candidate = PruneMagnitude(sparsity=0.1)(model, Context())
    seen = [outputs for _, outputs in run_here(model, data, SessionConfig(threads=2))]
    reader = DetectionReader.of(model, seen)

    def read(outputs: Iterable[Mapping[str, Array]], confidence: float) -> list[Detections]:
        parts = (reader.read(o, confidence=confidence, overlap=0.65) for o in outputs)
        return [picture for part in parts for picture in part]

    truth = read(seen, 0.3)
    got = (outputs for _, outputs in run_here(candidate, data, SessionConfig(threads=2)))
    expected = coco_values(truth, read(got, LEAST_SCORE))
    labels = np.full((len(truth), max(len(t.boxes) for t in truth), 5), -1.0)
    for row, objects in zip(labels, truth, strict=True):
        row[: len(objects.boxes)] = np.column_stack([objects.classes, objects.boxes])
    feeds = np.concatenate([batch.feeds["images"] for batch in data])
    labelled = Dataset.of_arrays({"images": feeds}, labels, batch=1)
    values = [evaluate(candidate, labelled, name).value for name in ("map", "map50")]
    assert values == pytest.approx(expected, abs=1e-6)
    assert 0.1 < values[0] < 0.95


def test_average_precision_by_hand() -> None:
    box, far = np.array([[0.0, 0, 10, 10]]), np.array([[90.0, 90, 99, 99]])
    truth = Detections(np.concatenate([box, far]), np.array([0, 0]), np.ones(2))
    one = Detections(box, np.array([0]), np.array([0.9]))
    # one of two objects, without a mistake: precision 1 up to recall 0.5, that is 51 of 101 points
    assert average_precision([matches(truth, one)], None) == pytest.approx(51 / 101)


def test_detections_of_a_class_that_a_picture_lacks_are_false_ones() -> None:
    nothing = Detections(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))
    one = Detections(np.array([[0.0, 0, 4, 4]]), np.array([3]), np.array([0.9]))
    assert not matches(nothing, one)[3].hits.any()
    assert matches(one, nothing)[3].objects == 1


def pair_of(boxes: Array, scores: Array) -> tuple[Model, Dataset, Array]:
    """Return a model that gives boxes and scores of a picture, data, and one object in pixels."""
    x = ir.val("x", ir.DataType.FLOAT, ir.Shape(["n", 3, 64, 128]))
    zero = ir.val("zero", const_value=ir.tensor(np.zeros(1, np.float32), name="zero"))
    axes = ir.val("axes", const_value=ir.tensor(np.array([1, 2, 3]), name="axes"))
    one = ir.val("one", const_value=ir.tensor(np.array([1]), name="one"))
    mean = ir.node("ReduceMean", [x, axes])
    nothing = ir.node("Mul", [mean.outputs[0], zero])
    column = ir.node("Squeeze", [nothing.outputs[0], one])
    known = [zero, axes, one]
    nodes = [mean, nothing, column]
    for name, array in (("scores", scores), ("boxes", boxes)):
        constant = ir.val(f"c_{name}", const_value=ir.tensor(array, name=f"c_{name}"))
        out = ir.val(name, ir.DataType.FLOAT, ir.Shape(["n", *array.shape[1:]]))
        nodes.append(ir.node("Add", [constant, column.outputs[0]], outputs=[out]))
        known.append(constant)
    outputs = [node.outputs[0] for node in nodes[-2:]]
    graph = ir.Graph(
        [x], outputs, nodes=nodes, initializers=known, name="g", opset_imports={"": 18}
    )
    labels = np.array([[[0, 16.0, 8, 48, 40]]] * 2)
    data = Dataset.of_arrays({"x": np.ones((2, 3, 64, 128), np.float32)}, labels)
    return Model(ir.Model(graph, ir_version=8)), data, labels


def ssd() -> tuple[Array, Array]:
    """Return boxes as parts of the sides, and scores of which the first is that of nothing."""
    boxes = np.tile(np.array([0.6, 0.6, 0.7, 0.7], np.float32), (1, 20, 1))
    boxes[:, 3] = [16 / 128, 8 / 64, 48 / 128, 40 / 64]
    scores = np.tile(np.array([0.97, 0.02, 0.01], np.float32), (1, 20, 1))
    scores[:, 3] = [0.05, 0.9, 0.05]
    return boxes, scores


def test_boxes_in_parts_of_the_sides_beside_scores_of_nothing_are_read() -> None:
    model, data, _ = pair_of(*ssd())
    assert evaluate(model, data, "map").value == pytest.approx(1)
    assert evaluate(model, data, "map:head=ssd").value == pytest.approx(1)
    assert evaluate(model, data, "found_again", reference=model).value == 1


def test_object_of_a_class_that_the_model_lacks_is_named() -> None:
    model, _, labels = pair_of(*ssd())
    labels[1, 0, 0] = 2
    data = Dataset.of_arrays({"x": np.ones((2, 3, 64, 128), np.float32)}, labels)
    with pytest.raises(DataError, match="hold class 2, the model has classes 0 to 1"):
        evaluate(model, data, "map")


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("yolox", "it has 20 boxes, and a picture of 168 cells; it looks like"),
        ("yolov8", "no area"),
    ],
)
def test_head_that_the_output_is_not_of_is_refused(head: str, message: str) -> None:
    boxes, scores = ssd()
    boxes[:, 3] = [0.1, 0.1, -0.3, 0.5]
    model, data, _ = pair_of(boxes, scores)
    with pytest.raises(OptionError, match=message):
        evaluate(model, data, f"map:head={head}")
