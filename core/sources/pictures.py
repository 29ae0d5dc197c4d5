"""Folders of pictures as data: by class, in any order, with boxes or masks beside them."""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Array, Batch, Rows, Source
from ..errors import DataError
from ..model import TensorSpec
from .broken import without_broken
from .picture_labels import (
    BoxLabels,
    ClassLabels,
    Labels,
    MaskLabels,
    coco_labels,
    opened,
    stacked,
    yolo_labels,
)
from .preprocess import Preprocess
from .row_store import RowStore, first_pass

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


class PictureSource(Source):
    """Pictures; the first model input is fed (N, C, H, W) or (N, H, W, C) float32."""

    anonymous = "input"
    advice = (
        "Prepare the pictures: --resize letterbox:{size}, or stretch:{size}, crop:{size}; where it "
        "takes them so, --layout nhwc or --colour grey"
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
            labels = None if self.labels is None else stacked([item["label"] for item in found])
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
        with opened(file) as picture:
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


def _opens(file: Path) -> bool:
    try:
        with opened(file) as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError):
        return False
    return bool(picture.width and picture.height)
