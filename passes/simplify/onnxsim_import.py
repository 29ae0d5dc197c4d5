"""Import of onnxsim without torch.

onnxsim imports torch to look for its bridge to PPQ, which costs seconds and needs a package that
few have; everything else there imports torch on use.
"""

from __future__ import annotations

import contextlib
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
