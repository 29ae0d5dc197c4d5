"""Placement of a model's nodes on providers, and the cost of copying its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Placement:
    """Placement of a session on a provider other than the CPU's; latencies exclude the copies.

    Attributes:
        provider: the requested provider.
        memory: location of inputs and outputs during a run: `cuda`, ..., or `cpu` if the provider
            copies in each run.
        nodes: number of nodes by assigned provider; empty if onnxruntime does not report it.
        elsewhere: nodes that the provider did not get, "NonZero 'mask'".
        copy_in_ns: times to copy all inputs to the device.
        copy_out_ns: times to copy all outputs back.
        in_bytes: size of all inputs.
        out_bytes: size of all outputs.
        cuda_graph: true where runs replay a captured CUDA graph.
    """

    provider: str
    memory: str
    nodes: Mapping[str, int] = field(default_factory=dict)
    elsewhere: tuple[str, ...] = ()
    copy_in_ns: tuple[int, ...] = ()
    copy_out_ns: tuple[int, ...] = ()
    in_bytes: int = 0
    out_bytes: int = 0
    cuda_graph: bool = False

    @property
    def median_in_ns(self) -> float | None:
        """Median of the copies to the device; None without copies."""
        return float(median(self.copy_in_ns)) if self.copy_in_ns else None

    @property
    def median_out_ns(self) -> float | None:
        """Median of the copies back; None without copies."""
        return float(median(self.copy_out_ns)) if self.copy_out_ns else None

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in self.__dict__.items()}
        return plain | {"nodes": dict(self.nodes)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Placement:
        """Read the placement that `to_json` wrote."""
        lists = {k: tuple(value[k]) for k in ("elsewhere", "copy_in_ns", "copy_out_ns")}
        return cls(**{**value, **lists})
