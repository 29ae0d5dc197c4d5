"""Every error that trimtab raises on purpose.

    TrimtabError                 exit code 2
    ├── InputError               what the user gave cannot be used
    │   ├── ModelError           a model file or graph
    │   ├── DataError            a dataset, its names, shapes, values
    │   ├── OptionError          an option, a field, a name that does not exist
    │   └── OutputError          a place that cannot be written
    ├── MissingExtraError        an optional dependency is not installed
    ├── ExportError              a PyTorch module that cannot become ONNX
    │   └── ParityError          ... or became something that computes other numbers
    ├── PassError                a pass failed, or broke what it promised
    ├── RunError                 onnxruntime refused or crashed on a model
    ├── BudgetError              a budget is broken (exit code 1)
    ├── InconclusiveError        the evidence does not suffice (exit code 3)
    └── UnfitMachineError        the machine cannot measure now (exit code 4)

A message says what happened, where, and what to do next; nothing else is printed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TrimtabError(Exception):
    """Base of all errors raised on purpose.

    Args:
        what: what happened, one sentence without a final full stop.
        where: the file, node, tensor or option that it happened at.
        hint: what to do next.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        self.what, self.where, self.hint = what, where, hint
        text = f"{where}: {what}" if where else what
        super().__init__(f"{text}. {hint}" if hint else text)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the three parts, so that a worker process can hand the error over."""
        return _rebuild, (type(self), self.what, self.where, self.hint)


class InputError(TrimtabError):
    """What the user gave cannot be used."""


class ModelError(InputError):
    """A model file or graph cannot be used."""


class DataError(InputError):
    """A dataset cannot be used: names, shapes, types or values."""


class OptionError(InputError):
    """An option, a field or a name that does not exist or has no meaning here."""


class OutputError(InputError):
    """A file or folder cannot be written."""


class MissingExtraError(TrimtabError):
    """An optional dependency is not installed."""

    def __init__(
        self, what: str, *, where: str | None = None, hint: str | None = None, extra: str = ""
    ) -> None:
        super().__init__(
            what,
            where=where,
            hint=hint or f'Install it with: pip install "trimtab[{extra}]"',
        )


class ExportError(TrimtabError):
    """A PyTorch module cannot become ONNX."""


class ParityError(ExportError):
    """An exported model computes other numbers than its source."""


class PassError(TrimtabError):
    """A pass failed, or broke what it promised."""


class RunError(TrimtabError):
    """onnxruntime refused a model, or failed while running it."""


class LostError(RunError):
    """What should run a model is gone, which says nothing of the model."""


class BudgetError(TrimtabError):
    """A budget is broken."""

    exit_code = 1


class InconclusiveError(TrimtabError):
    """The evidence does not suffice for a verdict."""

    exit_code = 3


class UnfitMachineError(TrimtabError):
    """The machine cannot measure now."""

    exit_code = 4


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a name that does not exist: the nearest known one, or all of them.

    >>> nearest("quantise-static", ["quantize-static", "simplify"])
    "Did you mean 'quantize-static'?"
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Known: {', '.join(names)}" if names else "There are none"


def unknown(kind: str, name: str, known: Iterable[str], *, where: str | None = None) -> OptionError:
    """The error for a name that does not exist, with the nearest one that does."""
    return OptionError(f"unknown {kind} {name!r}", where=where, hint=nearest(name, known))


def _rebuild(
    kind: type[TrimtabError], what: str, where: str | None, hint: str | None
) -> TrimtabError:
    return kind(what, where=where, hint=hint)
