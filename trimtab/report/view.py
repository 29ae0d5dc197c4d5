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
class Row:
    """Figures of a candidate, or of the original; None where something is not known.

    Attributes:
        name: name of the recipe.
        size_bytes: size of the file.
        quality: quality on the test split, else on the selection split.
        quality_error: its standard error.
        part: `test` or `selection`, the split that quality and drop are of.
        drop: loss of the metric against the original, on the same split.
        drop_error: paired standard error of the drop.
        p50_ns: median latency.
        p95_ns: 95th percentile.
        speedup: speed-up over the original, with `low` and `high`, its 95% interval.
        low: lower end.
        high: upper end.
        verdict: verdict of the comparison, or the reason why there is none.
        same_as: name of the candidate whose measurement this is, as it runs the same kernels.
        predicted: true where the speed-up is that of a cost model.
        chosen: true for the answer.
        frontier: true where no other is better in both quality and the goal.
        stage: stage of the search that made it.
        note: reason why it failed or was dropped.
    """

    name: str
    size_bytes: int = 0
    quality: float | None = None
    quality_error: float | None = None
    part: str = ""
    drop: float | None = None
    drop_error: float | None = None
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
    stage: str = ""
    note: str = ""


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
        confirmation: ratio, low and high of the fresh run in which the winner was measured again.
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
    confirmation: tuple[float, float, float] | None = None
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
    chosen = document.get("chosen")
    measured = {r["name"]: r["comparison"] for r in results if r.get("comparison")}
    recipe = next((r.get("recipe") for r in results if r["name"] == chosen), None)
    final = _final(results, measured, chosen)
    base = final or next(iter(measured.values()), {})
    rows = tuple(_row(r, measured, document, evidence) for r in results)
    base_ns, chosen_ns = (
        tuple(map(float, (final or {}).get(side, {}).get("samples_ns", ())))
        for side in ("base", "candidate")
    )
    return View(
        model=str(_source(results)),
        metric=str((_quality(document["original"])[1] or {}).get("metric", "quality")),
        original=_original(document["original"], base.get("base", {})),
        rows=rows,
        constraints=dict(document["constraints"]),
        why=tuple(map(str, document.get("why", ()))),
        marks=tuple(map(str, document.get("marks", ()))),
        data=dict(document.get("data", {})),
        evidence=dict(evidence),
        base_ns=base_ns,
        chosen_ns=chosen_ns,
        recipe=recipe,
        confirmation=_confirmation(results, chosen),
        document=document,
    )


def _source(results: Sequence[Json]) -> object:
    recipes = [r["recipe"] for r in results if r.get("recipe")]
    return next((r["model"] for r in recipes if r.get("model")), "model")


def _final(results: Sequence[Json], measured: Mapping[str, Json], chosen: str | None) -> Json:
    """Return the comparison with most evidence of the winner: the fresh run where there is one."""
    for result in results:
        if result["name"] == chosen:
            known: Json | None = result.get("confirmation")
            return known or measured.get(result.get("measured_as") or result["name"]) or {}
    return {}


def _confirmation(results: Sequence[Json], chosen: str | None) -> tuple[float, float, float] | None:
    for result in results:
        again = result.get("confirmation")
        if result["name"] == chosen and again and again.get("ratio") is not None:
            high = math.inf if again["high"] is None else float(again["high"])
            return float(again["ratio"]), float(again["low"]), high
    return None


def _quality(result: Json) -> tuple[str, Json | None]:
    """Return the split that was evaluated, and its quality."""
    for part in ("test", "selection"):
        if result.get(part):
            return part, result[part]
    return "", None


def _original(result: Json, base: Json) -> Row:
    part, quality = _quality(result)
    return Row(
        "original",
        int(result["size_bytes"]),
        number((quality or {}).get("value")),
        number((quality or {}).get("standard_error")),
        part,
        p50_ns=number(base.get("p50_ns")),
        p95_ns=number(base.get("p95_ns")),
    )


def _row(result: Json, measured: Mapping[str, Json], document: Json, evidence: Json) -> Row:
    name = str(result["name"])
    part, quality = _quality(result)
    comparison: Json = measured.get(result.get("measured_as") or name) or {}
    candidate: Json = comparison.get("candidate", {})
    drop, drop_error = _drop(name, part, quality, document, evidence)
    note = result.get("failure") or result.get("dropped") or ""
    predicted = number(result.get("predicted"))
    ratio = number(comparison.get("ratio"))
    verdict = str(comparison.get("verdict") or ("failed" if result.get("failure") else ""))
    return Row(
        name=name,
        size_bytes=int(result["size_bytes"]),
        quality=number((quality or {}).get("value")),
        quality_error=number((quality or {}).get("standard_error")),
        part=part,
        drop=drop,
        drop_error=drop_error,
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
        stage=str(result.get("stage") or ""),
        note=str(note),
    )


def _drop(
    name: str, part: str, quality: Json | None, document: Json, evidence: Json
) -> tuple[float | None, float | None]:
    """Return the paired drop where the evidence has it, else the difference without an error."""
    paired = evidence.get("drops", {}).get(name, {}).get(part)
    if paired:
        return number(paired[0]), number(paired[1])
    base = (document["original"].get(part) or {}) if part else {}
    if quality is None or base.get("value") is None:
        return None, None
    return float(base["value"]) - float(quality["value"]), None


def _environment(document: Json) -> Json:
    for result in document.get("results", ()):
        if result.get("comparison"):
            known: Json = result["comparison"].get("base", {}).get("environment", {})
            return known
    return {}


def number(value: Any) -> float | None:
    """Return a finite number of a document; None for anything else."""
    if value is None or isinstance(value, bool):
        return None
    known = float(value)
    return known if math.isfinite(known) else None
