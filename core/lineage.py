"""Lineage of a model: the passes that made it, kept in the metadata of its file.

It is JSON. Names of hundreds of nodes can take a fifth of a small file, so that a long one is
compressed by zlib, written in base64 behind the word `zlib:`.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir

LINEAGE_KEY = "trimtab.lineage"
#: Characters from which the text is compressed, and most that one of a file has.
LONG, LONGEST = 1_000, 1 << 26
_PACKED = "zlib:"


@dataclass(frozen=True)
class Step:
    """Step of the lineage: a pass, its parameters, digest of its input model, its notes."""

    pass_name: str
    params: Mapping[str, Any]
    input_digest: str
    notes: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the step as JSON values."""
        return {
            "pass": self.pass_name,
            "params": dict(self.params),
            "input": self.input_digest,
            "notes": dict(self.notes),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Step:
        """Return the step that `to_json` wrote."""
        return cls(value["pass"], value["params"], value["input"], value.get("notes", {}))


def take_lineage(model: onnx_ir.Model) -> tuple[Step, ...]:
    """Return the steps in the metadata of a model, which loses them."""
    text = model.metadata_props.pop(LINEAGE_KEY, "")
    try:
        return tuple(Step.from_json(step) for step in json.loads(_unpacked(text) or "[]"))
    except (ValueError, KeyError, TypeError, zlib.error):
        return ()  # a model with another text under our key is still valid


def with_lineage(model: onnx_ir.Model, lineage: Sequence[Step]) -> onnx_ir.Model:
    """Return a model of the same graph object with this lineage in its metadata."""
    properties = dict(model.metadata_props)
    if lineage:
        steps = [step.to_json() for step in lineage]
        properties[LINEAGE_KEY] = _packed(json.dumps(steps, sort_keys=True))
    return onnx_ir.Model(
        model.graph,
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        domain=model.domain,
        model_version=model.model_version,
        doc_string=model.doc_string,
        functions=list(model.functions.values()),
        metadata_props=properties,
        device_configurations=model.device_configurations,
    )


def _packed(text: str) -> str:
    if len(text) < LONG:
        return text
    return _PACKED + base64.b64encode(zlib.compress(text.encode(), 9)).decode("ascii")


def _unpacked(text: str) -> str:
    if not text.startswith(_PACKED):
        return text
    packed = base64.b64decode(text.removeprefix(_PACKED))
    return zlib.decompressobj().decompress(packed, LONGEST).decode()
