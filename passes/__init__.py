"""Passes: functions from model to model. A file with a `Pass` in it is one; nothing registers it.

from trimtab.passes import Simplify, QuantizeStatic
small = QuantizeStatic(data=calibration)(Simplify()(model))
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import Pass


@functools.cache
def registry() -> dict[str, type[Pass]]:
    """Every pass by name: this folder's, and entry points `trimtab.passes` of other packages."""
    from importlib.metadata import entry_points

    from .base import Pass

    found: dict[str, type[Pass]] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if not issubclass(kind, Pass) or kind.__module__ != module.__name__:
                continue
            if not inspect.isabstract(kind):
                found[kind.name()] = kind
    for point in entry_points(group="trimtab.passes"):
        kind = point.load()
        found[kind.name()] = kind
    return dict(sorted(found.items()))


def find(name: str) -> type[Pass]:
    """The pass of that name.

    Raises:
        OptionError: there is none; the nearest is suggested.
    """
    from trimtab.core.errors import unknown

    passes = registry()
    if name not in passes:
        raise unknown("pass", name, passes)
    return passes[name]


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    if name in {"Pass", "Rewrite", "Declined"}:
        return getattr(importlib.import_module(f"{__name__}.base"), name)
    for kind in registry().values():
        if kind.__name__ == name:
            return kind
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(["Pass", "find", "registry", *(kind.__name__ for kind in registry().values())])
