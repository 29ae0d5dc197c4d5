"""Modules of others whose code runs at their first use.

onnx_ir imports sympy at its top and asks it only for sums of symbolic dimensions: half of what
`import trimtab; trimtab.load(file)` took. `importlib.util.LazyLoader` does not help, since the next
`import` of a module asks it for `__spec__`, by which that loader runs it.
"""

from __future__ import annotations

import importlib.abc
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

#: sympy, and the module of onnx_ir that looks up its functions when it is imported.
NAMES = frozenset({"sympy", "onnx_ir._symbolic_shapes"})
_RUNNING = threading.RLock()


class ModuleWhenUsed(ModuleType):
    """A module that has not run; the first name asked of it runs it."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return ModuleType.__getattribute__(self, name)
        with _RUNNING:  # names appear one by one: a second thread waits for the last
            return ModuleType.__getattribute__(self, name)

    def __getattr__(self, name: str) -> Any:
        state = self.__dict__
        with _RUNNING:  # a second thread waits until the whole module has run
            if (waiting := state.pop("__waiting__", None)) is not None:
                loader, path = waiting
                state.update(path)
                loader.exec_module(self)
                self.__class__ = ModuleType  # type: ignore[assignment]  # a plain one from now on
        if name in state:
            return state[name]
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


class LoaderWhenUsed(importlib.abc.Loader):
    """Makes a module and leaves it to its first use to run it by the loader given."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module that waits."""
        return ModuleWhenUsed(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Remember how to run the module."""
        state = module.__dict__
        # Without a path, so that `import sympy.printing` asks for it, and sympy runs first.
        path = {"__path__": state.pop("__path__")} if "__path__" in state else {}
        state["__waiting__"] = self.loader, path


class FinderWhenUsed(importlib.abc.MetaPathFinder):
    """Finds the modules of NAMES before Python's own finders do."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module of NAMES that is installed, or None."""
        if fullname not in NAMES:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = LoaderWhenUsed(spec.loader)
        return spec


def import_when_used() -> None:
    """Let imports of NAMES that come later wait for the first use of a name in them."""
    if not any(isinstance(finder, FinderWhenUsed) for finder in sys.meta_path):
        sys.meta_path.insert(0, FinderWhenUsed())
