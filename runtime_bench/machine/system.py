"""Reading what the system tells in files, where it tells."""

from __future__ import annotations

from pathlib import Path


def number_after(text: str, name: str) -> int | None:
    """The number that follows a name, None where the name is not there."""
    words = text.split()
    return int(words[words.index(name) + 1]) if name in words else None


def read_text(path: str) -> str:
    """A file of the system, empty where it cannot be read."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def temperature() -> float | None:
    """Of the hottest sensor in degrees Celsius, None where there is none."""
    found = [read_text(str(p)).strip() for p in Path("/sys/class/thermal").glob("*/temp")]
    values = [int(text) / 1000 for text in found if text.lstrip("-").isdigit()]
    return max(values, default=None)
