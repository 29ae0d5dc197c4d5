"""Numbers and tables as text."""

from __future__ import annotations

from collections.abc import Sequence


def bytes_text(count: float) -> str:
    """Write a size in decimal units: 1,088,395 bytes is `1.09 MB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"


def duration_text(nanoseconds: float) -> str:
    """Write a duration in a suitable unit: 1,234,567 ns is `1.23 ms`."""
    for unit, factor in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= factor:
            value = nanoseconds / factor
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{nanoseconds:.0f} ns"


def known_duration(nanoseconds: float | None) -> str:
    """Write a duration, or `-` where it is not known."""
    return "-" if nanoseconds is None else duration_text(nanoseconds)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; the first column is left-aligned, the others right-aligned."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        rest = [c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]
        return "  ".join([first, *rest]).rstrip()

    return [line(header), line(["-" * w for w in widths]), *(line(row) for row in rows)]
