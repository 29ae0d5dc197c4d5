"""Import of onnxsim without torch, and calls of it without its messages.

onnxsim imports torch to look for its bridge to PPQ, which costs seconds and needs a package that
few have; everything else there imports torch on use.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from trimtab.core.errors import MissingExtraError


def onnxsim() -> Any:
    """Import onnxsim and return it.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        with contextlib.nullcontext() if _as_it_is() else _without("torch"):
            import onnxsim
    except ImportError as error:
        raise MissingExtraError("simplify needs onnxsim", extra="optimize") from error
    return onnxsim


#: File descriptors belong to the process: only one thread at a time may redirect them.
_REDIRECTED = threading.Lock()


@contextlib.contextmanager
def messages_dropped() -> Iterator[None]:
    """Drop what native code writes to standard error for as long as the block lasts.

    For each node that onnxsim does not fold it writes a warning with a traceback, and with names
    of the model as they are. What it did is seen in its result.
    """
    with _REDIRECTED:
        try:
            sys.stderr.flush()
            kept = os.dup(2)
        except (OSError, ValueError, AttributeError):  # there is no such stream
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)


def _as_it_is() -> bool:
    """Return whether a plain import costs nothing more, or the bridge could be used."""
    return not {"onnxsim", "torch"}.isdisjoint(sys.modules) or find_spec("ppq") is not None


class _Without:
    """Import hook that hides a module from one thread."""

    def __init__(self, name: str) -> None:
        self.name, self.thread = name, threading.get_ident()

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == self.name and threading.get_ident() == self.thread:
            raise ModuleNotFoundError(f"{name} is left out while onnxsim is imported", name=name)
        return None


@contextlib.contextmanager
def _without(name: str) -> Iterator[None]:
    finder = _Without(name)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
