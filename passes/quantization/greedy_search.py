"""Greedy choice among candidates, compared on samples that none of them was made from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

from trimtab.core.context import Context
from trimtab.core.data import Batch
from trimtab.core.dataset import Dataset
from trimtab.core.errors import TrimtabError
from trimtab.core.garbage import drop_candidate
from trimtab.core.model import Model

from ..base import Pass, Rewrite
from ..graph.declined import Declined
from .file_size import plain_bytes
from .judge import PROMISED, Judge, Verdict

#: Least relative decrease of the shortfall: a smaller one could be reversed by other samples.
MARGIN = 0.02
#: Outputs that differ from float by this are no longer the model's.
RUINED = 0.2
#: Share of the other's int8 arithmetic that a candidate needs, to be taken for its error alone.
ENOUGH = 0.5
#: Shares of the arithmetic that differ by less are the same.
SAME_SHARE = 0.02
#: Name of the error in reports.
ERROR = "squared_relative_error"
#: Name of the part of the float model's answers that is kept, in reports.
FIDELITY = "fidelity"
#: Reason against a candidate.
LESS = "less of it runs in int8"
#: Change of a clone of the best model so far.
Change = Callable[[Model], Rewrite]
#: Reason why a candidate of this verdict is no better than the best so far; "" where it is better.
Better = Callable[[Model, Verdict], str]


class GreedySearch:
    """The best model so far, what it keeps on held-out samples, and what was tried on the way.

    Attributes:
        original: the float model.
        chosen: the best so far; the original before the first step.
        verdict: what it keeps of the float model's answers, and its loss.
        promised: fidelity that the result should keep.
        steps: name of each step, whether it was kept, its error and fidelity, and the reason where
            it was not.
        declined: nodes that the chosen model's passes left alone.
    """

    def __init__(
        self,
        original: Model,
        judging: tuple[Dataset | Sequence[Batch], Sequence[Batch]],
        ctx: Context,
        promised: float = PROMISED,
    ) -> None:
        original = original.fixed()
        self.original, self.chosen = original, original
        self.ctx = dataclasses.replace(ctx, trial=True)
        self.judge = Judge(original, judging[0], ctx.target, also=judging[1])
        self.promised = promised
        self.verdict = Verdict(0.0, float("inf"))
        self.steps: list[dict[str, Any]] = []
        self.declined: Sequence[Declined] = ()

    def start(self, name: str, *passes: Pass) -> None:
        """Take this candidate whatever it keeps.

        Raises:
            TrimtabError: it cannot be built.
        """
        self.ctx.progress.say(f"trying {name}")
        candidate = self.apply(passes)
        self._keep(name, candidate, self.judge.of(candidate))

    @property
    def keeps_promise(self) -> bool:
        """True where the best so far keeps the fidelity that was promised."""
        return self.verdict.kept >= self.promised

    @property
    def shortfall(self) -> float:
        """Shortfall of the best so far, see `Verdict.shortfall`."""
        return self.verdict.shortfall(self.promised)

    def keep_float(self, why: str) -> None:
        """Leave the model as it is."""
        self._keep("float", self.original, Verdict())
        self.steps[-1]["why"] = why

    def offer(self, name: str, *passes: Pass, as_fast: bool = True) -> bool:
        """Build a candidate from the original and take it if it is judged better.

        With `as_fast` it is refused where less of it runs in int8 than of the best so far.
        """
        return self._try(name, lambda: self.apply(passes), partial(self._why_not, as_fast=as_fast))

    def compare(self, name: str, better: Better, *passes: Pass, of: Model | None = None) -> bool:
        """Build a candidate and take it where `better` finds no reason not to.

        It is made from the original where no other model is given.
        """
        return self._try(name, lambda: self.apply(passes, of), better)

    def improve(self, name: str, change: Change) -> bool:
        """Change a clone of the best so far and take it if it is judged better."""

        def changed() -> Model:
            return dataclasses.replace(self.chosen, ir=change(self.chosen.clone()).ir)

        return self._try(name, changed, partial(self._why_not, as_fast=True))

    def apply(self, passes: Sequence[Pass], of: Model | None = None) -> Model:
        """Return the original, or another model, after these passes."""
        candidate = self.original if of is None else of
        for step in passes:
            candidate = step(candidate, self.ctx)
        return candidate.fixed()

    def why_worse(self, candidate: Model, verdict: Verdict) -> str:
        """Return the reason against a candidate beside the best so far; "" where it is better.

        The better of two that keep enough has more of the arithmetic in int8, or is smaller.
        """
        share, other = (quantization_notes(m)["int8_share"] for m in (candidate, self.chosen))
        if self.keeps_promise and verdict.kept >= self.promised:
            if abs(share - other) > SAME_SHARE:
                return "" if share > other else LESS
            smaller = plain_bytes(candidate) < plain_bytes(self.chosen)
            return "" if smaller else "its file is larger"
        enough = share >= ENOUGH * other or self.verdict.loss > RUINED
        return self._why_no_gain(verdict) or ("" if enough else LESS)

    def _why_not(self, candidate: Model, verdict: Verdict, *, as_fast: bool) -> str:
        return LESS if as_fast and slower(candidate, self.chosen) else self._why_no_gain(verdict)

    def _why_no_gain(self, verdict: Verdict) -> str:
        falls = verdict.shortfall(self.promised) < (1 - MARGIN) * self.shortfall
        return "" if falls else "the error would not fall"

    def _try(self, name: str, build: Callable[[], Model], better: Better) -> bool:
        self.ctx.progress.say(f"trying {name}")
        drop_candidate()
        try:
            candidate = build()
            why_not = cache(partial(better, candidate))
            verdict = self.judge.of(candidate, matters=lambda first: not why_not(first))
            why = why_not(verdict)
        except TrimtabError as failure:
            return self._reject(name, None, str(failure))
        if why:
            return self._reject(name, verdict, why)
        self._keep(name, candidate, verdict)
        return True

    def _keep(self, name: str, candidate: Model, verdict: Verdict) -> None:
        self.chosen, self.verdict = candidate, verdict
        self.declined = [
            Declined(node, reason)
            for step in candidate.lineage[len(self.original.lineage) :]
            for node, reason in step.notes.get("declined", [])
        ]
        self.steps.append({"step": name, "kept": True, **_figures(verdict)})

    def _reject(self, name: str, verdict: Verdict | None, why: str) -> bool:
        measured = {} if verdict is None else _figures(verdict)
        self.steps.append({"step": name, "kept": False, **measured, "why": why})
        return False


def slower(candidate: Model, than: Model) -> bool:
    """Return whether less of the arithmetic runs in int8, or with more conversions around it."""
    mine, other = quantization_notes(candidate), quantization_notes(than)
    if not {"int8_share", "leftover_qdq"} <= set(mine) & set(other):
        return False
    less = mine["int8_share"] < other["int8_share"] - 1e-3
    return bool(less or mine["leftover_qdq"] > other["leftover_qdq"])


def quantization_notes(model: Model) -> dict[str, Any]:
    """Return the notes of a model's last quantization."""
    for step in reversed(model.lineage):
        if "int8_share" in step.notes:
            return dict(step.notes)
    return {}


def _figures(verdict: Verdict) -> dict[str, float]:
    return {ERROR: float(f"{verdict.loss:.4g}"), FIDELITY: round(verdict.kept, 4)}
