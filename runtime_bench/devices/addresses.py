"""Addresses of devices: scheme://place?option=value."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import SplitResult, parse_qs, urlsplit

from trimtab.core.errors import OptionError, nearest


def split(address: str, form: str) -> SplitResult:
    """Split an address into its parts.

    Raises:
        OptionError: the address is not valid; `form` says what a valid one looks like.
    """
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError as error:
        raise OptionError(f"{address!r} is not a valid address ({error})", hint=form) from error
    return parts


def options(address: str, known: Sequence[str], form: str) -> dict[str, str]:
    """Return the options of an address.

    Raises:
        OptionError: an option is unknown.
    """
    query = split(address, form).query
    try:
        found = parse_qs(query, strict_parsing=bool(query))
    except ValueError as error:
        raise OptionError(f"{address!r} is not a valid address ({error})", hint=form) from error
    for name in found:
        if name not in known:
            raise OptionError(
                f"unknown option {name!r} in an address",
                where=address,
                hint=f"Did you mean {nearest(name, known) or known[0]!r}?",
            )
    return {name: values[-1] for name, values in found.items()}
