"""Addresses of devices: scheme://place?option=value."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import SplitResult, parse_qs, urlsplit

from trimtab.core.errors import OptionError, nearest


def split(address: str, form: str) -> SplitResult:
    """An address in its parts, its port a number.

    Raises:
        OptionError: it is none; `form` says what one looks like.
    """
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError as error:
        raise OptionError(f"{address!r} is no address ({error})", hint=form) from error
    return parts


def options(address: str, known: Sequence[str], form: str) -> dict[str, str]:
    """The options of an address.

    Raises:
        OptionError: one is misspelt, or unknown here.
    """
    query = split(address, form).query
    try:
        given = parse_qs(query, strict_parsing=bool(query))
    except ValueError as error:
        raise OptionError(f"{address!r} is no address ({error})", hint=form) from error
    for name in given:
        if name not in known:
            raise OptionError(
                f"unknown option {name!r} in an address",
                where=address,
                hint=f"Did you mean {nearest(name, known) or known[0]!r}?",
            )
    return {name: values[-1] for name, values in given.items()}
