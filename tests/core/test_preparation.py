"""Preparation of pictures as files and options tell it, and pictures that do not fit a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import model_of

from trimtab.cli import main
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, InputError, OptionError
from trimtab.core.model import Model
from trimtab.core.sources.first_layer import misfit
from trimtab.core.sources.opening import options_of, with_options
from trimtab.core.sources.preprocess import Preprocess
from trimtab.core.sources.preprocess_files import (
    CONFIG,
    found_preparation,
    of_hugging_face,
    of_ultralytics,
)
from trimtab.runtime_bench.gate.budget_file import load_gates, parse_gates

Image = pytest.importorskip("PIL.Image")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def described(tmp_path: Path, **config: object) -> dict[str, str]:
    (tmp_path / CONFIG).write_text(json.dumps(config))
    return of_hugging_face(tmp_path / CONFIG)


@pytest.mark.parametrize(
    ("config", "resize"),
    [
        ({"size": {"height": 224, "width": 192}}, "stretch:224x192"),
        ({"size": 224}, "stretch:224x224"),
        (
            {
                "size": {"shortest_edge": 256},
                "do_center_crop": True,
                "crop_size": {"height": 224, "width": 224},
            },
            "crop:224x224@256",
        ),
        ({"size": 224, "do_center_crop": True, "crop_size": 224}, "crop:224x224@224"),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, "crop:224@256"),
        ({"size": {"shortest_edge": 384}, "crop_pct": 1.0}, "stretch:384"),
        ({"size": {"shortest_edge": 800, "longest_edge": 1333}}, None),
        ({"do_resize": False, "size": 224}, None),
    ],
)
def test_sizes_of_hugging_face(
    tmp_path: Path, config: dict[str, object], resize: str | None
) -> None:
    assert described(tmp_path, **config).get("resize") == resize


def test_numbers_of_hugging_face(tmp_path: Path) -> None:
    found = Preprocess.of(described(tmp_path, image_mean=MEAN, image_std=STD, size=8), "")
    assert (found.mean, found.std) == (MEAN, STD)
    assert found.scale == pytest.approx(1 / 255)
    plain = described(tmp_path, do_rescale=False, do_normalize=False, image_mean=MEAN, size=8)
    assert plain == {"resize": "stretch:8x8", "scale": "1"}


def test_a_file_that_describes_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text("[1, 2")
    with pytest.raises(DataError, match=r"preprocessor_config.json: .*--resize, --colour"):
        of_hugging_face(tmp_path / CONFIG)


def test_metadata_of_ultralytics() -> None:
    detector = {"imgsz": "[640, 480]", "stride": "32", "task": "detect"}
    assert of_ultralytics(detector) == {"resize": "letterbox:640x480"}
    assert of_ultralytics({"imgsz": "[224, 224]", "task": "classify"}) == {
        "resize": "crop:224x224@224"
    }
    assert of_ultralytics({"author": "someone"}) == {}


@pytest.mark.parametrize(("resize", "side"), [("crop:16@16", 16), ("crop:16@20", 20)])
def test_a_crop_names_the_shorter_side(resize: str, side: int) -> None:
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None, :] * 4, 32, 0)
    found = Preprocess(resize=resize, colour="grey", scale=1)(Image.fromarray(ramp))[0, 8]
    assert len(found) == 16
    # The picture of 64x32 becomes 2*side wide, of which the middle 16 remain.
    left = (2 * side - 16) // 2
    expected = 4 * ((np.arange(left, left + 16) + 0.5) * 32 / side - 0.5)
    assert np.abs(found - expected).max() < 3


def test_a_crop_larger_than_the_side_is_refused_by_its_text() -> None:
    for text in ("stretch:8@9", "crop:8@x", "crop:1x2x3"):
        with pytest.raises(OptionError, match="is not valid"):
            Preprocess(resize=text).size()


def normalised(mean: float, spread: float) -> Model:
    """Return a network whose BatchNormalization saw values of that mean and spread."""
    filled = {
        "mean": np.full(3, mean, np.float32),
        "var": np.full(3, spread**2, np.float32),
        "scale": np.ones(3, np.float32),
        "bias": np.zeros(3, np.float32),
        "w": np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1),
    }
    return model_of(
        """(float[n,3,h,w] x) => (float[n,3,h,w] y)
        <float[3,3,1,1] w, float[3] scale, float[3] bias, float[3] mean, float[3] var> {
            c = Conv (x, w)
            y = BatchNormalization (c, scale, bias, mean, var)
        }""",
        **filled,
    )


def test_pictures_that_the_first_layer_never_saw_are_told() -> None:
    pictures = np.random.default_rng(0).uniform(0, 1, (1, 3, 16, 16)).astype(np.float32)
    assert misfit(normalised(0.5, 0.29), "x", pictures) == ""
    assert misfit(normalised(127.0, 74.0), "x", pictures * 255) == ""
    assert "check --scale" in misfit(normalised(127.0, 74.0), "x", pictures)
    assert "check --scale" in misfit(normalised(0.5, 0.29), "x", pictures * 255)


def test_first_arithmetic_on_pixels_tells_too() -> None:
    divided = model_of(
        "(float[n,3,h,w] x) => (float[n,3,h,w] y) <float[1] c> { y = Div (x, c) }",
        c=np.array([255], np.float32),
    )
    pictures = np.full((1, 3, 4, 4), 0.7, np.float32)
    assert "--scale 1" in misfit(divided, "x", pictures)
    assert misfit(divided, "x", pictures * 255) == ""


def test_options_follow_the_name_of_the_data() -> None:
    spec = with_options("pictures?labels=a.json", [("resize", "crop:8"), ("mean", "1,2,3")])
    assert spec == "pictures?labels=a.json&resize=crop:8&mean=1,2,3"
    assert options_of(spec) == {"labels": "a.json", "resize": "crop:8", "mean": "1,2,3"}
    assert with_options("pictures", []) == "pictures"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for name in "abc":
        pixels = rng.integers(0, 256, (12, 20, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{name}.png")
    normalised(127.0, 74.0).save(tmp_path / "m.onnx")
    return tmp_path


def test_the_command_line_takes_options_and_warns_where_pictures_do_not_fit(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = str(folder / "m.onnx"), str(folder / "pictures")
    plain = ["eval", model, "--reference", model, "--data", data]
    assert main(plain) == 0
    assert "check --scale" in capsys.readouterr().err
    assert main([*plain, "--scale", "1", "--resize", "stretch:8", "--colour", "bgr"]) == 0
    assert "check" not in capsys.readouterr().err
    assert main([*plain, "--colour", "rbg"]) == 2
    assert "rgb" in capsys.readouterr().err
    assert main(["bench", model, "--resize", "crop:8"]) == 2
    assert "there are none" in capsys.readouterr().err


def test_files_beside_the_model_are_read_unless_something_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"size": 8, "image_mean": MEAN, "image_std": STD}
    (folder / CONFIG).write_text(json.dumps(config))
    model, data = str(folder / "m.onnx"), str(folder / "pictures")
    plain = ["eval", model, "--reference", model, "--data", data]
    assert main(plain) == 0
    assert f"as {folder / CONFIG} tells: --resize stretch:8x8" in capsys.readouterr().err
    assert main([*plain, "--scale", "1"]) == 0
    assert "tells" not in capsys.readouterr().err
    (folder / CONFIG).unlink()
    proto = onnx.load(model)
    proto.metadata_props.add(key="imgsz", value="[16, 24]")
    proto.metadata_props.add(key="stride", value="32")
    onnx.save(proto, model)
    found = found_preparation(Path(model), folder / "pictures")
    assert found is not None
    assert found[0] == {"resize": "letterbox:16x24"}


def test_budgets_prepare_pictures_the_same(folder: Path) -> None:
    (folder / "b.yaml").write_text(
        "model: m.onnx\nbaseline: m.onnx\ndata: pictures\nbudgets: {drop: 0.1}\n"
        "preprocess: {resize: stretch:8, scale: 1, mean: [1, 2, 3]}\n"
    )
    (gate,) = load_gates(folder / "b.yaml")
    assert gate.data == f"{folder / 'pictures'}?resize=stretch:8&scale=1&mean=1,2,3"
    batch = next(iter(Dataset.open(gate.data)))
    assert batch.feeds["input"].shape == (3, 3, 8, 8)
    for wrong in ("preprocess: {size: 8}", "preprocess: {scale: a}", "preprocess: 3"):
        text = f"model: m.onnx\ndata: pictures\nbudgets: {{size: 1MB}}\n{wrong}\n"
        with pytest.raises(InputError, match="line 4"):
            parse_gates(text)


def test_rows_of_a_file_take_no_preparation(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 3), np.float32))
    with pytest.raises(OptionError, match="has no meaning"):
        Dataset.open(f"{tmp_path / 'd.npz'}?resize=crop:8")
