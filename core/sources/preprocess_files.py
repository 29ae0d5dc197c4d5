"""Preparation of pictures as files tell it: Hugging Face's beside a model, Ultralytics' inside."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError

#: Name of the file that Hugging Face's models bring.
CONFIG = "preprocessor_config.json"
#: Part of the side that is kept where a file names only the size after the crop.
_KEPT = 0.875
#: Side from which such networks take the whole picture.
_WHOLE = 384


def found_preparation(model: Path, folder: Path) -> tuple[dict[str, str], str] | None:
    """Return the options of `Preprocess` that files tell, and the file; None where there are none.

    Args:
        model: file of the model; `preprocessor_config.json` may lie beside it.
        folder: folder of the pictures; the file may lie there, or one folder up.

    Raises:
        DataError: the file is not one of that form.
    """
    for place in dict.fromkeys([model.parent, folder, folder.parent]):
        path = place / CONFIG
        if path.is_file():
            return of_hugging_face(path), str(path)
    options = of_ultralytics(_metadata(model)) if model.is_file() else {}
    return (options, f"the metadata of {model}") if options else None


def of_hugging_face(path: Path) -> dict[str, str]:
    """Return the options that a `preprocessor_config.json` tells.

    Raises:
        DataError: it is not one.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        options = {"resize": _resize(config)} if config.get("do_resize", True) else {}
        scaled = config.get("do_rescale", True)
        options["scale"] = f"{config.get('rescale_factor', 1 / 255) if scaled else 1:.9g}"
        if config.get("do_normalize", True):
            for key, name in (("mean", "image_mean"), ("std", "image_std")):
                if name in config:
                    options[key] = _numbers(config[name])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"is not a description of how pictures are prepared ({type(error).__name__}: {error})",
            where=str(path),
            hint="Say it yourself: --resize, --colour, --scale, --mean, --std, --layout",
        ) from error
    if config.get("do_flip_channel_order"):
        options["colour"] = "bgr"
    return {key: value for key, value in options.items() if value}


def _resize(config: Mapping[str, Any]) -> str:
    """Return the text of `resize`, empty where the size depends on the picture."""
    size, crop = config.get("size"), config.get("crop_size")
    if isinstance(size, int):
        size = {"shortest_edge": size} if crop else {"height": size, "width": size}
    if not isinstance(size, dict):
        return ""
    shortest = size.get("shortest_edge")
    if config.get("do_center_crop") and crop:
        height, width = (crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"])
        return f"crop:{height}x{width}@{shortest or size['height']}"
    if "height" in size and "width" in size:
        return f"stretch:{size['height']}x{size['width']}"
    if shortest and "longest_edge" not in size and "crop_pct" in config:
        side = round(shortest / (config["crop_pct"] or _KEPT))
        return f"crop:{shortest}@{side}" if shortest < _WHOLE else f"stretch:{shortest}"
    return ""


def _numbers(values: Sequence[float] | float) -> str:
    listed = [values] if isinstance(values, int | float) else values
    return ",".join(f"{float(value):.9g}" for value in listed)


def of_ultralytics(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the options that Ultralytics' metadata tell, empty where there are none."""
    sides = re.findall(r"\d+", metadata.get("imgsz", ""))
    if not sides or not {"stride", "task"} & set(metadata):
        return {}
    size = f"{sides[0]}x{sides[-1]}"
    if metadata.get("task") == "classify":
        return {"resize": f"crop:{size}@{min(map(int, sides))}"}
    return {"resize": f"letterbox:{size}"}


def _metadata(model: Path) -> dict[str, str]:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        proto = onnx.load(str(model), load_external_data=False)
    except (OSError, DecodeError):
        return {}  # whoever opens the model says what is wrong with it
    return {pair.key: pair.value for pair in proto.metadata_props}
