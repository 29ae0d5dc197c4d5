"""Detectors whose boxes and scores are outputs of their own are judged by what they find."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from trimtab.core.errors import OptionError
from trimtab.core.metrics.average_precision import DetectionReader
from trimtab.core.metrics.fidelity import fidelity_of
from trimtab.core.metrics.split_detector import JudgedOutputs
from trimtab.core.model import Model

Arrays = dict[str, np.ndarray[Any, Any]]
#: Rows, positions of the largest level, classes.
ROWS, SIDE, CLASSES = 4, 8, 3


def model_of(arrays: Mapping[str, np.ndarray[Any, Any]]) -> Model:
    """Make a model of pictures (1, 3, 64, 64) with outputs of these names, which is never run."""
    x = ir.val("x", ir.DataType.FLOAT, ir.Shape([1, 3, 64, 64]))
    nodes = [ir.node("Identity", [x], outputs=[ir.val(name, ir.DataType.FLOAT)]) for name in arrays]
    outputs = [node.outputs[0] for node in nodes]
    return Model(
        ir.Model(ir.Graph([x], outputs, nodes=nodes, opset_imports={"": 18}), ir_version=8)
    )


def kept(truth: Arrays, mine: Arrays) -> tuple[float, str]:
    """Return what fidelity says is kept, and the name of the worst output."""
    metric = fidelity_of(model_of(truth), [truth])
    found = metric.finish([metric.score(mine, truth)])
    return found.value, min(found.outputs, key=lambda output: output.value).name


def levels(*, first: bool, bins: int = 1, objectness: bool = True, decoded: bool = True) -> Arrays:
    """Make boxes, objectness and classes of two levels; one object a row, at the finer level."""
    rng, made = np.random.default_rng(0), {}
    for side in (SIDE, SIDE // 2):
        boxes = rng.uniform(0, 40, (ROWS, side, side, 4 * bins)).astype(np.float32)
        if decoded:
            boxes[..., 2:] = boxes[..., :2] + rng.uniform(4, 20, (ROWS, side, side, 2))
        sure = np.full((ROWS, side, side, 1), 0.02, np.float32)
        classes = rng.uniform(0.3, 0.9, (ROWS, side, side, CLASSES)).astype(np.float32)
        if side == SIDE:
            sure[:, 3, 3] = 0.95
            classes[:, 3, 3] = [0.05, 0.97, 0.05]
        parts = {"box": boxes, "obj": sure, "cls": classes}
        if not objectness:
            parts = {"box": boxes, "cls": classes * sure}
        for name, array in parts.items():
            shaped = np.moveaxis(array, -1, 1) if first else array.reshape(ROWS, -1, array.shape[3])
            made[f"{name}_{side}"] = np.ascontiguousarray(shaped)
    return made


def changed(arrays: Arrays, prefix: str, by: float, *, object_too: bool) -> Arrays:
    """Add to what is named so, everywhere or everywhere but where the objects are."""
    made = {name: array.copy() for name, array in arrays.items()}
    for name, array in made.items():
        if not name.startswith(prefix):
            continue
        maps = array if array.ndim == 4 else array.reshape(ROWS, -1, 1, array.shape[2])
        before = maps.copy()
        maps += np.float32(by)
        if not object_too and array.ndim == 4 and array.shape[2] == SIDE:
            maps[:, :, 3, 3] = before[:, :, 3, 3]
        if not object_too and array.ndim == 3 and array.shape[1] == SIDE * SIDE:
            maps[:, 3 * SIDE + 3] = before[:, 3 * SIDE + 3]
    return made


FORMS = [
    {"first": True},
    {"first": False},
    {"first": False, "objectness": False},
    {"first": True, "bins": 8, "objectness": False, "decoded": False},
    {"first": False, "decoded": False},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_boxes_count_where_there_is_an_object(form: dict[str, Any]) -> None:
    truth = levels(**form)
    assert kept(truth, truth)[0] == 1
    assert kept(truth, changed(truth, "box", 9, object_too=False))[0] == 1
    if "bins" not in form:  # the same added to all bins is the same distribution
        assert kept(truth, changed(truth, "box", 40, object_too=True))[0] == 0


def test_scores_may_have_their_classes_before_the_positions() -> None:
    truth = levels(first=False, objectness=False)
    turned = {n: np.moveaxis(a, 1, 2) if "cls" in n else a for n, a in truth.items()}
    assert kept(turned, turned) == (1, "box_8, cls_8 and those of 1 further level")
    assert kept(turned, changed(turned, "box", 9, object_too=False))[0] == 1


def test_outputs_without_an_axis_of_rows_are_one_picture() -> None:
    truth = {n: a[0] for n, a in levels(first=False, decoded=False).items()}
    far = {n: a + 9 if n == "box_4" else a for n, a in truth.items()}
    assert kept(truth, far) == (1, "box_8, cls_8, obj_8 and those of 1 further level")
    assert kept(truth, {n: a + 40 if n == "box_8" else a for n, a in truth.items()})[0] == 0


def test_all_levels_are_one_detector() -> None:
    truth = levels(first=True)
    name = kept(truth, truth)[1]
    assert name == "box_8, cls_8, obj_8 and those of 1 further level"
    without = changed(truth, "obj", -0.9, object_too=True)
    assert kept(truth, without) == (0, name)


def test_outputs_of_another_shape_keep_nothing() -> None:
    truth = levels(first=True)
    cut = {n: a[..., :2] if n.startswith("box_8") else a for n, a in truth.items()}
    assert kept(truth, cut)[0] == 0


def test_features_beside_scores_are_no_boxes() -> None:
    rng = np.random.default_rng(0)
    truth = {
        "features": rng.normal(size=(ROWS, 64, SIDE, SIDE)).astype(np.float32),
        "mask": rng.uniform(size=(ROWS, 1, SIDE, SIDE)).astype(np.float32),
    }
    mine = {**truth, "features": truth["features"] * np.float32(1.1)}
    assert kept(truth, mine) == (pytest.approx(0.9), "features")


def listed(count: int, *, batch: bool, whole: type = np.int64) -> Arrays:
    """Make a list of detections, the surest first; with the number of them where it is a batch."""
    rng = np.random.default_rng(count)
    corners = rng.uniform(0, 30, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 30, (count, 2))], 1)
    made = {
        "boxes": boxes.astype(np.float32),
        "scores": np.linspace(0.9, 0.4, count, dtype=np.float32),
        "labels": rng.permutation(count).astype(whole),
    }
    if batch:
        made = {name: array[None] for name, array in made.items()}
        made["count"] = np.array([count], np.float32)
    return made


@pytest.mark.parametrize("whole", [np.int64, np.float32])
def test_the_order_of_a_list_of_detections_does_not_count(whole: type) -> None:
    truth = listed(6, batch=True, whole=whole)
    order = [1, 0, 2, 4, 3, 5]
    mine = {n: a[:, order] if a.ndim > 1 else a for n, a in truth.items()}
    metric = fidelity_of(model_of(truth), [truth])
    found = metric.finish([metric.score(mine, truth)])
    assert (found.value, max(output.loss for output in found.outputs)) == (1, 0)
    assert kept(truth, {**truth, "labels": truth["labels"][:, order]})[0] == pytest.approx(2 / 6)


@pytest.mark.parametrize("labelled", [True, False])
def test_lists_of_one_picture_may_have_any_length(labelled: Any) -> None:
    truth = listed(6, batch=False)
    if not labelled:
        del truth["labels"]
        truth["boxes"] += 40 * np.arange(6, dtype=np.float32)[:, None]  # of one class, apart
    mine = {name: array[:3] for name, array in truth.items()}
    assert kept(truth, truth)[0] == 1
    assert kept(truth, mine) == (pytest.approx(2 * 3 / 9), ", ".join(truth))
    assert kept(truth, {name: array[:0] for name, array in truth.items()})[0] == 0


@pytest.mark.parametrize("order", ["lkb", "bkl", "blk", "0blk", "0lkb"])
@pytest.mark.parametrize("axes", [0, 1])
def test_rows_of_detections_are_found_again_in_any_order(order: str, axes: int) -> None:
    """Columns: b the box, k the score, l the class, 0 the number of the picture."""
    parts = listed(6, batch=False, whole=np.float32)
    known = {
        "b": parts["boxes"],
        "k": parts["scores"][:, None],
        "l": parts["labels"][:, None],
        "0": np.zeros((6, 1), np.float32),
    }
    rows = np.concatenate([known[part] for part in order], 1)
    truth = {"found": rows[(None,) * axes], "count": np.array([6], np.int64)}
    mine = {**truth, "found": truth["found"][..., [3, 1, 2, 0, 4, 5], :]}
    few = {"found": truth["found"][..., :3, :], "count": np.array([3], np.int64)}
    assert kept(truth, mine)[0] == 1
    assert kept(truth, few) == (pytest.approx(2 * 3 / 9), "found, count")


def test_average_precision_of_boxes_of_no_known_form_is_refused() -> None:
    truth = levels(first=False, decoded=False)
    boxes = {n: a - 20 if n.startswith("box") else a for n, a in truth.items()}
    reader = DetectionReader.of(model_of(boxes), [boxes])
    assert str(reader.head) == "numbers of no known form"
    from trimtab.core.metric import METRICS

    fit = METRICS["map"].fit
    assert fit is not None
    with pytest.raises(OptionError, match=r"form that is not known.*head="):
        fit(model_of(boxes), [boxes])


@pytest.mark.parametrize("batch", [True, False])
def test_lists_are_put_in_the_order_of_a_reference(batch: Any) -> None:
    truth = listed(6, batch=batch)
    judged = JudgedOutputs.of(model_of(truth), [truth])
    order = [5, 0, 2, 4, 3, 1]
    mine = {
        n: a if n == "count" else a[..., order, :] if n == "boxes" else a[..., order]
        for n, a in truth.items()
    }
    found = judged.in_order_of(truth, mine)
    assert all(np.array_equal(found[name], array) for name, array in truth.items())
    if not batch:
        few = judged.in_order_of(truth, {name: array[:2] for name, array in mine.items()})
        assert all(few[name].shape == array.shape for name, array in truth.items())
        none = judged.in_order_of(truth, {name: array[:0] for name, array in mine.items()})
        assert not none["scores"].any()


def test_lists_in_pixels_of_a_larger_picture_may_have_any_order() -> None:
    truth = listed(6, batch=True)
    truth["boxes"] *= 20  # the model takes pictures of 64 x 64
    order = [1, 0, 2, 4, 3, 5]
    mine = {n: a[:, order] if a.ndim > 1 else a for n, a in truth.items()}
    assert kept(truth, mine)[0] == 1


def test_counts_of_many_pictures_are_left_alone() -> None:
    one = listed(4, batch=True)
    truth = {name: np.concatenate([array] * 8) for name, array in one.items()}
    judged = JudgedOutputs.of(model_of(truth), [truth])
    mine = {n: a if n == "count" else a[:, ::-1] for n, a in truth.items()}
    found = judged.in_order_of(truth, mine)
    assert all(np.array_equal(found[name], array) for name, array in truth.items())
