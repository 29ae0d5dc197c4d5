"""The kinds of a model's outputs, and how values of each are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..data import Array, Floats

Kind = Literal[
    "integers",
    "class",
    "classes",
    "sequence",
    "scores",
    "detections",
    "embedding",
    "numbers",
    "signal",
]


@dataclass(frozen=True)
class OutputKind:
    """Kind of an output.

    Attributes:
        kind: integers (each value counts), class (one decision an item), classes (one decision a
            position), sequence (decisions along time, with a blank), scores (each entry between 0
            and 1), detections (boxes beside scores), embedding (rows of length one), numbers (few
            of an item, each with a spread), signal (all else).
        axis: axis of the classes, or of the columns of a detection.
        scores: for detections, first column of the scores.
        end: for detections, column behind the scores, from which on each has a mask's coefficients
            or landmarks; 0 where the scores are last.
        labels: for detections whose last column is the number of the class, how many there are.
        blank: for sequences and classes, the most frequent decision.
        centre: of numbers, the mean of each.
        spread: of numbers, the standard deviation of each.
        time_major: true for a sequence (time, N, symbols), as recurrent networks give it.
    """

    kind: Kind
    axis: int = 1
    scores: int = 0
    end: int = 0
    labels: int = 0
    blank: int = 0
    centre: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()
    time_major: bool = False

    def __str__(self) -> str:
        return _WORDS[self.kind]


_WORDS: dict[Kind, str] = {
    "integers": "integers, equal or not",
    "class": "class scores, the first class",
    "classes": "classes of positions, all but the most frequent",
    "sequence": "a sequence of classes, edits of its symbols",
    "scores": "scores, the entries above 0.3 and 0.5",
    "detections": "boxes and scores, the detections found again",
    "embedding": "an embedding, its squared relative error",
    "numbers": "numbers, their squared error relative to their spread",
    "signal": "a signal, its relative error",
}


def decisions(array: Array, kind: OutputKind) -> Array:
    """Return the decisions of each item: (N, positions)."""
    chosen: Array = array.argmax(kind.axis)
    return chosen.T if kind.time_major else chosen.reshape(len(chosen), -1)


def standardised(array: Floats, kind: OutputKind) -> Floats:
    """Return numbers (N, columns), or (N,), as differences from their means in their spreads."""
    columns = array.reshape(-1, len(kind.centre))
    return np.asarray((columns - np.array(kind.centre)) / np.array(kind.spread))


def score_columns(array: Floats, kind: OutputKind) -> tuple[Floats, Floats]:
    """Return the boxes (N, positions, columns) and the scores of a tensor of detections."""
    moved = _columns(array, kind)
    scores = moved[..., kind.scores : kind.end or None]
    if kind.labels:
        number = np.clip(np.round(moved[..., -1:]), 0, kind.labels - 1)
        scores = scores[..., :1] * (number == np.arange(kind.labels))
    return moved[..., : kind.scores], scores


def other_columns(array: Floats, kind: OutputKind) -> Floats:
    """Return what stands behind the scores of detections: (N, positions, columns)."""
    columns = _columns(array, kind)
    return columns[..., kind.end if kind.end and not kind.labels else columns.shape[-1] :]


def _columns(array: Floats, kind: OutputKind) -> Floats:
    return np.moveaxis(array, kind.axis, -1).reshape(len(array), -1, array.shape[kind.axis])
