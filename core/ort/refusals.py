"""Refusals of onnxruntime as one message: what it refuses, and what to do where that is known."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import RunError
from ..text import shape_text


@contextlib.contextmanager
def runtime_errors(name: str, feeds: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Turn exceptions of onnxruntime into `RunError`, which says what was fed, if anything was.

    Args:
        name: the model, as people know it.
        feeds: arrays by input name.
    """
    try:
        yield
    except Exception as error:
        builtin = isinstance(error, (RuntimeError, ValueError, NotImplementedError))
        if not builtin and "onnxruntime" not in type(error).__module__:
            raise
        line = _first_line(error)
        hint = _missing_operators(line) or _fed(feeds or {})
        raise RunError(f"onnxruntime refuses it: {line}", where=name, hint=hint) from error


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


def _fed(feeds: Mapping[str, Any]) -> str | None:
    """Return what to look at where a run fails: the arrays that were fed; None without any."""
    arrays = [
        f"{n} {shape_text(a.shape)} {a.dtype}" for n, a in feeds.items() if hasattr(a, "dtype")
    ]
    return f"It was fed {', '.join(arrays)}: are these what the model takes?" if arrays else None


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:500] if text else type(error).__name__
