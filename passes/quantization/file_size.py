"""Sizes of files before and after quantization, which may grow where weights are few."""

from __future__ import annotations

import dataclasses
from typing import Any

from trimtab.core.model import Model

#: Bytes of weights beside which those of the graph are few.
LARGE = 1 << 27


def plain_bytes(model: Model) -> int:
    """Return the bytes of a model's file without lineage; those of the weights if it is large."""
    if model.weight_bytes > LARGE:
        return model.weight_bytes  # writing it to memory would take several times as much
    return dataclasses.replace(model, lineage=()).size_bytes


def size_notes(before: Model, after: Model) -> dict[str, Any]:
    """Return the notes on both sizes, with the reason where the file has grown."""
    sizes = [plain_bytes(before), plain_bytes(after)]
    notes: dict[str, Any] = {"bytes": sizes}
    if sizes[1] > sizes[0]:
        added = "scales and operators of int8 take more bytes than its weights save"
        notes["larger"] = f"than the float model by {sizes[1] - sizes[0]:,} bytes: {added}"
    return notes
