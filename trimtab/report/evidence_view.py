"""Layers, widths and islands out of a result's evidence, as rows for charts and tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .view import number


@dataclass(frozen=True)
class LayerRow:
    """A layer before and after, as `trimtab.search.reporting.layer_times.LayerTime` wrote it."""

    name: str
    op_type: str = ""
    runs_as: str = ""
    before_ns: float | None = None
    after_ns: float | None = None


@dataclass(frozen=True)
class ErrorRow:
    """Rounding error of a layer of the winner; ratios of signal to noise in decibels.

    Attributes:
        name: name of its node.
        op_type: its operator.
        alone_db: ratio at its output with it alone in int8, None where there is no noise.
        here_db: ratio at its output with everything in int8.
        sensitivity: its share, 0 to 1, of the errors that layers make in the answer one by one.
        cause: cause of the error.
        fix: change that would reduce it.
    """

    name: str
    op_type: str
    alone_db: float | None
    here_db: float | None
    sensitivity: float
    cause: str
    fix: str


@dataclass(frozen=True)
class WidthRow:
    """Channels of a group of layers that were pruned together."""

    name: str
    before: int
    after: int
    operators: int


@dataclass(frozen=True)
class IslandRow:
    """Float operators in an int8 model: their names, the cause, and the fix."""

    nodes: tuple[str, ...]
    why: str
    fix: str
    time_share: float | None


def layer_rows(evidence: Mapping[str, Any]) -> tuple[LayerRow, ...]:
    """Read the layers, in the order of the original's graph."""
    return tuple(
        LayerRow(
            str(r["name"]),
            str(r.get("op_type") or ""),
            str(r.get("runs_as") or ""),
            number(r.get("before_ns")),
            number(r.get("after_ns")),
        )
        for r in evidence.get("layers") or ()
    )


def error_rows(evidence: Mapping[str, Any]) -> tuple[ErrorRow, ...]:
    """Read the layers by the sensitivity of the answer to each, the worst first."""
    listed = (evidence.get("errors") or {}).get("layers") or ()
    total = sum(float(r["harm"]) for r in listed) or 1.0
    return tuple(
        ErrorRow(
            str(r["layer"]),
            str(r.get("op") or ""),
            number(r.get("snr_alone_db")),
            number(r.get("snr_accumulated_db")),
            float(r["harm"]) / total,
            str(r.get("cause") or ""),
            str(r.get("mend") or ""),
        )
        for r in listed
    )


def width_rows(evidence: Mapping[str, Any]) -> tuple[WidthRow, ...]:
    """Read the groups that lost channels."""
    return tuple(
        WidthRow(str(r["name"]), int(r["before"]), int(r["after"]), int(r.get("operators", 0)))
        for r in evidence.get("widths") or ()
    )


def island_rows(evidence: Mapping[str, Any]) -> tuple[IslandRow, ...]:
    """Read the doctor's findings that cost time in the winner."""
    return tuple(
        IslandRow(
            tuple(map(str, r["nodes"])), str(r["why"]), str(r["mend"]), number(r.get("time_share"))
        )
        for r in evidence.get("islands") or ()
    )
