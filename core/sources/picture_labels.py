"""Labels of pictures: their folders' names, boxes from COCO and YOLO files, and masks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..data import Array, Floats
from ..errors import DataError, MissingExtraError
from .preprocess import Preprocess

#: Class of a mask's pixels outside of the picture, which no metric counts.
OUTSIDE = 255


class Labels(Protocol):
    """Labels of pictures."""

    def of(self, file: Path, moved: Floats, size: tuple[int, int]) -> Any:
        """Return the label of a picture of that size (width, height), moved as it was."""
        ...

    @property
    def identity(self) -> bytes:
        """Content of the labels."""
        ...


@dataclass(frozen=True)
class ClassLabels:
    """Classes by the name of the folder that a picture is in."""

    names: tuple[str, ...]

    def of(self, file: Path, _moved: Floats, _size: tuple[int, int]) -> int:
        """Return the class number."""
        return self.names.index(file.parent.name)

    @property
    def identity(self) -> bytes:
        """Names of the classes."""
        return "\n".join(self.names).encode()


@dataclass(frozen=True)
class BoxLabels:
    """Objects by the name of the picture's file: rows (class, left, top, right, bottom).

    Attributes:
        rows: in pixels of the picture, or as parts of its sides.
        relative: true where they are parts of the sides (YOLO).
        sizes: width and height of the pictures that they were made for, where that is known.
    """

    rows: Mapping[str, Floats]
    relative: bool = False
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def of(self, file: Path, moved: Floats, size: tuple[int, int]) -> Floats:
        """Return the objects in pixels of the model's input.

        Raises:
            DataError: the labels are of a picture of another size.
        """
        made_for = self.sizes.get(file.name, size)
        if made_for != size:
            raise DataError(
                f"is {size[0]}x{size[1]}, and its labels are of a picture of "
                f"{made_for[0]}x{made_for[1]}",
                where=str(file),
                hint="Take the pictures that the labels were made for",
            )
        rows = self.rows.get(file.name, np.zeros((0, 5))).copy()
        if self.relative:
            rows[:, 1:] *= np.array([*size, *size])
        rows[:, 1:] = rows[:, 1:] * np.tile(moved[0], 2) + np.tile(moved[1], 2)
        return rows

    @property
    def identity(self) -> bytes:
        """Names and objects."""
        return b"".join(name.encode() + rows.tobytes() for name, rows in sorted(self.rows.items()))


@dataclass(frozen=True)
class MaskLabels:
    """Masks of class numbers, PNG files of the pictures' names.

    Attributes:
        folder: folder of the masks.
        preprocess: preparation of the pictures, by which the masks move.
    """

    folder: Path
    preprocess: Preprocess

    def of(self, file: Path, moved: Floats, size: tuple[int, int]) -> Array:
        """Return the classes (H, W) of the model's input; 255 outside of the picture.

        Raises:
            DataError: there is no mask, or it has another size or no class numbers.
        """
        path = self.folder / f"{file.stem}.png"
        if not path.is_file():
            raise DataError("is missing, the mask of a picture", where=str(path))
        with opened(path) as mask:
            if mask.size != size or mask.mode not in {"L", "P", "1", "I", "I;16"}:
                raise DataError(
                    f"is {mask.size[0]}x{mask.size[1]} of mode {mask.mode}, its picture "
                    f"{size[0]}x{size[1]}",
                    where=str(path),
                    hint="A mask has its picture's size, and one class number a pixel",
                )
            classes = np.asarray(mask).astype(np.int64)
        wanted = self.preprocess.size()
        height, width = (size[1], size[0]) if wanted is None else wanted[1:3]
        # The middle of each pixel, where it was in the picture.
        x = np.floor((np.arange(width) + 0.5 - moved[1, 0]) / moved[0, 0]).astype(int)
        y = np.floor((np.arange(height) + 0.5 - moved[1, 1]) / moved[0, 1]).astype(int)
        inside = ((y >= 0) & (y < size[1]))[:, None] & ((x >= 0) & (x < size[0]))
        found = classes[np.clip(y, 0, size[1] - 1)[:, None], np.clip(x, 0, size[0] - 1)]
        return np.where(inside, found, OUTSIDE)

    @property
    def identity(self) -> bytes:
        """Names and content of the masks."""
        files = sorted(self.folder.glob("*.png"))
        return b"".join(file.name.encode() + file.read_bytes() for file in files)


def coco_labels(path: Path, files: Sequence[Path]) -> BoxLabels:
    """Read the objects of pictures from a COCO file.

    Classes are numbered from 0 in the order of the categories' identifiers.

    Raises:
        DataError: it cannot be read, is not of that form, or names none of the pictures.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        what = f"cannot be read ({error.strerror}), the labels of pictures"
        raise DataError(what, where=str(path), hint="Give labels=FILE.json or a folder") from error
    try:
        document = json.loads(text)
        order = {c["id"]: n for n, c in enumerate(sorted(document["categories"], key=_identifier))}
        names = {image["id"]: Path(image["file_name"]).name for image in document["images"]}
        rows: dict[str, list[list[float]]] = {name: [] for name in names.values()}
        for note in document["annotations"]:
            for key, known in (("category_id", order), ("image_id", names)):
                if note[key] not in known:
                    raise DataError(
                        f"has an object of {key} {note[key]}, which it does not list",
                        where=str(path),
                        hint="Give the categories and images that the annotations are of",
                    )
            left, top, width, height = map(float, note["bbox"])
            box = [order[note["category_id"]], left, top, left + width, top + height]
            rows[names[note["image_id"]]].append(box)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"is not a COCO file ({type(error).__name__}: {error})",
            where=str(path),
            hint="It holds images, categories and annotations with bbox, or name a YOLO folder",
        ) from error
    if not {file.name for file in files} & set(rows):
        raise DataError("names none of the pictures", where=str(path))
    sizes = {
        names[image["id"]]: (int(image["width"]), int(image["height"]))
        for image in document["images"]
        if image.get("width") and image.get("height")
    }
    table = {name: np.array(r, np.float64).reshape(-1, 5) for name, r in rows.items()}
    return BoxLabels(table, sizes=sizes)


def _identifier(category: Mapping[str, Any]) -> int:
    return int(category["id"])


def yolo_labels(folder: Path, files: Sequence[Path]) -> BoxLabels:
    """Read objects from text files: class, centre x and y, width, height as parts of the sides.

    Raises:
        DataError: a line is not of that form.
    """
    rows: dict[str, Floats] = {}
    for file in files:
        path = folder / f"{file.stem}.txt"
        if not path.exists():
            continue
        try:
            table = np.array([line.split()[:5] for line in path.read_text().splitlines() if line])
            table = table.astype(np.float64).reshape(-1, 5)
        except ValueError as error:
            raise DataError(
                f"is not a file of class, x, y, width, height ({error})", where=str(path)
            ) from error
        middle, half = table[:, 1:3], table[:, 3:5] / 2
        rows[file.name] = np.concatenate([table[:, :1], middle - half, middle + half], 1)
    if not rows:
        raise DataError("has no labels of the pictures", where=str(folder))
    return BoxLabels(rows, relative=True)


def stacked(labels: Sequence[Array]) -> Array:
    """Return class numbers (N,), masks (N, H, W), or objects (N, most, 5) filled up with -1."""
    if labels[0].dtype.kind == "i":
        return np.stack(labels)
    most = max(1, *(len(rows) for rows in labels))
    table = np.full((len(labels), most, 5), -1.0)
    for place, rows in enumerate(labels):
        table[place, : len(rows)] = rows
    return table


def opened(file: Path) -> Any:
    """Open a picture with Pillow.

    Raises:
        DataError: it has far more pixels than a picture for a model.
        MissingExtraError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("reading images needs Pillow", extra="images") from error
    try:
        return Image.open(file)
    except Image.DecompressionBombError as error:
        what = "has far more pixels than a picture for a model"
        raise DataError(what, where=str(file), hint="Give a smaller one") from error
