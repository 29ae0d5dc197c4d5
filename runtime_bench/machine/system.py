"""Values read from the system's files, where it has them."""

from __future__ import annotations

from pathlib import Path


def number_after(text: str, name: str) -> int | None:
    """Return the number that follows a name; None if the name is missing."""
    words = text.split()
    return int(words[words.index(name) + 1]) if name in words else None


def read_text(path: str) -> str:
    """Read a file of the system; empty if it cannot be read."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def temperature() -> float | None:
    """Return the temperature of the hottest sensor in degrees Celsius; None without sensors."""
    found = [read_text(str(p)).strip() for p in Path("/sys/class/thermal").glob("*/temp")]
    values = [int(text) / 1000 for text in found if text.lstrip("-").isdigit()]
    return max(values, default=None)
