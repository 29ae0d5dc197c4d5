"""Preparation of pictures as a model takes them: size, colours, numbers, order of axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..data import Array, Floats
from ..errors import OptionError, unknown

#: Grey of the margin of a letterbox, as YOLO networks are trained with.
MARGIN = 114
#: Part of the shorter side that `crop` keeps: 224 of 256.
KEPT = 0.875
_RESIZES = ("letterbox", "letterbox-corner", "stretch", "crop")


@dataclass(frozen=True)
class Preprocess:
    """Preparation of a picture.

    Attributes:
        resize: empty for pictures of the model's size; letterbox:640 (or 640x480, height first)
            keeps the proportions and centres the picture on grey, letterbox-corner puts it at the
            top left (YOLOX); stretch:224 does not keep them; crop:224 takes the middle of the
            picture whose shorter side is 224/0.875, crop:224@232 where it is 232.
        colour: order of the channels, or grey for one.
        scale: factor of the values 0 to 255; 1/255 gives 0 to 1.
        mean: what is subtracted after that, one number or one a channel.
        std: what is divided by after that.
        layout: channels before rows, or behind columns.
    """

    resize: str = ""
    colour: Literal["rgb", "bgr", "grey"] = "rgb"
    scale: float = 1 / 255
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: Literal["nchw", "nhwc"] = "nchw"

    @classmethod
    def of(cls, options: Mapping[str, str], where: str) -> Preprocess:
        """Return the preparation that options in text tell.

        Raises:
            OptionError: an unknown option, or a value that is not valid.
        """
        fields: dict[str, Any] = {}
        for key, text in options.items():
            if key not in cls.__dataclass_fields__:
                raise unknown("option", key, cls.__dataclass_fields__, where=where)
            fields[key] = _value(key, text, where)
        made = cls(**fields)
        made.size(where)
        return made

    def size(self, where: str = "resize") -> tuple[str, int, int, int] | None:
        """Return the way to resize, height, width, and the shorter side that is cropped.

        None where pictures keep their size.

        Raises:
            OptionError: the text is not valid.
        """
        if not self.resize:
            return None
        way, _, text = self.resize.partition(":")
        text, _, shorter = text.partition("@")
        sides = text.split("x")
        given = [*sides, shorter] if shorter else sides
        valid = all(s.isdigit() and 0 < int(s) < 1 << 15 for s in given) and len(sides) <= 2
        if way not in _RESIZES or not valid or (shorter and way != "crop"):
            raise OptionError(
                f"resize={self.resize!r} is not valid",
                where=where,
                hint=f"Give one of {', '.join(_RESIZES)} with a size: letterbox:640, crop:224",
            )
        height, width = int(sides[0]), int(sides[-1])
        return way, height, width, int(shorter or round(min(height, width) / KEPT))

    def __call__(self, picture: Any) -> Array:
        """Return a Pillow picture as the model takes it, float32 without the batch axis."""
        pixels, _ = self.placed(picture)
        array: Array = pixels.astype(np.float32)
        if self.colour == "bgr":
            array = array[..., ::-1]
        # In single precision, as the networks' own code computes it.
        array = array * np.float32(self.scale)
        if self.mean:
            array = array - np.asarray(self.mean, np.float32)
        if self.std:
            array = array / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(array if self.layout == "nhwc" else array.transpose(2, 0, 1))

    def placed(self, picture: Any) -> tuple[Array, Floats]:
        """Return the resized pixels (H, W, C), and how boxes move with them.

        The second is (2, 2): factors of x and y, and what is added to them after that.
        """
        from PIL import Image

        picture = picture.convert("L" if self.colour == "grey" else "RGB")
        size = self.size()
        if size is None:
            return _pixels(picture), np.array([[1.0, 1.0], [0.0, 0.0]])
        way, height, width, shorter = size
        if way == "stretch":
            factors = [width / picture.width, height / picture.height]
            return _pixels(picture.resize((width, height), Image.Resampling.BILINEAR)), np.array(
                [factors, [0.0, 0.0]]
            )
        ratio = min(height / picture.height, width / picture.width)
        if way == "crop":
            # The rest of the picture has to cover the crop.
            enough = max(height / picture.height, width / picture.width)
            ratio = max(enough, shorter / min(picture.height, picture.width))
        sides = max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio))
        pixels = _pixels(picture.resize(sides, Image.Resampling.BILINEAR))
        factors = [sides[0] / picture.width, sides[1] / picture.height]
        if way == "crop":
            top, left = (sides[1] - height) // 2, (sides[0] - width) // 2
            pixels = pixels[top : top + height, left : left + width]
            return pixels, np.array([factors, [-left, -top]], np.float64)
        page = np.full((height, width, pixels.shape[2]), MARGIN, np.uint8)
        top = 0 if way == "letterbox-corner" else (height - sides[1]) // 2
        left = 0 if way == "letterbox-corner" else (width - sides[0]) // 2
        page[top : top + sides[1], left : left + sides[0]] = pixels
        return page, np.array([factors, [left, top]], np.float64)


def _pixels(picture: Any) -> Array:
    array = np.asarray(picture, np.uint8)
    return array[..., None] if array.ndim == 2 else array


def _value(key: str, text: str, where: str) -> Any:
    choices = {"colour": ("rgb", "bgr", "grey"), "layout": ("nchw", "nhwc")}
    if key in choices:
        if text not in choices[key]:
            raise unknown(key, text, choices[key], where=where)
        return text
    if key == "resize":
        return text
    try:
        numbers = tuple(_number(part) for part in text.split(","))
    except (ValueError, ZeroDivisionError):
        raise OptionError(
            f"{key}={text!r} is not a number",
            where=where,
            hint="Give a number, 1/255, or one a channel: 0.485,0.456,0.406",
        ) from None
    if len(numbers) not in ({1} if key == "scale" else {1, 3}):
        raise OptionError(f"{key} has {len(numbers)} numbers", where=where)
    return numbers[0] if key == "scale" else numbers


def _number(text: str) -> float:
    above, _, below = text.partition("/")
    number = float(above) / float(below or 1)
    if not np.isfinite(number):
        raise ValueError(text)
    return number
