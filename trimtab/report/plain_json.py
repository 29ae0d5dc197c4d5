"""JSON that browsers read, whatever numbers and names are in it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def embedded_json(value: object) -> str:
    """Return JSON for a script element: no `<`, no NaN, no line separators."""
    text = json.dumps(finite(value), separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def finite(value: Any) -> Any:
    """Return the same JSON value with null for infinity and NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return value
