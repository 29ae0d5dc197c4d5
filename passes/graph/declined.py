"""Operators that a pass leaves as they are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Declined:
    """Node or tensor that a pass left alone, and the reason in one sentence."""

    node: str
    reason: str
