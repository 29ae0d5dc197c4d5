"""Folders of pictures: preparation, classes, objects, broken files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, OptionError
from trimtab.core.model import Model
from trimtab.core.sources.picture_labels import coco_labels
from trimtab.core.sources.preprocess import Preprocess

Image = pytest.importorskip("PIL.Image")


def picture(
    path: Path, width: int = 40, height: int = 20, colour: tuple[int, ...] = (200, 100, 50)
):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), colour).save(path)


def only(spec: str):
    return next(iter(Dataset.open(spec)))


def test_pictures_without_classes_have_no_labels(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    batch = only(str(tmp_path))
    assert batch.labels is None
    assert batch.feeds["input"].shape == (1, 3, 20, 40)
    assert batch.feeds["input"][0, :, 0, 0] == pytest.approx(np.array([200, 100, 50]) / 255)


def test_options_say_colours_numbers_and_order_of_axes(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    options = "colour=bgr&scale=1&mean=10,20,30&std=2&layout=nhwc"
    found = only(f"{tmp_path}?{options}").feeds["input"]
    assert found.shape == (1, 20, 40, 3)
    assert found[0, 0, 0].tolist() == [20, 40, 85]
    assert only(f"{tmp_path}?colour=grey").feeds["input"].shape == (1, 1, 20, 40)


@pytest.mark.parametrize(
    ("resize", "shape", "corner", "middle"),
    [
        ("letterbox:32", (32, 32), 114, 200),
        ("letterbox-corner:32", (32, 32), 200, 114),
        ("stretch:16x32", (16, 32), 200, 200),
        ("crop:14", (14, 14), 200, 200),
    ],
)
def test_ways_to_resize(
    tmp_path: Path, resize: str, shape: tuple[int, int], corner: int, middle: int
) -> None:
    picture(tmp_path / "a.png")
    red = only(f"{tmp_path}?scale=1&resize={resize}").feeds["input"][0, 0]
    assert red.shape == shape
    assert red[0, 0] == corner
    assert red[shape[0] // 2 + (1 if corner == 200 else 0), shape[1] // 2] == middle


def test_pictures_of_unlike_sizes_ask_for_a_size(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", width=30)
    with pytest.raises(DataError, match="--resize"):
        only(str(tmp_path))
    assert only(f"{tmp_path}?resize=crop:8").feeds["input"].shape == (2, 3, 8, 8)


def test_objects_of_a_coco_file_move_with_the_picture(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    document = {
        "images": [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "b.png"}],
        "categories": [{"id": 90}, {"id": 3}],
        "annotations": [{"image_id": 7, "category_id": 90, "bbox": [10, 4, 20, 8]}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(document))
    batch = only(f"{tmp_path}?resize=letterbox:80&labels={tmp_path / 'coco.json'}")
    assert batch.labels is not None
    # twice the size, and 20 rows of margin above
    assert batch.labels[0, 0].tolist() == [1, 20, 28, 60, 44]
    assert batch.labels[1, 0, 0] == -1


def test_yolo_labels_beside_images_are_found(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("2 0.5 0.5 0.5 0.5\n")
    labels = only(f"{tmp_path / 'images'}?resize=stretch:10").labels
    assert labels is not None
    assert labels[0, 0] == pytest.approx([2, 2.5, 2.5, 7.5, 7.5])
    (tmp_path / "labels" / "a.txt").write_text("2 0.5 half 0.5 0.5\n")
    with pytest.raises(DataError, match="class, x, y, width, height"):
        only(f"{tmp_path / 'images'}?resize=stretch:10")


def test_one_broken_picture_of_many_is_left_out_and_more_are_an_error(tmp_path: Path) -> None:
    for number in range(150):
        picture(tmp_path / f"{number:03}.png", width=4, height=4)
    (tmp_path / "007.png").write_bytes(b"not a picture")
    assert len(Dataset.open(str(tmp_path))) == 149
    for number in range(3):
        (tmp_path / f"{number:03}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"4 of 150 pictures cannot be decoded.*000\.png"):
        len(Dataset.open(str(tmp_path)))


@pytest.mark.parametrize(
    "options",
    ["resize=big", "resize=crop:0", "scale=x", "mean=1,2", "colour=blue", "size=3", "std=1e999"],
)
def test_options_that_are_not_valid_are_named(tmp_path: Path, options: str) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(OptionError):
        only(f"{tmp_path}?{options}")


def test_content_and_preparation_are_the_identity(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    plain, other = (Dataset.open(f"{tmp_path}?scale={s}").digest for s in ("1", "2"))
    assert plain != other
    assert Preprocess.of({"scale": "1/255"}, "x").scale == pytest.approx(1 / 255)


def test_masks_move_with_their_pictures(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png", 40, 20)
    (tmp_path / "masks").mkdir()
    classes = np.zeros((20, 40), np.uint8)
    classes[:, 20:] = 3
    Image.fromarray(classes).save(tmp_path / "masks/a.png")
    spec = f"{tmp_path / 'images'}?masks={tmp_path / 'masks'}"
    same = only(spec).labels
    assert same is not None
    assert np.array_equal(same[0], classes)
    boxed = only(f"{spec}&resize=letterbox:20").labels
    assert boxed is not None
    assert (boxed[0, :5] == 255).all()
    assert (boxed[0, 5:15, :10] == 0).all()
    assert (boxed[0, 5:15, 10:] == 3).all()
    assert (boxed[0, 15:] == 255).all()
    cropped = only(f"{spec}&resize=crop:10@20").labels
    assert cropped is not None
    assert np.array_equal(cropped[0], classes[5:15, 15:25])


def test_masks_of_another_size_or_missing_are_named(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png", 40, 20)
    (tmp_path / "masks").mkdir()
    spec = f"{tmp_path / 'images'}?masks={tmp_path / 'masks'}"
    with pytest.raises(DataError, match=r"a\.png: is missing"):
        only(spec)
    Image.new("L", (20, 20)).save(tmp_path / "masks/a.png")
    with pytest.raises(DataError, match="is 20x20 of mode L, its picture 40x20"):
        only(spec)
    Image.new("RGB", (40, 20)).save(tmp_path / "masks/a.png")
    with pytest.raises(DataError, match="one class number a pixel"):
        only(spec)


def test_labels_of_another_size_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 40, 20)
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 80, "height": 20}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="is 40x20, and its labels are of a picture of 80x20"):
        only(f"{tmp_path}?labels={tmp_path / 'coco.json'}")


def test_object_of_a_category_that_a_coco_file_does_not_list_is_named(tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    listed = {"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 1}]}
    note = {"image_id": 1, "category_id": 9, "bbox": [0, 0, 1, 1]}
    path.write_text(json.dumps({**listed, "annotations": [note]}))
    with pytest.raises(DataError, match="an object of category_id 9, which it does not list"):
        coco_labels(path, [tmp_path / "a.jpg"])
    with pytest.raises(DataError, match="cannot be read"):
        coco_labels(tmp_path / "none.json", [])


@pytest.mark.parametrize("kind", [ir.DataType.UINT8, ir.DataType.FLOAT16])
def test_pictures_have_the_type_that_the_model_takes(kind: ir.DataType, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    image.fromarray(pixels).save(tmp_path / "a.png")
    value = ir.val("x", kind, ir.Shape(["n", 3, 4, 4]))
    node = ir.node("Identity", [value], outputs=[ir.val("y", kind, ir.Shape(["n", 3, 4, 4]))])
    graph = ir.Graph([value], node.outputs, nodes=[node], name="g", opset_imports={"": 17})
    model = Model(ir.Model(graph, ir_version=8))
    data = Dataset.open(f"{tmp_path}?scale=1")
    (batch,) = data.bind(model).bind(model)
    assert batch.feeds["x"].dtype == kind.numpy()
    assert np.array_equal(batch.feeds["x"][0], pixels.transpose(2, 0, 1))
    assert data.bind(model).digest == data.digest
    if kind == ir.DataType.UINT8:
        with pytest.raises(DataError, match=r"takes bytes of 0 to 255.*--scale 1"):
            Dataset.open(str(tmp_path)).bind(model)
