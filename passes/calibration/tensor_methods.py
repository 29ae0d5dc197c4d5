"""Methods of ranges for single tensors, beside that of all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from trimtab.core.errors import OptionError, nearest

from ..graph.patterns import matching
from .range_estimator import METHODS, Method


def parse_tensor_ranges(given: Sequence[str]) -> list[tuple[str, Method]]:
    """Split each `TENSOR=METHOD`; names and patterns may contain `=` themselves.

    Raises:
        OptionError: one has no method, or a method that does not exist.
    """
    found = []
    for text in given:
        pattern, _, method = text.rpartition("=")
        if not pattern or method not in METHODS:
            raise OptionError(
                f"is not TENSOR=METHOD: {text!r}",
                where="tensor_ranges",
                hint=f"Methods: {', '.join(METHODS)}",
            )
        found.append((pattern, cast("Method", method)))
    return found


def range_methods(
    tensors: Sequence[str], all_of: Method, given: Sequence[str]
) -> dict[str, Method]:
    """Return the method of each tensor; of several that are given for one, the last.

    Raises:
        OptionError: a pattern matches no tensor; the nearest name is suggested.
    """
    methods: dict[str, Method] = dict.fromkeys(tensors, all_of)
    for pattern, method in parse_tensor_ranges(given):
        exact = [pattern] if pattern in methods else matching(tensors, pattern)
        if not exact:
            raise OptionError(
                f"matches no quantized activation: {pattern!r}",
                where="tensor_ranges",
                hint=nearest(pattern, tensors),
            )
        methods.update(dict.fromkeys(exact, method))
    return methods
