"""The content of a report, read from the document that `optimize` writes.

A document may come from anywhere: an invalid one gives a single message, and all texts in it are
untrusted until `markup` has escaped them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.core.errors import DataError

Json = Mapping[str, Any]
#: Schema of the documents that are read; `optimize` writes the same.
SCHEMA = 1


@dataclass(frozen=True)
class Confirmed:
    """Figures of a candidate on evidence that it was not chosen on; None where not known.

    Attributes:
        drop: loss of the metric against the original.
        drop_low: lower end of its 95% interval.
        drop_high: upper end.
        items: number of items.
        part: the splits that they are of, in words.
        quality: verdict on the allowed drop: held, broken or not settled.
        kept_answers: part of the original's answers that it gives on all rows.
        speedup: speed-up in the fresh run.
        low: lower end of its 95% interval.
        high: upper end.
        speed: proved, open or refuted.
        p50_ns: median latency in the fresh run.
        p95_ns: 95th percentile.
        samples_ns: all its runs there.
        metric: name of the metric.
        others: losses of the further metrics that are limited.
    """

    drop: float | None = None
    drop_low: float | None = None
    drop_high: float | None = None
    items: int = 0
    part: str = ""
    quality: str = ""
    kept_answers: float | None = None
    speedup: float | None = None
    low: float | None = None
    high: float | None = None
    speed: str = ""
    p50_ns: float | None = None
    p95_ns: float | None = None
    samples_ns: tuple[float, ...] = ()
    metric: str = ""
    others: tuple[Confirmed, ...] = ()


@dataclass(frozen=True)
class Row:
    """Figures of a candidate, or of the original; None where something is not known.

    Attributes:
        name: name of the recipe.
        size_bytes: size of the file.
        quality: quality on the selection split, on which all candidates are compared.
        quality_error: its standard error.
        part: the split that quality and drop are of: `selection`, `test` where that is not known.
        drop: loss of the metric against the original, on the same split.
        drop_error: paired standard error of the drop.
        base_p50_ns: median latency of the original in the run that measured the candidate.
        p50_ns: median latency in that run.
        p95_ns: 95th percentile in that run.
        speedup: speed-up over the original in that run.
        low: lower end of its 95% interval.
        high: upper end.
        verdict: verdict of the comparison, or the reason why there is none.
        same_as: name of the candidate whose measurement this is, as it runs the same kernels.
        predicted: true where the speed-up is that of a cost model.
        chosen: true for the answer.
        frontier: true where no other is better in both quality and the goal.
        note: reason why it failed or was dropped.
        further: metric, value and loss of each further metric that is limited.
        confirmed: what fresh evidence says; None where none was taken.
    """

    name: str
    size_bytes: int = 0
    quality: float | None = None
    quality_error: float | None = None
    part: str = ""
    drop: float | None = None
    drop_error: float | None = None
    base_p50_ns: float | None = None
    p50_ns: float | None = None
    p95_ns: float | None = None
    speedup: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: str = ""
    same_as: str = ""
    predicted: bool = False
    chosen: bool = False
    frontier: bool = False
    note: str = ""
    further: tuple[tuple[str, float | None, float | None], ...] = ()
    confirmed: Confirmed | None = None


@dataclass(frozen=True)
class View:
    """A search as a report shows it.

    Attributes:
        model: name of the source.
        metric: metric of quality.
        original: the float model.
        rows: the candidates, in the order of the search.
        constraints: limits and goal of the search.
        why: reasons for the choice, in sentences.
        marks: caveats about the evidence.
        data: source and number of items of each split.
        evidence: layers, widths, islands and lineage of the original and the winner.
        base_ns: latencies of the original, interleaved with the winner's.
        chosen_ns: latencies of the winner.
        recipe: recipe of the winner.
        advice: what would give a better answer.
        document: the whole document, as it was read.
    """

    model: str
    metric: str
    original: Row
    rows: tuple[Row, ...]
    constraints: Json
    why: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    data: Json = field(default_factory=dict)
    evidence: Json = field(default_factory=dict)
    base_ns: tuple[float, ...] = ()
    chosen_ns: tuple[float, ...] = ()
    recipe: Json | None = None
    advice: str = ""
    document: Json = field(default_factory=dict)

    @property
    def chosen(self) -> Row | None:
        """The answer, None where nothing satisfied the constraints."""
        return next((row for row in self.rows if row.chosen), None)

    @property
    def environment(self) -> Json:
        """Machine and software of the measurement; empty where nothing was measured."""
        known: Json = self.evidence.get("environment") or _environment(self.document)
        return known


def load(path: str | Path) -> View:
    """Read a `result.json`.

    Raises:
        DataError: it cannot be read, is not a result of `optimize`, or has another schema.
    """
    from trimtab.runtime_bench.measure.values import load as load_document

    return view(load_document(Path(path), newest=SCHEMA), where=str(path))


def view(document: Json, *, where: str = "result") -> View:
    """Read a document.

    Raises:
        DataError: it is not a result of `optimize`, or has another schema.
    """
    if document.get("kind") != "optimize":
        raise DataError(
            f"is not a result of `trimtab optimize` but {document.get('kind')!r}",
            where=where,
            hint="Give the result.json in the folder that `optimize -o` wrote",
        )
    if document.get("schema") != SCHEMA:
        raise DataError(
            f"has schema {document.get('schema')}, this trimtab reads {SCHEMA}",
            where=where,
            hint="Run `trimtab optimize` again, or use the trimtab that wrote it",
        )
    with damage_reported(where):
        return _view(document)


@contextlib.contextmanager
def damage_reported(where: str) -> Iterator[None]:
    """Turn the errors of a document with missing or wrong parts into one message."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(
            f"is damaged ({type(error).__name__}: {error})",
            where=where,
            hint="Run `trimtab optimize` again",
        ) from error


def _view(document: Json) -> View:
    results: Sequence[Json] = document["results"]
    evidence: Json = document.get("evidence") or {}
    measured = {r["name"]: r["comparison"] for r in results if r.get("comparison")}
    chosen: Json = next((r for r in results if r["name"] == document.get("chosen")), {})
    # The comparison of the winner with most evidence is the fresh run, where there is one.
    final = chosen.get("confirmation") or _measured(chosen, measured) if chosen else {}
    base = final or next(iter(measured.values()), {})
    base_ns, chosen_ns = (
        tuple(map(float, final.get(side, {}).get("samples_ns", ())))
        for side in ("base", "candidate")
    )
    return View(
        model=str(_source(results)),
        metric=str(_quality(document["original"])[1].get("metric", "quality")),
        original=_original(document["original"], base.get("base", {})),
        rows=tuple(_row(r, measured, document, evidence) for r in results),
        constraints=dict(document["constraints"]),
        why=tuple(map(str, document.get("why", ()))),
        marks=tuple(map(str, document.get("marks", ()))),
        data=dict(document.get("data", {})),
        evidence=dict(evidence),
        base_ns=base_ns,
        chosen_ns=chosen_ns,
        recipe=chosen.get("recipe"),
        advice=str(document.get("advice") or ""),
        document=document,
    )


def _source(results: Sequence[Json]) -> object:
    recipes = [r["recipe"] for r in results if r.get("recipe")]
    return next((r["model"] for r in recipes if r.get("model")), "model")


def _measured(result: Json, measured: Mapping[str, Json]) -> Json:
    """Return the comparison of a result, or of the one that runs the same kernels."""
    return measured.get(result.get("measured_as") or result["name"]) or {}


def _confirmed(result: Json) -> Confirmed | None:
    """Return what fresh evidence says of a result; of one without, its test split."""
    loss: Json = result.get("loss") or {}
    again: Json = result.get("confirmation") or {}
    if not loss and not again and not result.get("test"):
        return None
    candidate: Json = again.get("candidate", {})
    return Confirmed(
        number(loss.get("value")),
        number(loss.get("low")),
        number(loss.get("high")),
        int(loss.get("items", 0)),
        str(loss.get("part", "")),
        str(loss.get("verdict", "")),
        number(result.get("kept_answers")),
        number(again.get("ratio")),
        number(again.get("low")),
        number(again.get("high")),
        str(result.get("standing") or ""),
        number(candidate.get("p50_ns")),
        number(candidate.get("p95_ns")),
        tuple(map(float, candidate.get("samples_ns", ()))),
        str(loss.get("metric", "")),
        tuple(known for o in loss.get("others", ()) if (known := _confirmed({"loss": o}))),
    )


def _quality(result: Json) -> tuple[str, Json]:
    """Return the split that was evaluated, and its quality; empty where none was."""
    return next(((p, result[p]) for p in ("selection", "test") if result.get(p)), ("", {}))


def _original(result: Json, base: Json) -> Row:
    part, quality = _quality(result)
    return Row(
        "original",
        int(result["size_bytes"]),
        number(quality.get("value")),
        number(quality.get("standard_error")),
        part,
        p50_ns=number(base.get("p50_ns")),
        p95_ns=number(base.get("p95_ns")),
    )


def _row(result: Json, measured: Mapping[str, Json], document: Json, evidence: Json) -> Row:
    name = str(result["name"])
    part, quality = _quality(result)
    comparison = _measured(result, measured)
    candidate: Json = comparison.get("candidate", {})
    drop, drop_error = _drop(name, part, quality, document, evidence)
    predicted = number(result.get("predicted"))
    ratio = number(comparison.get("ratio"))
    verdict = str(comparison.get("verdict") or ("failed" if result.get("failure") else ""))
    return Row(
        name=name,
        size_bytes=int(result["size_bytes"]),
        quality=number(quality.get("value")),
        quality_error=number(quality.get("standard_error")),
        part=part,
        drop=drop,
        drop_error=drop_error,
        base_p50_ns=number(comparison.get("base", {}).get("p50_ns")),
        p50_ns=number(candidate.get("p50_ns")),
        p95_ns=number(candidate.get("p95_ns")),
        speedup=predicted if ratio is None else ratio,
        low=number(comparison.get("low")) if ratio is not None else None,
        high=number(comparison.get("high")) if ratio is not None else None,
        verdict=verdict or ("predicted" if predicted else "not measured"),
        same_as=str(result.get("measured_as") or ""),
        predicted=ratio is None and predicted is not None,
        chosen=name == document.get("chosen"),
        frontier=name in (document.get("frontier") or ()),
        note=str(result.get("failure") or result.get("dropped") or ""),
        further=_further(quality, document["original"].get(part) or {} if part else {}),
        confirmed=_confirmed(result),
    )


def _further(quality: Json, base: Json) -> tuple[tuple[str, float | None, float | None], ...]:
    """Return value and loss of each further metric, of which the original has the same."""
    before = {other["metric"]: other for other in base.get("others", ())}
    found = []
    for other in quality.get("others", ()):
        name, value = str(other["metric"]), number(other.get("value"))
        known = number(before.get(name, {}).get("value"))
        sign = -1 if other.get("lower_is_better") else 1
        drop = None if value is None or known is None else sign * (known - value)
        found.append((name, value, drop))
    return tuple(found)


def _drop(
    name: str, part: str, quality: Json, document: Json, evidence: Json
) -> tuple[float | None, float | None]:
    """Return the paired drop where the evidence has it, else the difference without an error."""
    paired = evidence.get("drops", {}).get(name, {}).get(part)
    if paired:
        return number(paired[0]), number(paired[1])
    base = (document["original"].get(part) or {}) if part else {}
    if not quality or base.get("value") is None:
        return None, None
    sign = -1 if quality.get("lower_is_better") else 1
    return sign * (float(base["value"]) - float(quality["value"])), None


def _environment(document: Json) -> Json:
    comparisons = (r["comparison"] for r in document.get("results", ()) if r.get("comparison"))
    first: Json = next(comparisons, {})
    known: Json = first.get("base", {}).get("environment", {})
    return known


def number(value: Any) -> float | None:
    """Return a finite number of a document; None for anything else."""
    if value is None or isinstance(value, bool):
        return None
    known = float(value)
    return known if math.isfinite(known) else None
