"""Errors that trimtab raises on purpose.

A message says what happened, where, and what to do next; nothing else is printed. The exit code is
2 unless a class sets another.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from .text import printable


class TrimtabError(Exception):
    """Base of all errors raised on purpose.

    Args:
        what: what happened, one sentence without a final full stop.
        where: the file, node, tensor or option concerned.
        hint: what to do next.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        self.what, self.where, self.hint = what, where, hint
        where = where.replace("\n", r"\n") if where else where
        text = f"{where}: {what}" if where else what
        stop = "" if text.endswith(".") and not text.endswith("...") else "."  # as others' texts do
        super().__init__(printable(f"{text}{stop} {hint}" if hint else text))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the three parts, so that a worker process can return the error."""
        return _rebuild, (type(self), self.what, self.where, self.hint)


class InputError(TrimtabError):
    """Unusable input of the user's."""


class ModelError(InputError):
    """Unusable model file or graph."""


class DataError(InputError):
    """Unusable dataset: its names, shapes, types or values."""


class OptionError(InputError):
    """Option, field or name that does not exist or has no meaning here."""


class OutputError(InputError):
    """File or folder that cannot be written."""


class MissingExtraError(TrimtabError):
    """Optional dependency that is not installed."""

    def __init__(
        self, what: str, *, where: str | None = None, hint: str | None = None, extra: str = ""
    ) -> None:
        super().__init__(
            what, where=where, hint=hint or f'Install it with: pip install "trimtab[{extra}]"'
        )


class ExportError(TrimtabError):
    """PyTorch module that cannot become ONNX."""


class ParityError(ExportError):
    """Exported model that computes other numbers than its source."""


class PassError(TrimtabError):
    """Pass that failed, or broke what it promised."""


class RunError(TrimtabError):
    """Refusal or failure of onnxruntime to run a model."""


class LostError(RunError):
    """Loss of the device or worker that runs a model; the model is not at fault."""


class BudgetError(TrimtabError):
    """Broken budget."""

    exit_code = 1


class InconclusiveError(TrimtabError):
    """Not enough evidence for a verdict."""

    exit_code = 3


class UnfitMachineError(TrimtabError):
    """Machine that is unfit to measure now."""

    exit_code = 4


#: Names that a message lists.
MOST_NAMES = 30


def close_to(name: str, known: Iterable[str]) -> list[str]:
    """Return the known name that is nearly this one; none where all are far from it."""
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint for a name that does not exist: the nearest known one, or the known ones.

    >>> nearest("quantise-static", ["quantize-static", "simplify"])
    "Did you mean 'quantize-static'?"
    """
    names = sorted(set(known))
    close = close_to(name, names)
    if close:
        return f"Did you mean {close[0]!r}?"
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"Known: {', '.join(names[:MOST_NAMES])}{more}" if names else "There are none"


def unknown(kind: str, name: str, known: Iterable[str], *, where: str | None = None) -> OptionError:
    """Return the error for a name that does not exist, with the nearest one that does."""
    return OptionError(f"unknown {kind} {name!r}", where=where, hint=nearest(name, known))


def _rebuild(
    kind: type[TrimtabError], what: str, where: str | None, hint: str | None
) -> TrimtabError:
    return kind(what, where=where, hint=hint)
