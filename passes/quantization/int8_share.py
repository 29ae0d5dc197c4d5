"""Share of a quantized graph that runs in int8, and the reasons why the rest runs in float."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import onnx_ir as ir

from trimtab.core.model import Model
from trimtab.core.ort.accelerators import compiles
from trimtab.core.ort.int8_share import Int8Share, int8_share, written_share
from trimtab.core.ort.session import SessionConfig, available_providers
from trimtab.core.target import Target

from ..graph.declined import Declined


def measure_int8_share(written: ir.Model, model: Model, target: Target) -> Int8Share:
    """Measure what runs in int8.

    It is read off the graph as written for a provider that is not installed, or compiles.
    """
    config, whole = SessionConfig.with_fusions_of(target), dataclasses.replace(model, ir=written)
    if config.provider not in available_providers() or compiles(config.provider):
        return written_share(whole, fused=target.fuses_int8)
    return int8_share(whole, config)


def float_reasons(share: Int8Share, declined: Sequence[Declined]) -> list[list[str]]:
    """Return the operators that run in float, each with the reason."""
    reasons = {d.node: d.reason for d in declined}
    other = "onnxruntime has no int8 kernel for it as it stands, or did not fuse it"
    return [[name, reasons.get(name, other)] for name in share.float_nodes]
