"""Short report of a search for a notebook: answer, constraints, candidates; no script."""

from __future__ import annotations

from .sections import answer, candidates
from .templates import render
from .view import View


def summary(view: View) -> str:
    """Draw static HTML without styles of its own, so that the notebook's own apply.

    Raises:
        MissingExtraError: the extra `report` is not installed.
    """
    return render("summary.html", {**answer(view), "candidates": candidates(view)})
