"""Import of onnx_ir without sympy, which it takes at its top and asks only for sums of sizes.

That was half of the time of `import trimtab; trimtab.load(file)`. While onnx_ir is imported, it
gets a name for sympy that imports it at its first use. Imports of anybody else are left alone: a
lazy sympy in `sys.modules` would run its parts in another order, and its first uses in two threads
could wait for each other.
"""

from __future__ import annotations

import importlib
import importlib.abc
import sys
from collections.abc import Sequence
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


class _Sympy(ModuleType):
    """Stand-in for sympy, whose names are looked up in the module when they are used."""

    importing = True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        # onnx_ir keeps functions in a table at its top: they too are looked up when called.
        return partial(_call, name) if self.importing else _named(name)


def _named(name: str) -> Any:
    return getattr(importlib.import_module("sympy"), name)


def _call(name: str, *args: Any) -> Any:
    return _named(name)(*args)


class _Loader(importlib.abc.Loader):
    """Loader of onnx_ir that hides sympy while the given one runs it."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__loader__ = module.__spec__.loader = self.loader
        if "sympy" in sys.modules:
            self.loader.exec_module(module)
            return
        sys.modules["sympy"] = stand_in = _Sympy("sympy")
        try:
            self.loader.exec_module(module)
        finally:
            stand_in.importing = False
            if sys.modules.get("sympy") is stand_in:
                del sys.modules["sympy"]


class _Finder(importlib.abc.MetaPathFinder):
    """Finds onnx_ir, once."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "onnx_ir":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def import_onnx_ir_without_sympy() -> None:
    """Let the first import of onnx_ir that comes later do without sympy."""
    if "onnx_ir" not in sys.modules and not any(isinstance(f, _Finder) for f in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
