"""Durations, sizes, counts and shapes, read from texts of the command line and of budgets."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from .errors import OptionError

_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "": 1, "s": 1, "m": 60, "h": 3600}
_BYTES = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def duration(text: str | float, where: str = "") -> float:
    """Read a text such as `5ms`, `30s`, `10m` as seconds; a bare number is seconds.

    Raises:
        OptionError: it is not a duration above zero.
    """
    return _with_unit(text, _SECONDS, "a duration", "Write it as 5ms, 30s or 10m", where)


def size(text: str | float, where: str = "") -> int:
    """Read a text such as `4MB`, `512KiB` as bytes; a bare number is bytes.

    Raises:
        OptionError: it is not a size above zero.
    """
    return int(_with_unit(text, _BYTES, "a size", "Write it as 4MB, 512KiB or 100000", where))


def count(text: str | float | None, where: str) -> int | None:
    """Read a number of things, at least one; None where none is given.

    Raises:
        OptionError: it is not a whole number above zero.
    """
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 1 <= number < math.inf or number != int(number):
        raise OptionError(f"{text!r} is not a whole number above 0", where=where)
    return int(number)


def inner_share(text: str | float, where: str) -> float:
    """Read a share of which neither nothing nor all makes sense, as 0.05 or 5%.

    Raises:
        OptionError: it does not lie between 0 and 1.
    """
    number = _located_share(str(text), where)
    if not 0 < number < 1:
        raise OptionError(f"{text!r} does not lie between 0 and 1", where=where)
    return number


def share(text: str | float) -> float:
    """Read a number, or a text such as `1%`, which is 0.01.

    Raises:
        OptionError: it is not a finite number.
    """
    plain = str(text).strip()
    try:
        number = float(plain.removesuffix("%")) / (100 if plain.endswith("%") else 1)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise OptionError(f"{text!r} is not a number", hint="Write it as 0.01 or 1%")
    return number


def drops(texts: Sequence[str], where: str = "--max-drop") -> float | dict[str, float]:
    """Read limits of losses: one number, or one a metric as `map=0.01`, which may be in percent.

    Raises:
        OptionError: a text is neither, a metric is named twice, or both forms are mixed.
    """
    if len(texts) == 1 and "=" not in texts[0]:
        return _located_share(texts[0], where)
    found: dict[str, float] = {}
    for text in texts:
        name, _, limit = text.rpartition("=")
        if not name or name in found:
            raise OptionError(
                f"{text!r} names a metric twice" if name else f"{text!r} names no metric",
                where=where,
                hint="Give one number, or one a metric: --max-drop map=0.01 --max-drop miou=0.02",
            )
        found[name] = _located_share(limit, where)
    return found


def _located_share(text: str, where: str) -> float:
    try:
        return share(text)
    except OptionError as error:
        raise OptionError(error.what, where=where, hint=error.hint) from None


def shape(text: str, where: str = "--shape") -> tuple[str, tuple[int, ...]]:
    """Read input name and sizes from a text such as `input=1x3x224x224`.

    A size of 0 is that of a cache which is empty yet, `past=1x8x0x64`; 0 rows are none to run.

    Raises:
        OptionError: it is not a valid shape.
    """
    name, _, after = text.partition("=")
    dims = sizes(after)
    if not name or not dims or min(dims) < 0:
        raise OptionError(
            f"{text!r} is not a valid shape", where=where, hint="Write it as NAME=1x3x224x224"
        )
    if dims[0] == 0:
        raise OptionError(
            f"{text!r} has no rows: its first size is 0", where=where, hint="Give 1 or more"
        )
    return name, dims


def sizes(text: str) -> tuple[int, ...]:
    """Read sizes from a text such as `1x3x224x224`; () where it is not valid."""
    try:
        return tuple(int(size) for size in text.lower().split("x"))
    except ValueError:
        return ()


def sizes_text(shape: Sequence[int]) -> str:
    """Write sizes as `sizes` reads them; `scalar` where there is no axis."""
    return "x".join(map(str, shape)) or "scalar"


def _with_unit(
    text: str | float, units: dict[str, float], kind: str, hint: str, where: str = ""
) -> float:
    match = re.fullmatch(r"\s*([0-9.]+(?:e-?[0-9]+)?)\s*([a-zµ]*)\s*", str(text).lower())
    try:
        value = float(match[1]) * units[match[2]] if match else 0.0
    except (ValueError, KeyError):
        value = 0.0
    if not 0 < value < math.inf:
        raise OptionError(f"{text!r} is not {kind}", where=where, hint=hint)
    return value


def percentile(text: str, where: str = "") -> tuple[float, float]:
    """Read percentile and seconds from a text such as `p95=5ms`.

    Raises:
        OptionError: it is not a valid latency limit.
    """
    match = re.fullmatch(r"p(\d+(?:\.\d+)?)=(.+)", text.strip().lower())
    if not match or not 0 < float(match[1]) < 100:
        hint = "Write it as p95=5ms"
        raise OptionError(f"{text!r} is not a valid latency limit", where=where, hint=hint)
    return float(match[1]), duration(match[2], where)
