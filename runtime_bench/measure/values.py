"""Measurements and comparisons: values that keep every sample and round-trip through JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.core.documents import read_json
from trimtab.core.errors import DataError, InputError, RunError
from trimtab.core.files import write_text
from trimtab.core.ort.session import SessionConfig

from ..machine.environment import Environment
from ..machine.noise_check import NoiseCheck
from ..machine.placement import Placement
from ..stats.percentiles import percentile
from ..stats.verdict import Verdict

SCHEMA = 1


@dataclass(frozen=True, repr=False)
class Measurement:
    """All latencies of one model or program, with the environment they were taken in.

    Attributes:
        model: name or path; a program as written.
        digest: digest of graph and weights; of a program its text and the files it names.
        size_bytes: size of the file, including external data; 0 for a program.
        samples_ns: every timed run, in order, without warm-up and the runs after a switch.
        switches: involuntary context switches during each run; empty if the system does not count
            them.
        environment: machine and software.
        config: session configuration; None for a program.
        noise_check: result of the check whether absolute latencies can be trusted.
        inputs: shape and type of each input by name, "1x3x32x32 float32".
        interrupted: true if the user stopped it; the samples until then are valid.
        placement: placement of its nodes and cost of copies; None for the CPU's own provider.
        cpu_ns: mean CPU time of a run, of all threads of its process; 0 if not counted.
        instructions: mean instructions of a run; 0 where machine or kernel do not count them.
    """

    model: str
    digest: str
    size_bytes: int
    samples_ns: tuple[int, ...]
    switches: tuple[int, ...]
    environment: Environment
    config: SessionConfig | None
    noise_check: NoiseCheck = field(default_factory=NoiseCheck)
    inputs: Mapping[str, str] = field(default_factory=dict)
    interrupted: bool = False
    placement: Placement | None = None
    cpu_ns: float = 0.0
    instructions: float = 0.0

    def __str__(self) -> str:
        median = self.median_ns
        known = "no run" if median is None else f"median {median / 1e6:.3f} ms"
        return f"{self.model}: {known} of {len(self.samples_ns)} runs"

    def __repr__(self) -> str:
        return f"<Measurement {self}>"

    def percentile_ns(self, quantile: float) -> float | None:
        """Return the quantile in nanoseconds; None if there are too few runs to support it."""
        return percentile(self.samples_ns, quantile)

    @property
    def quiet_ns(self) -> tuple[int, ...]:
        """Runs without an involuntary switch, a different quantity from all runs."""
        if not self.switches:
            return self.samples_ns
        pairs = zip(self.samples_ns, self.switches, strict=True)
        return tuple(ns for ns, switched in pairs if not switched)

    @property
    def median_ns(self) -> float | None:
        """Median in nanoseconds, even of a few runs; None without runs."""
        ordered = sorted(self.samples_ns)
        return float(ordered[(len(ordered) - 1) // 2]) if ordered else None

    def to_json(self) -> dict[str, Any]:
        """Return all fields, and the percentiles that the runs support, as JSON values."""
        percentiles = {f"p{q * 100:g}_ns": self.percentile_ns(q) for q in (0.5, 0.9, 0.95, 0.99)}
        return {
            "model": self.model,
            "digest": self.digest,
            "size_bytes": self.size_bytes,
            "runs": len(self.samples_ns),
            **percentiles,
            "samples_ns": list(self.samples_ns),
            "switches": list(self.switches),
            "environment": self.environment.to_json(),
            "config": self.config.to_json() if self.config else None,
            "fitness": self.noise_check.to_json(),
            "inputs": dict(self.inputs),
            "interrupted": self.interrupted,
            "placement": self.placement.to_json() if self.placement else None,
            "cpu_ns": self.cpu_ns,
            "instructions": self.instructions,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Measurement:
        """Read the measurement that `to_json` wrote."""
        return cls(
            value["model"],
            value["digest"],
            value["size_bytes"],
            tuple(value["samples_ns"]),
            tuple(value["switches"]),
            Environment.from_json(value["environment"]),
            SessionConfig.from_json(value["config"]) if value["config"] else None,
            NoiseCheck.from_json(value["fitness"]),
            value["inputs"],
            value["interrupted"],
            Placement.from_json(value["placement"]) if value.get("placement") else None,
            value.get("cpu_ns", 0.0),
            value.get("instructions", 0.0),
        )


@dataclass(frozen=True, repr=False)
class Comparison:
    """A candidate measured against a base, interleaved in one run.

    Attributes:
        base: runs of the base within this candidate's blocks.
        candidate: runs of the candidate.
        ratio: estimate of the base's time over the candidate's; above 1 the candidate is faster.
            NaN if nothing was measured.
        low: lower end of the confidence sequence at level 1 - alpha; 0 while unknown.
        high: upper end; infinite while unknown.
        verdict: better (faster), worse, same (within `resolution`), or inconclusive.
        alpha: bound on the probability of a wrong verdict, this candidate's share.
        resolution: relative difference below which two models count as equal, 0.05 for 5%.
        log_ratios: ln(base / candidate) of every block, for tests of other boundaries.
        e_values: ln E for "better", "worse", "above -resolution", "below +resolution"; each
            decides at ln(2 / alpha).
        interrupted: true if the user stopped it; the samples until then are valid.
        renewed: true if every block had new sessions. Otherwise they took too long to build, and
            the ratio is that of one pair of sessions, which depends on where their memory lies.
        error: reason why the candidate (or base) could not be measured to the end; None if it was.
        devices: comparison of each device by its name, if measured on several. This one is then
            that of the least ratio, its interval that of the least of all ratios.
    """

    base: Measurement
    candidate: Measurement
    ratio: float
    low: float
    high: float
    verdict: Verdict
    alpha: float
    resolution: float
    log_ratios: tuple[float, ...] = ()
    e_values: Mapping[str, float] = field(default_factory=dict)
    interrupted: bool = False
    error: str | None = None
    renewed: bool = True
    devices: Mapping[str, Comparison] = field(default_factory=dict)

    def __str__(self) -> str:
        ratio = f"{self.ratio:.2f}x [{self.low:.2f}, {self.high:.2f}]"
        return f"{self.candidate.model} against {self.base.model}: {ratio}, {self.verdict}"

    def __repr__(self) -> str:
        return f"<Comparison {self}>"

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self.log_ratios)

    def check(self) -> Comparison:
        """Return this comparison if both models ran to the end.

        Raises:
            RunError: a model crashed, hung or was refused.
        """
        if self.error is not None:
            raise RunError(self.error)
        return self

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON values; unknown and infinite ones are null."""
        return self.__dict__ | {
            "ratio": _finite(self.ratio),
            "high": _finite(self.high),
            "blocks": self.blocks,
            "log_ratios": list(self.log_ratios),
            "e_values": dict(self.e_values),
            "base": self.base.to_json(),
            "candidate": self.candidate.to_json(),
            "devices": {name: c.to_json() for name, c in self.devices.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Comparison:
        """Read the comparison that `to_json` wrote."""
        plain = ("low", "verdict", "alpha", "resolution", "interrupted", "error", "renewed")
        return cls(
            base=Measurement.from_json(value["base"]),
            candidate=Measurement.from_json(value["candidate"]),
            ratio=math.nan if value["ratio"] is None else value["ratio"],
            high=math.inf if value["high"] is None else value["high"],
            log_ratios=tuple(value["log_ratios"]),
            e_values=value["e_values"],
            devices={k: cls.from_json(c) for k, c in value.get("devices", {}).items()},
            **{k: value[k] for k in plain},
        )


def save(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document with its schema number, whole or not at all."""
    write_text(path, json.dumps({"schema": SCHEMA, **document}, allow_nan=False) + "\n")


def load(path: Path, newest: int = SCHEMA) -> dict[str, Any]:
    """Read a document that `save` wrote, or another one with a schema number up to `newest`.

    Raises:
        DataError: the file is not JSON, or has no schema number, or a newer one.
    """
    try:
        document = read_json(path)
    except InputError as error:
        raise DataError(error.what, where=str(path), hint=error.hint) from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(schema, int):
        raise DataError("has no schema number", where=str(path), hint="Write it with --json")
    if schema > newest:
        raise DataError(
            f"has schema {schema}, this trimtab reads up to {newest}",
            where=str(path),
            hint="Update trimtab",
        )
    return dict(document)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
