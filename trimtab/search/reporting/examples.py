"""Examples for the report: the items that changed most, as float and the chosen model see them.

People look before they trust a figure: each example has the answer of both in words and, where the
model takes pictures, drawn on the picture.
"""

from __future__ import annotations

import ast
import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.core.batches import fitting
from trimtab.core.data import Array
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError
from trimtab.core.metric import FITTING
from trimtab.core.metrics.average_precision import DetectionReader
from trimtab.core.metrics.detections import Detections
from trimtab.core.metrics.fidelity import THRESHOLDS, fidelity_of
from trimtab.core.metrics.kinds import OutputKind
from trimtab.core.metrics.metric import OutputQuality, Pooled
from trimtab.core.metrics.sequences import alphabet_of, collapsed
from trimtab.core.metrics.split_detector import JudgedOutputs
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig
from trimtab.core.runner import run_here
from trimtab.core.sources.picture_labels import ClassLabels
from trimtab.core.sources.pictures import PictureSource

from ...report.drawing import (
    data_uri,
    picture_of,
    plain_picture,
    with_boxes,
    with_classes,
)

#: Examples that are shown, of at most so many items or seconds that are looked at.
SHOWN, LOOKED, SECONDS = 5, 64, 30.0
#: Least score of a detection that is drawn; what a sentence names at most.
CONFIDENCE, NAMED = 0.3, 6


@dataclass(frozen=True, eq=False)
class _Item:
    """One item: its name, its feeds, and the outputs of both models."""

    name: str
    feeds: Mapping[str, Array]
    truth: Mapping[str, Array]
    mine: Mapping[str, Array]


def gather_examples(original: Model, model: Model, data: Dataset) -> dict[str, Any]:
    """Return what a model keeps of each output, and the items that changed most, as JSON values.

    Args:
        original: the float model.
        model: model to compare with it.
        data: items that nothing was calibrated on.
    """
    items = _looked_at(original, model, data)
    some = [item.truth for item in items[:FITTING]]
    metric = fidelity_of(original, some)
    assert metric.finish is not None
    scores = [metric.score(item.mine, item.truth) for item in items]
    whole = metric.finish(scores)
    worst = [_worst(metric.finish([score])) for score in scores]
    order = sorted(range(len(items)), key=lambda i: (worst[i].value, -worst[i].loss))
    painter = _Painter(original, some, data)
    return {
        "items": len(items),
        "of": len(data),
        "outputs": [output.to_json() for output in whole.outputs],
        "examples": [painter.example(items[i], worst[i]) for i in order[:SHOWN]],
        "note": painter.note,
    }


def _worst(found: Pooled) -> OutputQuality:
    """Return the output that changed most."""
    return min(found.outputs, key=lambda output: (output.value, -output.loss))


def _looked_at(original: Model, model: Model, data: Dataset) -> list[_Item]:
    """Return items with the outputs of both models, as many as there is time for."""
    few = fitting(original, data.bind(original).take(LOOKED), rows=1)
    config, end = SessionConfig(), time.monotonic() + SECONDS
    runs = zip(run_here(original, few, config), run_here(model, few, config), strict=True)
    items: list[_Item] = []
    for (batch, truth), (_, mine) in runs:
        for row in range(1 if few.source.batched else batch.size):
            name = few.source.name_of(few.row(len(items)))
            feeds = _row(batch.feeds, row, batch.size)
            items.append(
                _Item(name, feeds, _row(truth, row, batch.size), _row(mine, row, batch.size))
            )
        if time.monotonic() > end:
            break
    return items


def _row(arrays: Mapping[str, Array], row: int, rows: int) -> dict[str, Array]:
    """Return one row of a batch; arrays without a row for each stay whole."""
    return {
        name: array[row : row + 1] if array.ndim and len(array) == rows else array
        for name, array in arrays.items()
    }


class _Painter:
    """Answers of a model in words and on pictures."""

    def __init__(self, model: Model, found: Sequence[Mapping[str, Array]], data: Dataset) -> None:
        self.model, self.source = model, data.source
        self.judged = JudgedOutputs.of(model, found)
        self.found = [self.judged.merged(outputs) for outputs in found]
        self.note = ""

    def example(self, item: _Item, worst: OutputQuality) -> dict[str, Any]:
        """Return both answers to an item, in the output that changed most."""
        output = worst.name
        picture = self._picture(item.feeds)
        sides = {
            side: self._side(picture, output, self.judged.merged(outputs))
            for side, outputs in (("float", item.truth), ("ours", item.mine))
        }
        return {"name": item.name, "output": output, "kept": worst.value, **sides}

    def _picture(self, feeds: Mapping[str, Array]) -> Array | None:
        """Return the picture that was fed; None where none was."""
        known = self.source.preprocess if isinstance(self.source, PictureSource) else None
        pictures = (picture_of(array, known) for array in feeds.values())
        return next((picture for picture in pictures if picture is not None), None)

    def _side(
        self, picture: Array | None, output: str, outputs: Mapping[str, Array]
    ) -> dict[str, str]:
        kind, array = self.judged.kinds[output], outputs[output]
        found = (
            self._reader(output).read(outputs, confidence=CONFIDENCE)[0]
            if (kind.kind == "detections")
            else None
        )
        side = {"text": self._text(kind, array, found)}
        if picture is None:
            return side
        try:
            side["image"] = data_uri(self._drawn(picture, output, array, found))
        except ImportError:
            self.note = "Pictures are drawn with Pillow: pip install 'trimtab[images]'"
        return side

    @functools.cache  # noqa: B019 - as long as the painter, which is short
    def _reader(self, output: str) -> DetectionReader:
        kind = self.judged.kinds[output]
        return DetectionReader.of_output(self.model, self.found, output, kind)

    def _drawn(self, picture: Array, output: str, array: Array, found: Detections | None) -> Any:
        kind = self.judged.kinds[output]
        if found is not None:
            known = self._reader(output).head.boxes != "places"
            names = self._names(found.classes)
            return with_boxes(picture, found, names) if known else plain_picture(picture)
        if kind.kind == "classes" and array.ndim == 4:
            return with_classes(picture, array.argmax(kind.axis)[0], kind.blank)
        if kind.kind == "integers" and array.ndim in {3, 4} and min(array.shape[-2:]) > 1:
            return with_classes(picture, array.reshape(array.shape[-2:]), 0)
        if kind.kind == "scores" and array.ndim == 4:
            hot = array[0].max(int(np.argmin(array.shape[1:]))) > THRESHOLDS[-1]
            return with_classes(picture, hot.astype(np.int64), 0)
        made = picture_of(array) if kind.kind == "signal" and array.dtype.kind == "f" else None
        return plain_picture(picture if made is None else made)

    def _text(self, kind: OutputKind, array: Array, found: Detections | None) -> str:
        if found is not None:
            return self._found(found)
        if kind.kind == "class":
            return self._classes(np.moveaxis(array, kind.axis, -1).reshape(-1))
        if kind.kind == "classes":
            return self._shares(array.argmax(kind.axis))
        if kind.kind == "sequence":
            return self._line(array, kind)
        if kind.kind == "scores":
            return _hot(array)
        return _listed([f"{value:.4g}" for value in array.reshape(-1)[: NAMED + 1]], "no values")

    def _found(self, found: Detections) -> str:
        names = self._names(found.classes)
        pairs = zip(found.classes, found.scores, strict=True)
        return _listed([f"{names[int(k)]} {s:.2f}" for k, s in pairs], "nothing found")

    def _classes(self, scores: Array) -> str:
        best = np.argsort(-scores, kind="stable")[:3]
        names = self._names(best)
        return ", ".join(f"{names[int(k)]} {scores[k]:.3g}" for k in best)

    def _shares(self, chosen: Array) -> str:
        numbers, counts = np.unique(chosen, return_counts=True)
        names, order = self._names(numbers), np.argsort(-counts)
        return _listed([f"{names[int(numbers[i])]} {counts[i] / chosen.size:.1%}" for i in order])

    def _line(self, array: Array, kind: OutputKind) -> str:
        symbols = collapsed(array.argmax(kind.axis).reshape(-1), kind.blank)
        try:
            alphabet = alphabet_of(self.model, {})
        except OptionError:
            return " ".join(map(str, symbols)) or "no symbol"
        line = "".join(alphabet[k] if k < len(alphabet) else "?" for k in symbols)
        return line.replace(" ", "␣") or "no symbol"  # pages would hide spaces

    def _names(self, classes: Array) -> dict[int, str]:
        """Return the name of each class, its number where none is known."""
        known = class_names(self.model)
        labels = self.source.labels if isinstance(self.source, PictureSource) else None
        if not known and isinstance(labels, ClassLabels):
            known = dict(enumerate(labels.names))
        return {int(k): known.get(int(k), f"class {int(k)}") for k in classes}


def _listed(parts: Sequence[str], nothing: str = "nothing") -> str:
    return ", ".join(parts[:NAMED]) + (", ..." if len(parts) > NAMED else "") or nothing


def _hot(scores: Array) -> str:
    """Return which entries are above 0.5, of a mask only how many."""
    if scores.ndim == 4:
        shares = [
            f"{(scores > least).mean():.1%} of the mask above {least}" for least in THRESHOLDS
        ]
        return ", ".join(shares)
    hot = np.flatnonzero(scores.reshape(-1) > THRESHOLDS[-1])
    return _listed([str(k) for k in hot], f"no entry above {THRESHOLDS[-1]}")


def class_names(model: Model) -> dict[int, str]:
    """Return the names of classes in a model's metadata, as Ultralytics writes them."""
    text = model.ir.metadata_props.get("names", "")
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {}
    if isinstance(names, list | tuple):
        names = dict(enumerate(names))
    if not isinstance(names, dict):
        return {}
    return {int(k): str(name) for k, name in names.items() if str(k).isdigit()}
