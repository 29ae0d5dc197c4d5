"""Exact rewrites of a graph: the same function in other operators, faster or slower by runtime.

A file here is a family of rules; a function with `@rewrite_rule` is a rule. Nothing registers it.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .rule import RewriteRule


@functools.cache
def rewrite_rules() -> dict[str, RewriteRule]:
    """Return every rule by name."""
    from .rule import RewriteRule

    found: dict[str, RewriteRule] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        found |= {v.name: v for v in vars(module).values() if isinstance(v, RewriteRule)}
    return dict(sorted(found.items()))


def find_rewrite_rule(name: str) -> RewriteRule:
    """Return the rule of that name.

    Raises:
        OptionError: there is none; the nearest is suggested.
    """
    from trimtab.core.errors import unknown

    if name not in rewrite_rules():
        raise unknown("rule", name, rewrite_rules())
    return rewrite_rules()[name]


#: Old names, which go on working.
forms, find_form = rewrite_rules, find_rewrite_rule
