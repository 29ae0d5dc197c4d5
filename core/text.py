"""Numbers and tables as text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

#: Control characters except tab and line feed, marks that change the direction of writing, line
#: separators, and halves of surrogate pairs: names from files may hold them.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Return a text with its control characters shown instead of sent to the terminal.

    A model is a stranger's file, and a name in it may hold what moves the cursor, changes the title
    of the window or hides text.

    >>> printable("conv\x1b[2J")
    'conv\\x1b[2J'
    """
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


class PrintableStream:
    """A text stream to which only printable text is written, escaped where it cannot be encoded."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text with its control characters shown."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        shown = printable(text).encode(encoding, "backslashreplace").decode(encoding)
        self._stream.write(shown)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def shortened(text: str, length: int) -> str:
    """Return a text of at most this length, with dots for its middle.

    A node's name begins with the model's and ends with its own: both ends tell it from others.

    >>> shortened("model/encoder/layer.0/MatMul", 18)
    'model/en.../MatMul'
    """
    if len(text) <= length:
        return text
    end = (length - 3) // 2
    return f"{text[: length - 3 - end]}...{text[len(text) - end :]}"


def bytes_text(count: float) -> str:
    """Write a size in decimal units: 1,088,395 bytes is `1.09 MB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"


def shape_text(shape: Sequence[int | str | None] | None) -> str:
    """Write a shape for people, of whatever rank: `[batch, 3, ?]`, `[1]`, `scalar`.

    >>> shape_text(("batch", 42)), shape_text((1,)), shape_text(()), shape_text(None)
    ('[batch, 42]', '[1]', 'scalar', '[of any rank]')
    """
    if shape is None:
        return "[of any rank]"
    return (
        f"[{', '.join(str(n) if n not in (None, '') else '?' for n in shape)}]"
        if len(shape)
        else "scalar"
    )


def counted(count: int, noun: str) -> str:
    """Write a number of things: `1 layer`, `2 layers`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration_text(nanoseconds: float) -> str:
    """Write a duration in a suitable unit: 1,234,567 ns is `1.23 ms`."""
    for unit, factor in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= factor:
            value = nanoseconds / factor
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{nanoseconds:.0f} ns"


def seconds_text(seconds: float) -> str:
    """Write a waiting time for people: 90 s is `90 s`, 250 s is `4.2 min`, 9,000 s is `2.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.2g} min" if seconds < 5940 else f"{seconds / 3600:.2g} h"


def known_duration(nanoseconds: float | None) -> str:
    """Write a duration, or `-` where it is not known."""
    return "-" if nanoseconds is None else duration_text(nanoseconds)


#: Spaces from which a cell is a text: figures have fewer, as `2.00x [1.95, 2.05]`.
SPACES = 3


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; the first column and texts are left-aligned, others right."""
    rows = [[printable(cell).replace("\n", r"\n") for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    texts = {0, *(i for row in rows for i, cell in enumerate(row) if cell.count(" ") >= SPACES)}

    def line(cells: Sequence[str]) -> str:
        sides = [
            cell.ljust(width) if place in texts else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(sides).rstrip()

    return [line(header), line(["-" * w for w in widths]), *(line(row) for row in rows)]
