"""Candidates held against each other on samples that none of them was made from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from trimtab.core.context import Context
from trimtab.core.data import Batch
from trimtab.core.errors import TrimtabError
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig
from trimtab.core.target import usable_cpus

from ..base import Declined, Pass, Rewrite
from .output_error import answer_error, answers

#: A step must lower the error by this part: less is what other samples would turn round.
MARGIN = 0.02
#: Makes a better model of the best so far.
Mend = Callable[[Model], Rewrite]


class Trials:
    """The best model so far, its error on held-out samples, and what was tried on the way.

    Attributes:
        original: the float model.
        chosen: the best so far; the original before the first step.
        error: of its answers, squared and relative to their size.
        steps: for each step its name, whether it was kept, its error, and why where it was not.
        declined: what the chosen model's passes left alone.
    """

    def __init__(self, original: Model, held: Sequence[Batch], ctx: Context) -> None:
        self.original, self.chosen, self.ctx = original, original, ctx
        self.held = held
        self.config = SessionConfig.judging(ctx.target, threads=usable_cpus())
        self.truth = answers(original, held, self.config)
        self.error = float("inf")
        self.steps: list[dict[str, Any]] = []
        self.declined: Sequence[Declined] = ()

    def start(self, name: str, *passes: Pass) -> None:
        """Take this one whatever its error is.

        Raises:
            TrimtabError: it cannot be made.
        """
        self.ctx.progress.say(f"trying {name}")
        made = self._made(passes)
        self._keep(name, made, self._error(made))

    def offer(self, name: str, *passes: Pass, as_fast: bool = True) -> bool:
        """Make it from the original and take it if its error is lower.

        Args:
            name: of the step.
            passes: in order.
            as_fast: refuse it where less of it runs in int8 than of the best so far.
        """
        self.ctx.progress.say(f"trying {name}")
        try:
            made = self._made(passes)
        except TrimtabError as failure:
            return self._reject(name, None, str(failure))
        return self._judge(name, made, as_fast=as_fast)

    def mend(self, name: str, change: Mend) -> bool:
        """Change a copy of the best so far and take that if its error is lower."""
        self.ctx.progress.say(f"trying {name}")
        try:
            result = change(self.chosen.clone())
        except TrimtabError as failure:
            return self._reject(name, None, str(failure))
        made = dataclasses.replace(self.chosen, ir=result.ir)
        return self._judge(name, made, as_fast=True)

    def _made(self, passes: Sequence[Pass]) -> Model:
        made = self.original
        for step in passes:
            made = step(made, self.ctx)
        return made

    def _error(self, model: Model) -> float:
        return answer_error(model, self.held, self.truth, self.config)

    def _judge(self, name: str, made: Model, *, as_fast: bool) -> bool:
        error = self._error(made)
        if as_fast and slower(made, self.chosen):
            return self._reject(name, error, "less of it runs in int8")
        if error >= (1 - MARGIN) * self.error:
            return self._reject(name, error, "the error would not fall")
        self._keep(name, made, error)
        return True

    def _keep(self, name: str, made: Model, error: float) -> None:
        self.chosen, self.error = made, error
        self.declined = [
            Declined(node, reason)
            for step in made.lineage[len(self.original.lineage) :]
            for node, reason in step.notes.get("declined", [])
        ]
        self.steps.append({"step": name, "kept": True, "error": _short(error)})

    def _reject(self, name: str, error: float | None, why: str) -> bool:
        told = {} if error is None else {"error": _short(error)}
        self.steps.append({"step": name, "kept": False, **told, "why": why})
        return False


def slower(made: Model, than: Model) -> bool:
    """Whether less of the arithmetic runs in int8, or more conversions stand around it."""
    mine, other = figures(made), figures(than)
    if not {"int8_share", "leftover_qdq"} <= set(mine) & set(other):
        return False
    less = mine["int8_share"] < other["int8_share"] - 1e-3
    return bool(less or mine["leftover_qdq"] > other["leftover_qdq"])


def figures(model: Model) -> dict[str, Any]:
    """What the last quantization of a model noted."""
    for step in reversed(model.lineage):
        if "int8_share" in step.notes:
            return dict(step.notes)
    return {}


def _short(error: float) -> float:
    return float(f"{error:.4g}")
