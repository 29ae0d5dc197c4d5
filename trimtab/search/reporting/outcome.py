"""Outcome of a search with the ways to show and save it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from trimtab.core.errors import MissingExtraError

from ...report.notebook import summary
from ...report.page import write_report
from ...report.view import view
from ..result import OutcomeData
from .folder import save_outcome
from .summary import outcome_lines


@dataclass(frozen=True, eq=False, repr=False)
class Outcome(OutcomeData):
    """Outcome of `optimize`: its results, and the ways to show and save them."""

    def report(self) -> str:
        """Return the table of candidates, the chosen one and why, as text."""
        return "\n".join(outcome_lines(self))

    def __repr__(self) -> str:
        return self.report()

    def save(self, folder: str | Path) -> list[Path]:
        """Write model, recipe, budgets, frontier, `result.json` and, where possible, the report.

        See `save_outcome`; `report.html` needs the extra `report`.
        """
        written = save_outcome(self, folder)
        return [*written, *write_report(written[-1])]

    def _repr_html_(self) -> str | None:
        """Return a short static report, as a notebook shows it; None, for text, without jinja2."""
        with contextlib.suppress(MissingExtraError):
            return summary(view(self.to_json()))
        return None
