"""Equal forms of the same computation: rewrites that are exact, and faster or slower by runtime.

A file here is a family of rules; a function with `@form` is a rule. Nothing registers it.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .rule import Form


@functools.cache
def forms() -> dict[str, Form]:
    """Every rule by name."""
    from .rule import Form

    found: dict[str, Form] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        found |= {v.name: v for v in vars(module).values() if isinstance(v, Form)}
    return dict(sorted(found.items()))


def find_form(name: str) -> Form:
    """The rule of that name.

    Raises:
        OptionError: there is none; the nearest is suggested.
    """
    from trimtab.core.errors import unknown

    if name not in forms():
        raise unknown("rule", name, forms())
    return forms()[name]
