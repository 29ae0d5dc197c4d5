"""User code by name: `package.module:callable`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from .errors import InputError, TrimtabError, nearest


def import_callable(spec: str) -> Callable[..., Any]:
    """Import the callable `package.module:name`; the working folder is searched as well.

    Raises:
        InputError: there is no such module or name, it cannot be called, or importing fails.
    """
    found = import_attribute(spec)
    if not callable(found):
        raise InputError(f"{spec.partition(':')[2]!r} is not callable", where=spec)
    return cast("Callable[..., Any]", found)


def import_attribute(spec: str) -> Any:
    """Import what `package.module:name` names; the working folder is searched as well.

    Raises:
        InputError: there is no such module or name, or importing the module fails.
    """
    if not is_callable_spec(spec):
        stem = Path(spec.partition(":")[0]).stem
        raise InputError(
            "is not of the form package.module:callable",
            where=spec,
            hint=f"For a factory in {stem}.py write {stem}:factory"
            if spec.partition(":")[0].endswith(".py")
            else "Name a callable in a module; a file of weights has no code",
        )
    module_name, _, name = spec.partition(":")
    added = "" not in sys.path and str(Path.cwd()) not in sys.path
    if added:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module_name)
    except TrimtabError:
        raise
    except Exception as error:
        hint = "Give package.module:callable, importable from here"
        if module_name.endswith(".py"):
            hint = f"Did you mean '{module_name[:-3]}:{name}'? {hint}"
        raise InputError(
            f"cannot import module {module_name!r} ({type(error).__name__}: {error})",
            where=spec,
            hint=hint,
        ) from error
    finally:
        if added:
            sys.path.remove(str(Path.cwd()))
    for part in name.split("."):
        if not hasattr(found, part):
            known = [n for n in dir(found) if not n.startswith("_")]
            raise InputError(
                f"{module_name!r} has no {part!r}", where=spec, hint=nearest(part, known)
            )
        found = getattr(found, part)
    return found


def is_callable_spec(spec: str) -> bool:
    """Return whether a text names `module:callable` rather than a file."""
    module, _, name = spec.partition(":")  # without a colon the name is "", not an identifier
    return all(part.isidentifier() for part in (*module.split("."), *name.split(".")))
