"""Limits on the loss of metrics, as fields of the passes that leave layers float for them."""

from __future__ import annotations

from trimtab.core.errors import OptionError


def check_limits(max_drop: float | dict[str, float] | None) -> None:
    """Refuse a limit below 0, or a mapping of metrics without any.

    Raises:
        OptionError: it is not valid.
    """
    given = max_drop.values() if isinstance(max_drop, dict) else [max_drop or 0.0]
    if not given:
        raise OptionError("names no metric", where="max_drop", hint="Write {map: 0.01}")
    if not all(limit >= 0 for limit in given):
        raise OptionError("must not be negative", where=f"max_drop={max_drop}")
