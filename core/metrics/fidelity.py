"""Fidelity: the part of the float model's answers that a candidate keeps, without labels.

Each output is judged by what it is (`recognition`), the worst one counts. Decisions are counted: a
detector whose average error is small may have lost every object. Errors of signals are pooled over
all items, so that a silent one does not dominate. Besides, each output has a loss, a squared error
relative to its size, that tells apart candidates whose decisions are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..data import Array, Floats, tensors
from ..model import Model
from .average_precision import DetectionReader
from .detections import nearest_of_class
from .kinds import OutputKind, decisions, other_columns, score_columns, standardised
from .metric import Metric, OutputQuality, Pooled, ratio_items
from .sequences import alphabet_of, collapsed, edits
from .split_detector import JudgedOutputs

#: Thresholds of scores; what lies above counts.
THRESHOLDS = (0.3, 0.5)
#: Symbols of a sequence of which each edit spoils all: a line of text, or a part of a long one.
SYMBOLS = 16
#: Elements of an output that are judged at a time.
PART_ELEMENTS = 1 << 18


@dataclass(frozen=True)
class _Judge:
    """An output's kind, and what its scoring needs.

    Attributes:
        kind: see `OutputKind`.
        reader: reader of detections, None for other kinds.
        spaces: symbols of a sequence that do not count.
        wholes: whole numbers or texts in a row; 0 of other kinds.
    """

    kind: OutputKind
    reader: DetectionReader | None = None
    spaces: frozenset[int] = frozenset()
    wholes: int = 0

    def score(self, mine: Array, truth: Array) -> Floats:
        """Return (N, 2): what was kept of each item, and what there was to keep.

        Of scores it is (N, 4), such a pair for each threshold; of detections that have more than
        boxes and scores as well, such a pair for that.
        """
        rows = len(truth) if truth.ndim else 1
        mine, truth = _of_one_length(mine, truth, self.kind)
        if mine.shape != truth.shape or not truth.size:
            return _of_rows(mine, truth)
        if self.kind.kind == "integers":
            same = (mine == truth).reshape(rows, -1)
            return np.stack([same.mean(1) if same.size else np.ones(rows), np.ones(rows)], 1)
        a, b = _finite(truth, truth).reshape(rows, -1), _finite(mine, truth).reshape(rows, -1)
        if self.kind.kind == "numbers":
            a, b = standardised(a, self.kind), standardised(b, self.kind)
        if self.kind.kind == "signal":
            return np.stack([np.square(a - b).sum(1), np.square(a).sum(1)], 1)
        if self.kind.kind in {"embedding", "numbers"}:  # of the first twice the loss of the cosine
            size = np.square(a).sum(1)
            return np.stack([size - np.square(a - b).sum(1), size], 1)
        if self.kind.kind == "scores":
            return _of_scores(b, a)
        shape = truth.shape
        return np.stack(self._decisions(b.reshape(shape), a.reshape(shape)), 1)

    def _decisions(self, mine: Floats, truth: Floats) -> tuple[Floats, ...]:
        if self.reader is not None:
            pair = ({self.reader.name: array} for array in (truth, mine))
            return (*self.reader.found_again(*pair), *_others(mine, truth, self.kind))
        got, wanted = decisions(mine, self.kind), decisions(truth, self.kind)
        if self.kind.kind == "class":
            return (got == wanted).mean(1, dtype=np.float64), np.ones(len(got))
        if self.kind.kind == "sequence":
            pairs = zip(got, wanted, strict=True)
            return np.array([self._read_alike(a, b) for a, b in pairs]), np.ones(len(got))
        counts = (got != self.kind.blank) | (wanted != self.kind.blank)
        alike = (got == wanted) & counts
        return alike.sum(1, dtype=np.float64), counts.sum(1, dtype=np.float64)

    def _read_alike(self, mine: Array, truth: Array) -> float:
        """Return the part of a line without an edit, 1 or 0 for a short one."""
        read = (collapsed(line, self.kind.blank) for line in (mine, truth))
        a, b = ([k for k in line if k not in self.spaces] for line in read)
        pieces = max(1, -(-max(len(a), len(b)) // SYMBOLS))
        return max(0.0, 1 - edits(a, b) / pieces)

    def value(self, table: Floats) -> tuple[float, Floats]:
        """Return the kept part over all items (N, 2), and (N,) each item's part in it.

        Of several pairs that of the one where it is less.
        """
        if table.shape[1] > 2:
            return min((self.value(pair) for pair in np.split(table, 2, axis=1)), key=_first)
        kept, all_ = table.sum(0)
        if self.kind.kind == "signal":
            ratio = float(np.sqrt(kept / max(all_, 1e-24))) if kept > 0 else 0.0
            if ratio >= 1 or ratio == 0:
                return max(0.0, 1 - ratio), np.full(len(table), max(0.0, 1 - ratio))
            pull = (table[:, 0] - ratio**2 * table[:, 1]) / (2 * ratio * table[:, 1].mean())
            return 1 - ratio, 1 - ratio - pull
        items = ratio_items(table[:, 0], table[:, 1])
        return max(0.0, float(kept / all_)) if all_ else 1.0, items

    def unit(self, table: Floats) -> float:
        """Return the part of an item that one decision is, 0 of a signal, which has none."""
        if self.kind.kind == "signal":
            return 0.0
        return 1 / max(1.0, self.wholes, float(table[:, 1].mean()))


def _of_one_length(mine: Array, truth: Array, kind: OutputKind) -> tuple[Array, Array]:
    """Return lists of detections (N, columns, detections) of one length, by zeros at the end."""
    listed = kind.labels and kind.axis == 1 and mine.ndim == truth.ndim == 3
    if not listed or mine.shape == truth.shape or mine.shape[:2] != truth.shape[:2]:
        return mine, truth
    longest = max(mine.shape[2], truth.shape[2])
    a, b = (np.pad(x, ((0, 0), (0, 0), (0, longest - x.shape[2]))) for x in (mine, truth))
    return a, b


def squared_parts(kind: OutputKind, mine: Array, truth: Array) -> Floats:
    """Return the squared errors, and the squares, of the parts of an output: (2, parts).

    Boxes and scores are two parts, all other outputs one.
    """
    mine, truth = _of_one_length(mine, truth, kind)
    if mine.shape != truth.shape or truth.dtype.kind != "f":
        wrong = float(mine.shape != truth.shape or (mine != truth).mean()) if truth.size else 0
        return np.array([[wrong * max(truth.size, 1)], [max(truth.size, 1)]])
    a, b = _finite(truth, truth), _finite(mine, truth)
    if kind.labels and kind.axis == 1 and truth.size:
        b = np.take_along_axis(b, nearest_of_class(a, b)[:, None], 2)
    if kind.kind == "numbers":
        a, b = standardised(a, kind), standardised(b, kind)
    if kind.kind != "detections":
        np.subtract(a, b, out=b)  # both are copies, and as large as all outputs of a batch
        parts = [[np.square(x, out=x).sum()] for x in (b, a)]
        return np.array(parts)
    boxes, scores = score_columns(a, kind)
    boxes2, scores2 = score_columns(b, kind)
    weight = scores.max(-1, keepdims=True)  # a box counts by how sure it is of its object
    spread = np.square(boxes - boxes.mean((0, 1))) * weight
    return np.array(
        [
            [np.square(scores - scores2).sum(), (np.square(boxes - boxes2) * weight).sum()],
            [np.square(scores).sum(), spread.sum()],
        ]
    )


def _others(mine: Floats, truth: Floats, kind: OutputKind) -> tuple[Floats, ...]:
    """Return of each item how much of what stands behind the scores of its objects was kept.

    Errors of landmarks and of coefficients of masks, relative to their spread over all positions.
    Nothing where detections have no such columns.
    """
    a, b = other_columns(truth, kind), other_columns(mine, kind)
    if not a.shape[-1]:
        return ()
    _, scores = score_columns(truth, kind)
    sure = scores.max(-1, keepdims=True) > THRESHOLDS[0]
    centre, spread = a.mean((0, 1)), np.maximum(a.std((0, 1)), 1e-12)
    size = (np.square((a - centre) / spread) * sure).sum((1, 2))
    error = (np.square((a - b) / spread) * sure).sum((1, 2))
    return np.maximum(size - np.sqrt(size * error), 0), size


def _finite(array: Array, truth: Array) -> Floats:
    """Return the array in double precision: where the truth is infinite by design 0 is compared.

    What is NaN or infinite in a candidate alone becomes a large error.
    """
    wide = array.astype(np.float64)
    meant = np.isfinite(truth)
    if meant.all() and (array is truth or np.isfinite(array).all()):
        return wide
    return np.where(meant, np.where(np.isfinite(wide), wide, 1e9), 0.0)


def _of_rows(mine: Array, truth: Array) -> Floats:
    """Return what is kept of an output whose shape differs: rows found again of two axes.

    Of an output without elements there is nothing to keep.
    """
    if mine.shape == truth.shape:
        return np.zeros((max(len(truth), 1), 2))
    if mine.ndim == truth.ndim == 2 and mine.shape[1:] == truth.shape[1:]:
        left = [tuple(row) for row in np.round(mine.astype(np.float64), 3)]
        hits = 0
        for row in map(tuple, np.round(truth.astype(np.float64), 3)):
            if row in left:
                left.remove(row)
                hits += 1
        return np.array([[2.0 * hits, float(len(mine) + len(truth))]])
    return np.array([[0.0, 1.0]])


def _of_scores(mine: Floats, truth: Floats) -> Floats:
    """Return per item F1's parts of the entries above each threshold; of one entry, agreement."""
    if truth.shape[1] == 1:
        alike = (mine > THRESHOLDS[-1]) == (truth > THRESHOLDS[-1])
        return np.stack([alike[:, 0].astype(np.float64), np.ones(len(truth))], 1)
    columns = []
    for least in THRESHOLDS:
        a, b = mine > least, truth > least
        columns += [2.0 * (a & b).sum(1), (a.sum(1) + b.sum(1)).astype(np.float64)]
    return np.stack(columns, 1)


def _joined(tables: Sequence[Floats]) -> Floats:
    """Return tables of batches as one; where some have a pair for each threshold, all do."""
    width = max(table.shape[1] for table in tables)
    return np.concatenate([np.tile(table, width // table.shape[1]) for table in tables])


def _first(found: tuple[float, Floats]) -> float:
    return found[0]


@dataclass(frozen=True, eq=False)
class _Scored:
    """Scores of one batch: by output a table (N, 2), and parts of the loss (2, parts)."""

    tables: Mapping[str, Floats]
    losses: Mapping[str, Floats]


def _wholes(array: Array) -> int:
    """Return how many whole numbers, or texts, a row has."""
    return array.size // max(1, len(array)) if array.ndim else 1


def fidelity_of(model: Model, found: Sequence[Mapping[str, Array]]) -> Metric:
    """Return the metric `fidelity` for a float model.

    Args:
        model: the float model.
        found: its outputs for some batches, by which the kind of each output is known.
    """
    found = [tensors(outputs) for outputs in found]
    judged = JudgedOutputs.of(model, found)
    found = [judged.merged(outputs) for outputs in found]
    judges = {
        name: _Judge(
            kind,
            DetectionReader.of_output(model, found, name, kind)
            if kind.kind == "detections"
            else None,
            _spaces(model) if kind.kind == "sequence" else frozenset(),
            _wholes(found[0][name]) if kind.kind == "integers" else 0,
        )
        for name, kind in judged.kinds.items()
    }

    def score(outputs: Mapping[str, Array], reference: Mapping[str, Array]) -> _Scored:
        outputs, reference = (judged.merged(tensors(o)) for o in (outputs, reference))
        scored = {
            name: _in_parts(judge, np.atleast_1d(outputs[name]), np.atleast_1d(reference[name]))
            for name, judge in judges.items()
        }
        return _Scored(
            {name: table for name, (table, _) in scored.items()},
            {name: loss for name, (_, loss) in scored.items()},
        )

    def finish(scored: Sequence[_Scored]) -> Pooled:
        outputs, items, units = [], {}, {}
        for name, judge in judges.items():
            table = _joined([s.tables[name] for s in scored])
            value, items[name] = judge.value(table)
            noise, size = np.sum([s.losses[name] for s in scored], axis=0)
            loss = float(np.mean(noise / np.maximum(size, 1e-24)))
            # Whole numbers that are the same do not tell that what they are made from is.
            units[name] = judge.unit(table) if loss or judge.wholes else 0.0
            outputs.append(OutputQuality(name, str(judge.kind), value, loss))
        worst = min(outputs, key=lambda output: output.value)
        return Pooled(worst.value, items[worst.name], tuple(outputs), units[worst.name])

    return replace(FIDELITY, score=score, finish=finish, fit=None)


def _in_parts(judge: _Judge, mine: Array, truth: Array) -> tuple[Floats, Floats]:
    """Return the table of an output and the parts of its loss, from few items at a time.

    Judging takes copies in double precision, which of a line of 6,000 symbols for each of its
    letters are large. What is relative to all items, as boxes are, is judged as a whole, and so is
    what has no axis of items in front.
    """
    rows = max(1, PART_ELEMENTS // max(truth[:1].size, 1))
    whole = judge.kind.kind == "detections" or judge.kind.time_major
    if whole or mine.shape != truth.shape or len(truth) <= rows:
        return judge.score(mine, truth), squared_parts(judge.kind, mine, truth)
    parts = [(mine[i : i + rows], truth[i : i + rows]) for i in range(0, len(truth), rows)]
    tables = np.concatenate([judge.score(*part) for part in parts])
    return tables, np.sum([squared_parts(judge.kind, *part) for part in parts], axis=0)


def _spaces(model: Model) -> frozenset[int]:
    """Return the symbols that are spaces, where the file has an alphabet.

    PaddleOCR's own metric, `RecMetric`, leaves them out as well.
    """
    if "character" not in model.ir.metadata_props:
        return frozenset()
    return frozenset(k for k, symbol in enumerate(alphabet_of(model, {})) if symbol == " ")


def _unfitted(_outputs: Mapping[str, Array], _reference: Any) -> Any:
    raise AssertionError("fidelity is fitted to the reference before it scores")


#: The metric before it is fitted to a reference.
FIDELITY = Metric(
    "fidelity",
    _unfitted,
    itemwise=True,
    wants="reference",
    needs="the float model; each output is judged by what it is, the worst counts",
    fit=fidelity_of,
)
