"""Refusals of onnxruntime as one message: what it refuses, and what to do where that is known."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from ..errors import RunError


@contextlib.contextmanager
def runtime_errors(name: str) -> Iterator[None]:
    """Turn exceptions of onnxruntime into `RunError`."""
    try:
        yield
    except Exception as error:
        builtin = isinstance(error, (RuntimeError, ValueError, NotImplementedError))
        if not builtin and "onnxruntime" not in type(error).__module__:
            raise
        line = _first_line(error)
        raise RunError(
            f"onnxruntime refuses it: {line}", where=name, hint=_missing_operators(line)
        ) from error


#: Packages that register operators of further domains.
_PACKAGES = {
    "ai.onnx.contrib": "onnxruntime-extensions",
    "com.microsoft.extensions": "onnxruntime-extensions",
}


def _missing_operators(line: str) -> str | None:
    """Return what to do about an operator that onnxruntime does not have; None for other errors."""
    found = re.search(r"([\w.\-]+):[\w.\-]+\(-?\d+\) is not a registered function/op", line)
    if found is None:
        return None
    domain = found[1]
    owner = _PACKAGES.get(domain, "a library of custom operators")
    return (
        f"Operators of domain {domain} come from {owner}, which trimtab does not load: split the "
        "model there (onnx.utils.extract_model) and give the part without them"
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:500] if text else type(error).__name__
