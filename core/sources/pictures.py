"""Folders of pictures as data: by class, in any order, with boxes or masks beside them."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..data import Array, Batch, Floats, Rows, Source
from ..errors import DataError, MissingExtraError
from ..model import TensorSpec
from .broken import without_broken
from .preprocess import Preprocess
from .row_store import RowStore, first_pass

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
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
        with _opened(path) as mask:
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


class PictureSource(Source):
    """Pictures; the first model input is fed (N, C, H, W) or (N, H, W, C) float32."""

    anonymous = "input"
    advice = (
        "Prepare the pictures: --resize letterbox:640, stretch:224 or crop:224, --layout nhwc, "
        "--colour grey"
    )

    #: Type that the model takes; a source that is bound to one has it.
    dtype: np.dtype[Any] = np.dtype(np.float32)

    def __init__(
        self, files: Sequence[Path], labels: Labels | None, preprocess: Preprocess, where: str
    ) -> None:
        self.files, self.labels, self.preprocess, self.where = files, labels, preprocess, where
        if not files:
            raise DataError(
                "has neither .npz shards nor pictures",
                where=where,
                hint="Expected FOLDER/*.npz, FOLDER/*.jpg or FOLDER/<class>/*.jpg",
            )

    @functools.cached_property
    def left_out(self) -> Sequence[Path]:
        """Files that cannot be decoded."""

        def broken() -> dict[str, Array]:
            opened = [_opens(f) for f in first_pass(self.files, self.where, len(self.files))]
            return {"broken": np.flatnonzero(~np.array(opened))}

        return [self.files[place] for place in self._store.once(-1, broken)["broken"]]

    @functools.cached_property
    def _store(self) -> RowStore:
        """Prepared pictures by their place among the files, and at -1 the broken ones."""
        kind = type(self.labels).__name__
        return RowStore(lambda: f"{self.identity}{kind}{self.dtype}{[f.name for f in self.files]}")

    @functools.cached_property
    def _usable(self) -> list[Path]:
        """Files that can be decoded.

        Raises:
            DataError: more than one of a hundred cannot.
        """
        told = "pictures cannot be decoded"
        return without_broken(self.files, self.left_out, told, self.where)

    @property
    def count(self) -> int:
        """Number of pictures that can be decoded."""
        return len(self._usable)

    def name_of(self, row: int) -> str:
        """Return the name of a picture's file, with that of its folder where that is its class."""
        file = self._usable[row]
        named = isinstance(self.labels, ClassLabels)
        return f"{file.parent.name}/{file.name}" if named else file.name

    def read(self, rows: Rows, batch: int) -> Iterator[Batch]:
        """Decode and prepare the pictures, batch by batch."""
        for start in range(0, len(rows), batch):
            found = [self._item(int(row)) for row in rows[start : start + batch]]
            arrays = [item["input"] for item in found]
            sizes = {array.shape for array in arrays}
            if len(sizes) > 1:
                raise DataError(
                    f"its pictures differ in size: {sorted(sizes)}",
                    where=self.where,
                    hint="Resize them: --resize letterbox:640, stretch:224 or crop:224",
                )
            labels = None if self.labels is None else _stacked([item["label"] for item in found])
            yield Batch({"input": np.stack(arrays)}, labels)

    def of_inputs(self, specs: Sequence[TensorSpec]) -> Source:
        """Return the pictures in the type of the one input that takes pictures.

        Raises:
            DataError: it takes bytes, and the pictures are scaled to other values.
        """
        kinds = {s.dtype.numpy() for s in specs if s.shape is not None and len(s.shape) == 4}
        wanted = kinds.pop() if len(kinds) == 1 else self.dtype
        if wanted == self.dtype or not (wanted.kind == "f" or wanted == np.uint8):
            return self
        made = copy.copy(self)
        made.dtype = wanted
        made.__dict__.pop("_store", None)  # that of the other type
        prepared = self.preprocess
        if made.dtype == np.uint8 and (prepared.scale != 1 or prepared.mean or prepared.std):
            raise DataError(
                "are scaled, and the model takes bytes of 0 to 255",
                where=self.where,
                hint="Feed them as they are: --scale 1",
            )
        return made

    def _item(self, row: int) -> dict[str, Array]:
        """Return the array of a picture, and its label if there are any."""
        return self._store.once(row, functools.partial(self._prepared, self._usable[row]))

    def _prepared(self, file: Path) -> dict[str, Array]:
        with _opened(file) as picture:
            made = {"input": self.preprocess(picture).astype(self.dtype, copy=False)}
            if self.labels is not None:
                moved = self.preprocess.placed(picture)[1]
                made["label"] = np.asarray(self.labels.of(file, moved, picture.size))
            return made

    @functools.cached_property
    def identity(self) -> str:
        """SHA-256 of all files, names and classes included, of their labels and preparation."""
        digest = hashlib.sha256(repr(self.preprocess).encode())
        for file in self.files:
            digest.update(file.name.encode() + file.read_bytes())
            if isinstance(self.labels, ClassLabels):
                digest.update(file.parent.name.encode())
        digest.update(b"" if self.labels is None else self.labels.identity)
        return digest.hexdigest()


def open_pictures(folder: Path, options: Mapping[str, str]) -> PictureSource:
    """Open a folder of pictures.

    Args:
        folder: pictures in folders by class, or all in one.
        options: those of `Preprocess`, and `labels`: a COCO file (.json), or a folder of YOLO's
            text files; `labels/` beside `images/` is found. `masks`: a folder of PNG files of class
            numbers.

    Raises:
        DataError: there is no picture, or the labels do not fit.
        OptionError: an unknown option.
    """
    known = dict(options)
    named, masks = known.pop("labels", None), known.pop("masks", None)
    preprocess = Preprocess.of(known, str(folder))
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    direct = _pictures(folder)
    if masks is not None:
        if not Path(masks).is_dir():
            raise DataError("no such folder", where=masks, hint="Give masks=FOLDER")
        return PictureSource(direct, MaskLabels(Path(masks), preprocess), preprocess, str(folder))
    if named or direct:
        files = direct or [file for cls in classes for file in _pictures(cls)]
        labels = _box_labels(folder, Path(named) if named else None, files)
        return PictureSource(files, labels, preprocess, str(folder))
    files = [file for cls in classes for file in _pictures(cls)]
    names = ClassLabels(tuple(cls.name for cls in classes))
    return PictureSource(files, names, preprocess, str(folder))


def _pictures(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in IMAGES and f.is_file())


def _box_labels(folder: Path, named: Path | None, files: Sequence[Path]) -> BoxLabels | None:
    if named is None:
        beside = folder.parent / "labels" if folder.name == "images" else folder / "labels"
        return yolo_labels(beside, files) if beside.is_dir() else None
    if named.is_dir():
        return yolo_labels(named, files)
    return coco_labels(named, files)


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


def _stacked(labels: Sequence[Array]) -> Array:
    """Return class numbers (N,), masks (N, H, W), or objects (N, most, 5) filled up with -1."""
    if labels[0].dtype.kind == "i":
        return np.stack(labels)
    most = max(1, *(len(rows) for rows in labels))
    table = np.full((len(labels), most, 5), -1.0)
    for place, rows in enumerate(labels):
        table[place, : len(rows)] = rows
    return table


def _opened(file: Path) -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("reading images needs Pillow", extra="images") from error
    try:
        return Image.open(file)
    except Image.DecompressionBombError as error:
        what = "has far more pixels than a picture for a model"
        raise DataError(what, where=str(file), hint="Give a smaller one") from error


def _opens(file: Path) -> bool:
    try:
        with _opened(file) as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError):
        return False
    return bool(picture.width and picture.height)
