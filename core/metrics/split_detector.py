"""Detectors with outputs of their own for boxes and for scores, of one level or of several.

SSD and UltraFace give boxes beside scores, NanoDet such a pair for each stride, YuNet and YOLOX
without its last layers boxes, objectness and classes for each. Joined they are read as detectors
with a single output are: a box counts where there is an object.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..batches import fixed_rows
from ..data import Array, Floats
from ..model import Model
from .detection_list import BOX, DetectionList, DetectionRows, finite
from .detections import has_background, nearest_of_class
from .item_axes import item_axes, items_first
from .kinds import OutputKind
from .recognition import output_kinds

#: Kinds of scores that sum to one: alone, most often nothing, they look like a line of text.
_CHOICES = frozenset({"classes", "sequence"})
#: Fewest positions of a level.
POSITIONS = 9


@dataclass(frozen=True)
class Level:
    """Outputs of one level.

    Attributes:
        boxes: four numbers a position, or as many bins of a distribution for each of the four
            (Li et al., "Generalized Focal Loss", 2020).
        scores: those of classes; and of any object, which multiplies them, where there is one.
        others: what else each position has, as landmarks.
        axes: axis of the columns of each.
    """

    boxes: str
    scores: tuple[str, ...]
    others: tuple[str, ...]
    axes: Mapping[str, int]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all its outputs."""
        return (self.boxes, *self.scores, *self.others)

    def columns(self, outputs: Mapping[str, Array], name: str) -> Floats:
        """Return the finite values of an output as (N, positions, columns)."""
        array = np.moveaxis(finite(outputs[name]), self.axes[name], -1)
        return array.reshape(len(array), -1, array.shape[-1])

    def widths(self, outputs: Mapping[str, Array]) -> tuple[int, ...]:
        """Return the number of columns of each output."""
        return tuple(outputs[name].shape[self.axes[name]] for name in self.names)

    def joined(self, outputs: Mapping[str, Array]) -> Floats:
        """Return boxes, scores and what else there is: (N, positions, columns)."""
        boxes = _sides(self.columns(outputs, self.boxes))
        scores = math.prod(self.columns(outputs, name) for name in self.scores)
        others = [self.columns(outputs, name) for name in self.others]
        return np.concatenate([boxes, scores, *others], axis=-1)


@dataclass(frozen=True)
class SplitDetector:
    """Outputs that together are detections.

    Attributes:
        levels: levels, that of most positions first; or what a detector chose itself.
        kind: kind of the joined outputs (N, columns, positions).
        flat: true where outputs are (positions, columns), without an axis of rows.
    """

    levels: tuple[Level | DetectionList | DetectionRows, ...]
    kind: OutputKind
    flat: bool = False

    @classmethod
    def of(
        cls, model: Model, kinds: Mapping[str, OutputKind], found: Sequence[Mapping[str, Array]]
    ) -> SplitDetector | None:
        """Return the detector that outputs of these kinds are; None where they are none.

        Args:
            model: the float model.
            kinds: what its outputs are, each by itself.
            found: its outputs for some batches.
        """
        one_row = fixed_rows(model) == 1
        for form in (DetectionList, DetectionRows):
            listed = form.of(found, one_row=one_row)
            if listed is not None:
                return cls((listed[0],), listed[1])
        flat = _are_flat(found[0])
        if flat:
            found = [_with_rows(outputs) for outputs in found]
            kinds = output_kinds(model, found)
        outputs = found[0]
        kinds = {name: _within(kind, [o[name] for o in found]) for name, kind in kinds.items()}
        for axes in (_last_axes(outputs), _first_axes(outputs)):
            levels = _levels(kinds, outputs, axes)
            if len({level.widths(outputs) for level in levels}) != 1:
                continue
            boxes, *widths = levels[0].widths(outputs)
            if boxes > BOX and len(levels) < 2:
                continue  # features beside scores look like bins of a single level
            end = BOX + max(widths[: len(levels[0].scores)]) if levels[0].others else 0
            return cls(levels, OutputKind("detections", axis=1, scores=BOX, end=end), flat)
        return None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all its outputs."""
        return tuple(name for level in self.levels for name in level.names)

    @property
    def name(self) -> str:
        """Name of them together."""
        first, rest = ", ".join(self.levels[0].names), len(self.levels) - 1
        levels = "level" if rest == 1 else "levels"
        return f"{first} and those of {rest} further {levels}" if rest else first

    def kinds(self, kinds: Mapping[str, OutputKind]) -> dict[str, OutputKind]:
        """Return kinds of outputs with one for all of the detector's."""
        return {self.name: self.kind} | {n: k for n, k in kinds.items() if n not in self.names}

    def merged(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return outputs with one of the detector, whose columns are the first axis behind rows.

        Outputs that do not belong together any more give one without elements.
        """
        known = _with_rows(outputs) if self.flat else outputs
        try:
            levels = [level.joined(known) for level in self.levels]
            joined = np.moveaxis(np.concatenate(levels, axis=1), -1, 1)
        except ValueError:
            joined = np.zeros((len(outputs[self.names[0]]), 0))
        rest = {name: array for name, array in outputs.items() if name not in self.names}
        return {self.name: joined} | rest


@dataclass(frozen=True, eq=False)
class JudgedOutputs:
    """Outputs as they are judged: those of a split detector as one, items on the first axis.

    Attributes:
        kinds: what each is, by name.
        split: the detector, None where there is none.
        axes: axis of the items of each output that has them on another than the first.
    """

    kinds: Mapping[str, OutputKind]
    split: SplitDetector | None
    axes: Mapping[str, int]

    @classmethod
    def of(cls, model: Model, found: Sequence[Mapping[str, Array]]) -> JudgedOutputs:
        """Return those of a float model whose outputs for some batches these are."""
        axes = item_axes(model)
        found = [items_first(outputs, axes) for outputs in found]
        kinds = output_kinds(model, found)
        split = SplitDetector.of(model, kinds, found)
        return cls(kinds if split is None else split.kinds(kinds), split, axes)

    def merged(self, outputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the outputs of any model as they are judged."""
        outputs = items_first(outputs, self.axes)
        return outputs if self.split is None else self.split.merged(outputs)

    def in_order_of(
        self, reference: Mapping[str, Array], outputs: Mapping[str, Array]
    ) -> Mapping[str, Array]:
        """Return outputs with the detections of lists in the order of a reference.

        Each detection of the reference gets the nearest of its class, or zeros where there is none;
        other outputs stay as they are.
        """
        level = None if self.split is None else self.split.levels[0]
        if self.split is None or level is None or isinstance(level, Level):
            return outputs
        truth, found = (self.split.merged(o)[self.split.name] for o in (reference, outputs))
        if not truth.size or len(truth) != len(found):
            return outputs
        listed = [n for n in level.names if n not in level.counts]
        if not found.size:
            return {**outputs, **{n: np.zeros_like(reference[n]) for n in listed}}
        order = nearest_of_class(truth, found)[..., None]
        rows = {n: outputs[n].reshape(len(found), found.shape[2], -1) for n in listed}
        taken = {n: np.take_along_axis(a, order, 1) for n, a in rows.items()}
        return {**outputs, **{n: a.reshape(reference[n].shape) for n, a in taken.items()}}


def _are_flat(outputs: Mapping[str, Array]) -> bool:
    """Return whether outputs are (positions, columns) of several levels, as SCRFD has them."""
    alike = all(a.ndim == 2 for a in outputs.values())
    return alike and len({len(a) for a in outputs.values()}) > 1


def _with_rows(outputs: Mapping[str, Array]) -> dict[str, Array]:
    return {name: array[None] for name, array in outputs.items()}


def _within(kind: OutputKind, arrays: Sequence[Array]) -> OutputKind:
    """Return scores for numbers between 0 and 1: beside boxes also undecided ones are scores."""
    if kind.kind not in {"signal", "numbers"} or not all(a.size for a in arrays):
        return kind
    low, high = min(a.min() for a in arrays), max(a.max() for a in arrays)
    return OutputKind("scores" if low >= -1e-3 and high <= 1 + 1e-3 else "signal")


def _last_axes(outputs: Mapping[str, Array]) -> dict[str, int]:
    """Return the last axis of each output as that of its columns.

    Of (N, columns, positions) beside boxes (N, positions, 4) it is the first behind the rows.
    """
    flat = [a.shape for a in outputs.values() if a.ndim == 3]
    positions = {shape[1] for shape in flat if shape[2] == BOX}
    return {
        n: 1
        if a.ndim == 3 and a.shape[1] not in positions and a.shape[2] in positions
        else a.ndim - 1
        for n, a in outputs.items()
    }


def _first_axes(outputs: Mapping[str, Array]) -> dict[str, int]:
    """Return the first axis behind the rows of each output as that of its columns."""
    return dict.fromkeys(outputs, 1)


def _levels(
    kinds: Mapping[str, OutputKind], outputs: Mapping[str, Array], axes: Mapping[str, int]
) -> tuple[Level, ...]:
    """Return the outputs of each level, that of most positions first."""
    places: dict[tuple[int, ...], dict[str, int]] = {}
    for name, array in outputs.items():
        if array.ndim in {3, 4} and array.dtype.kind == "f":
            place = tuple(np.delete(array.shape, [0, axes[name]]).tolist())
            places.setdefault(place, {})[name] = array.shape[axes[name]]
    largest = sorted(places, key=math.prod, reverse=True)
    found = [_level(kinds, outputs, places[p], axes) for p in largest if math.prod(p) >= POSITIONS]
    return tuple(level for level in found if level is not None)


def _level(
    kinds: Mapping[str, OutputKind],
    outputs: Mapping[str, Array],
    widths: Mapping[str, int],
    axes: Mapping[str, int],
) -> Level | None:
    """Return the level that outputs of the same positions are; None where they are none."""
    boxes = _boxes(kinds, widths)
    scores = sorted(n for n in widths if n != boxes and _are_scores(kinds[n], outputs[n], axes[n]))
    others = sorted(n for n in widths if n != boxes and n not in scores)
    if boxes is None or not 1 <= len(scores) <= 2:
        return None
    if len(scores) == 2 and 1 not in {widths[name] for name in scores}:
        return None
    return Level(boxes, tuple(scores), tuple(others), axes)


def _are_scores(kind: OutputKind, array: Array, axis: int) -> bool:
    """Return whether an output is scores; of those that sum to one the first is that of nothing.

    Else they are tokens, whose boxes are those of a table's cells.
    """
    if kind.kind in _CHOICES and kind.axis == axis:
        return has_background(np.moveaxis(array, axis, -1))
    return kind.kind == "scores"


def _boxes(kinds: Mapping[str, OutputKind], widths: Mapping[str, int]) -> str | None:
    """Return the output of boxes: four columns, relative ones within 0 and 1, or bins of four."""
    signals = [name for name in widths if kinds[name].kind == "signal"]
    scores = [name for name in widths if kinds[name].kind == "scores"]
    bins = [name for name in signals if widths[name] > BOX and widths[name] % BOX == 0]
    plain = [[name for name in names if widths[name] == BOX] for names in (signals, scores)]
    for found in (*plain, bins):
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _sides(boxes: Floats) -> Floats:
    """Return boxes (N, P, 4): of bins (N, P, 4 * bins) the mean of each distribution."""
    if boxes.shape[-1] == BOX:
        return boxes
    bins = boxes.reshape(*boxes.shape[:-1], BOX, -1)
    weights = np.exp(bins - bins.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.asarray(weights @ np.arange(bins.shape[-1]))
