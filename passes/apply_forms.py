"""Named equal forms at all their sites, without a clock: what `tune` found, made again anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trimtab.core.context import Context
from trimtab.core.model import Model

from .base import Pass, Rewrite
from .forms import find_form
from .tune_candidates import Choice, build, candidates, with_shapes

#: Faster in every measurement so far on x64: see `tune`, which asks the clock instead.
USUAL = ("sum-before-norm", "shortcut-as-conv")


@dataclass(frozen=True)
class ApplyForms(Pass):
    """Write the model in the named equal forms, wherever they apply.

    Attributes:
        rules: rules of `passes/forms`, applied in order.
    """

    tolerance: ClassVar[float | None] = 1e-5

    rules: tuple[str, ...] = USUAL

    def __post_init__(self) -> None:
        for rule in self.rules:
            find_form(rule)

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:  # noqa: ARG002 - needs no surroundings
        """The graph with each rule applied at all of its sites."""
        made = with_shapes(model)
        found, declined = candidates(made, self.rules, contrib=True) if self.rules else ([], [])
        sites = {candidate.form: len(candidate.sites) for candidate in found}
        for rule in self.rules:
            made = build(made, [Choice(rule)]) or made if rule in sites else made
        # Without a site the graph stays as it was, inferred shapes included.
        return Rewrite(made.ir if sites else model.ir, declined, {"sites": sites})
