"""Examples of the report: the items that changed most come first, in words and as pictures."""

from __future__ import annotations

import base64
import io
import sys
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from trimtab.core.data import Array
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.search.reporting.examples import class_names, gather_examples

RNG = np.random.default_rng(0)


def model_of(picture: Array, op: str, other: Array, shape: list[int | str], **names: str) -> Model:
    """Return a model that joins its input `x` with a constant and squashes the result."""
    x = ir.val("x", ir.DataType.FLOAT, ir.Shape(["n", *picture.shape[1:]]))
    constant = ir.val("w", const_value=ir.tensor(other, name="w"))
    joined = ir.node(op, [x, constant], outputs=[ir.val("m", ir.DataType.FLOAT)])
    out = ir.val("y", ir.DataType.FLOAT, ir.Shape(shape))
    node = ir.node("Sigmoid", joined.outputs, outputs=[out])
    graph = ir.Graph(
        [x],
        [out],
        nodes=[joined, node],
        initializers=[constant],
        name="g",
        opset_imports={"": 17},
    )
    made = ir.Model(graph, ir_version=8)
    made.metadata_props.update(names)
    return Model(made)


def pictures(count: int = 6) -> Array:
    """Return single-channel pictures whose right half is bright."""
    made = np.full((count, 1, 16, 24), -6, np.float32)
    made[..., 12:] = 6
    return made


def opened(uri: str) -> Array:
    """Return the pixels of a picture that stands in a page."""
    image = pytest.importorskip("PIL.Image")
    kind, _, text = uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    return np.asarray(image.open(io.BytesIO(base64.b64decode(text))))


def test_masks_lie_on_the_picture_and_the_worst_comes_first() -> None:
    rows, shape = pictures(), ["n", 1, 16, 24]
    rows[4, :, :8, 12:] = 2  # what a constant of -3 turns around
    float_model = model_of(rows, "Add", np.zeros(1, np.float32), shape)
    mine = model_of(rows, "Add", np.full(1, -3, np.float32), shape)
    found = gather_examples(float_model, mine, Dataset.of_arrays({"x": rows}))
    assert (found["items"], found["of"]) == (6, 6)
    assert found["outputs"][0]["kind"].startswith("scores")
    first = found["examples"][0]
    assert first["name"] == "item 4"
    assert first["kept"] == pytest.approx(2 / 3)
    assert first["float"]["text"].endswith("50.0% of the mask above 0.5")
    assert first["ours"]["text"].endswith("25.0% of the mask above 0.5")
    before, after = (opened(first[side]["image"]).astype(int) for side in ("float", "ours"))
    assert before.shape == (208, 312, 3)  # 13 times as large, in whole pixels
    upper_right, lower_right = (20, -20), (-20, -20)
    assert abs(before[upper_right] - after[upper_right]).max() > 40
    assert abs(before[lower_right] - after[lower_right]).max() < 20


def test_answers_are_in_words_where_there_is_no_picture() -> None:
    rows = 4 * RNG.normal(size=(8, 5)).astype(np.float32)
    float_model = model_of(rows, "Mul", np.ones(5, np.float32), ["n", 5])
    mine = model_of(rows, "Mul", -np.ones(5, np.float32), ["n", 5])
    found = gather_examples(float_model, mine, Dataset.of_arrays({"x": rows}))
    example = found["examples"][0]
    assert set(example["float"]) == {"text"}
    assert example["float"]["text"] != example["ours"]["text"]


def detector(boxes: Array, scores: Array, *, split: bool = False) -> Model:
    """Return a model that takes pictures and always finds these boxes and scores."""
    x = ir.val("x", ir.DataType.FLOAT, ir.Shape(["n", 3, 32, 32]))
    arrays = {
        "boxes": boxes,
        "logits": np.log(scores / (1 - scores)),
        "sides": np.array([1, 2, 3]),
        "one": np.array([1]),
        "zero": np.zeros(1, np.float32),
    }
    known = {
        name: ir.val(name, const_value=ir.tensor(array, name=name))
        for name, array in arrays.items()
    }
    mean = ir.node("ReduceMean", [x, known["sides"]])
    nothing = ir.node("Mul", [mean.outputs[0], known["zero"]])
    column = ir.node("Squeeze", [nothing.outputs[0], known["one"]])
    placed, raw = (ir.node("Add", [known[name], column.outputs[0]]) for name in ("boxes", "logits"))
    squashed = ir.node("Sigmoid", raw.outputs)
    out = ir.val("y", ir.DataType.FLOAT, ir.Shape(["n", boxes.shape[1], 7]))
    parts = [placed.outputs[0], squashed.outputs[0]]
    for value, name in zip(parts, ("boxes_of", "scores_of"), strict=True):
        value.name, value.dtype = name, ir.DataType.FLOAT
    join = ir.node("Concat", parts, attributes={"axis": 2}, outputs=[out])
    nodes = [mean, nothing, column, placed, raw, squashed, join]
    graph = ir.Graph(
        [x],
        parts if split else [out],
        nodes=nodes,
        initializers=list(known.values()),
        name="g",
        opset_imports={"": 18},
    )
    made = ir.Model(graph, ir_version=8)
    made.metadata_props["names"] = "{0: 'cat', 1: 'dog'}"
    return Model(made)


@pytest.mark.parametrize(("split", "text"), [(False, "dog 0.93"), (True, "cat 0.98")])
def test_boxes_are_named_by_the_metadata(split: Any, text: str) -> None:
    """In outputs of their own the first score is that of a class, not of any object."""
    pytest.importorskip("PIL")
    boxes = np.tile(np.array([16, 16, 10, 12], np.float32), (1, 12, 1))
    scores = np.full((1, 12, 3), 0.001, np.float32)
    scores[:, 0] = [0.98, 0.01, 0.95]
    model = detector(boxes, scores, split=split)
    rows = np.full((2, 3, 32, 32), 90, np.float32)
    found = gather_examples(model, model, Dataset.of_arrays({"x": rows}))
    assert found["outputs"][0]["kind"].startswith("boxes")
    assert found["examples"][0]["float"]["text"] == text
    assert opened(found["examples"][0]["ours"]["image"]).std() > 5


def test_without_pillow_the_words_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    rows = pictures()
    model = model_of(rows, "Add", np.zeros(1, np.float32), ["n", 1, 16, 24])
    found = gather_examples(model, model, Dataset.of_arrays({"x": rows}))
    assert "trimtab[images]" in found["note"]
    assert "image" not in found["examples"][0]["float"]


@pytest.mark.parametrize("text", ["", "[1", "{1: 2, 'a': 3}", "__import__('os')"])
def test_names_that_are_none_are_left_out(text: str) -> None:
    rows = pictures()
    model = model_of(rows, "Add", np.zeros(1, np.float32), ["n", 1, 16, 24], names=text)
    assert class_names(model) in ({}, {1: "2"})
