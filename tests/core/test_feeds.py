"""Arrays that do not fit a model's inputs, each with what to do about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from trimtab.core.data import Batch
from trimtab.core.dataset import Dataset
from trimtab.core.errors import MOST_NAMES, DataError, nearest
from trimtab.core.feeds import check_feeds
from trimtab.core.model import TensorSpec
from trimtab.core.sources.pictures import PictureSource

PICTURE = TensorSpec("image", ir.DataType.FLOAT, ("batch", 3, 8, 6))


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "advice"),
    [
        ("image", (2, 3, 8, 6), "float64", "Save it in the model's type: array.astype('float32')"),
        ("image", (2, 3, 8, 6), "uint8", "is uint8, the model takes float32"),
        ("image", (2, 8, 6, 3), "float32", "save array.transpose(0, 3, 1, 2)"),
        ("image", (2, 8, 6), "float32", "An axis is missing: the first counts rows"),
        (
            "image",
            (2, 3, 9, 6),
            "float32",
            "rows of shape [3, 9, 6], the model takes [batch, 3, 8, 6]",
        ),
        ("image", (2, 3), "float32", "has rows of shape [3], the model takes [batch, 3, 8, 6]"),
        (
            "image",
            (144,),
            "float32",
            "has rows of one value each, the model takes [batch, 3, 8, 6]",
        ),
        ("image", (), "float32", "has no axis, the model takes [batch, 3, 8, 6]"),
        ("arr_0", (2, 3, 8, 6), "float32", "Known: arr_0. Arrays have the names of inputs: "),
        ("arr_0", (2, 3, 8, 6), "float32", "numpy.savez(FILE, image=array)"),
        ("imag", (2, 3, 8, 6), "float32", "Did you mean 'imag'? Arrays have"),
    ],
)
def test_an_array_that_does_not_fit_is_told_with_what_to_do(
    name: str, shape: tuple[int, ...], dtype: str, advice: str
) -> None:
    batch = Batch({name: np.zeros(shape, dtype)}, None)
    with pytest.raises(DataError) as told:
        check_feeds([PICTURE], batch, "data.npz")
    assert advice in str(told.value)


def test_the_channels_go_back_to_the_end_of_a_model_that_has_them_there() -> None:
    spec = TensorSpec("image", ir.DataType.FLOAT, (1, 8, 6, 3))
    with pytest.raises(DataError, match=r"transpose\(0, 2, 3, 1\)"):
        check_feeds([spec], Batch({"image": np.zeros((2, 3, 8, 6), "float32")}, None), "d")


def test_an_array_without_a_name_is_to_be_named(tmp_path: Path) -> None:
    np.save(tmp_path / "calib.npy", np.zeros((2, 3)))
    with pytest.raises(DataError, match=r"savez\('calib.npz', INPUT=numpy.load\('calib.npy'\)\)"):
        Dataset.open(tmp_path / "calib.npy")


def test_a_message_lists_no_more_than_a_few_of_a_thousand_names() -> None:
    told = nearest("zzz", [f"layer{i}" for i in range(1000)])
    assert told.endswith(f" and {1000 - MOST_NAMES} more")
    assert told.count(",") == MOST_NAMES - 1


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        (("batch", 3, 416, 416), "letterbox:416"),
        ((1, 3, 48, 320), "letterbox:48x320"),
        ((1, 192, 256, 3), "letterbox:192x256"),
        (("batch", 3, "height", "width"), "letterbox:224"),
    ],
)
def test_pictures_are_advised_the_size_that_the_model_takes(
    shape: tuple[int | str, ...], size: str
) -> None:
    spec = TensorSpec("image", ir.DataType.FLOAT, shape)
    one = Batch({"image": np.zeros((1, 5, 9), "float32")}, None)
    with pytest.raises(DataError, match=f"--resize {size}"):
        check_feeds([spec], one, "d", PictureSource.advice)


@pytest.mark.parametrize("name", ["one.jpg", "one.WAV"])
def test_one_file_of_many_is_told_to_be_a_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(DataError, match=f"--data {tmp_path}"):
        Dataset.open(tmp_path / name)
    with pytest.raises(DataError, match="Give the folder itself"):
        Dataset.open(f"{tmp_path}/*.jpg")
