"""Pictures of examples: what a model was fed, with the boxes or masks that it found."""

from __future__ import annotations

import base64
import colorsys
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from trimtab.core.data import Array, Floats
from trimtab.core.metrics.detections import Detections
from trimtab.core.sources.preprocess import Preprocess

#: Longest side of a picture on the page, in pixels.
SIDE = 320
#: Least side of an input that is shown as a picture.
LEAST = 8
#: How much of a mask's colour covers the picture.
COVER = 0.55
#: Turn of the hue from one class to the next: no two near ones look alike.
_TURN = 0.618


def picture_of(fed: Array, preprocess: Preprocess | None = None) -> Array | None:
    """Return an input (1, C, H, W) or (1, H, W, C) as a picture (H, W, 3) uint8; None of others.

    Args:
        fed: what the model was fed.
        preprocess: preparation, which is undone; where it is not known the values are spread.
    """
    if fed.ndim != 4 or len(fed) != 1:
        return None
    last = fed.shape[3] in {1, 3} and min(fed.shape[1:3]) >= LEAST
    if not last and not (fed.shape[1] in {1, 3} and min(fed.shape[2:]) >= LEAST):
        return None
    pixels = fed[0].astype(np.float64) if last else fed[0].astype(np.float64).transpose(1, 2, 0)
    if preprocess is None:
        return _spread(pixels)
    if preprocess.std:
        pixels = pixels * np.asarray(preprocess.std)
    if preprocess.mean:
        pixels = pixels + np.asarray(preprocess.mean)
    pixels = pixels / preprocess.scale
    return _rgb(pixels[..., ::-1] if preprocess.colour == "bgr" else pixels)


def _spread(pixels: Floats) -> Array:
    """Return values between their least and their largest as 0 to 255."""
    low, high = float(pixels.min()), float(pixels.max())
    if pixels.dtype.kind == "f" and low >= 0 and 2 < high <= 255:
        return _rgb(pixels)  # they are bytes already
    return _rgb((pixels - low) * (255 / max(high - low, 1e-12)))


def _rgb(pixels: Floats) -> Array:
    found: Array = np.clip(np.round(pixels), 0, 255).astype(np.uint8)
    return np.repeat(found, 3, axis=2) if found.shape[2] == 1 else found


def colour_of(number: int) -> tuple[int, int, int]:
    """Return the colour of a class."""
    red, green, blue = colorsys.hsv_to_rgb(number * _TURN % 1, 0.9, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def with_boxes(picture: Array, found: Detections, names: Mapping[int, str]) -> Any:
    """Draw boxes with their class and score; returns a Pillow picture."""
    from PIL import ImageDraw

    image = _small(picture)
    factor = image.width / picture.shape[1]
    draw = ImageDraw.Draw(image)
    order = zip(found.boxes, found.classes, found.scores, strict=True)
    for box, kind, score in reversed(list(order)):  # the surest on top
        left, top, right, bottom = (float(side) * factor for side in box)
        colour = colour_of(int(kind))
        if right > left and bottom > top:
            draw.rectangle((left, top, right, bottom), outline=colour, width=2)
        text = f"{names[int(kind)].removeprefix('class ')} {score:.2f}"
        place = (max(0.0, left), max(0.0, top - 11))
        draw.rectangle(draw.textbbox(place, text), fill=(0, 0, 0))
        draw.text(place, text, fill=colour)
    return image


def with_classes(picture: Array, classes: Array, background: int) -> Any:
    """Lay the colours of the classes (h, w) over a picture, none over the background."""
    from PIL import Image

    image = _small(picture)
    shape = image.height, image.width
    rows, columns = (np.arange(n) * m // n for n, m in zip(shape, classes.shape, strict=True))
    placed = classes[rows][:, columns]
    pixels = np.asarray(image).astype(np.float64)
    for number in np.unique(placed[placed != background]):
        inside = placed == number
        pixels[inside] = (1 - COVER) * pixels[inside] + COVER * np.array(colour_of(int(number)))
    return Image.fromarray(pixels.round().astype(np.uint8))


def plain_picture(picture: Array) -> Any:
    """Return a picture without anything on it."""
    return _small(picture)


def _small(picture: Array) -> Any:
    from PIL import Image

    image = Image.fromarray(picture)
    factor = SIDE / max(image.size)
    if factor > 1:  # small ones stay sharp
        factor = max(1, int(factor))
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def data_uri(image: Any) -> str:
    """Return a Pillow picture as text that a page holds."""
    written = io.BytesIO()
    image.save(written, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()
