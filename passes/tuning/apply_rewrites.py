"""Named rewrite rules applied at all their sites, without a clock, to repeat what `tune` found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trimtab.core.context import Context
from trimtab.core.model import Model

from ..base import Pass, Rewrite
from ..graph.declined import Declined
from ..rewrites import find_rewrite_rule
from ..rewrites.defaults import proven_rules
from .candidates import Choice, build, candidates, with_shapes


@dataclass(frozen=True)
class ApplyRewrites(Pass):
    """Apply the named exact rewrites wherever they match.

    Attributes:
        rules: names of rewrite rules, applied in order; if empty, those that were faster in every
            measurement on such machines.
    """

    tolerance: ClassVar[float | None] = 1e-5

    rules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for rule in self.rules:
            find_rewrite_rule(rule)

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        """Return the graph with each rule applied at all of its sites."""
        rules = self.rules or proven_rules(ctx.target)
        if not rules:
            why = "nothing was measured on such a machine; name `rules`, or use tune"
            return Rewrite(model.ir, [Declined("all sites", why)])
        made = with_shapes(model)
        found, declined = candidates(made, rules, contrib=True)
        sites = {candidate.rule: len(candidate.sites) for candidate in found}
        for rule in rules:
            made = build(made, [Choice(rule)]) or made if rule in sites else made
        # Without a site the graph stays unchanged, inferred shapes included.
        return Rewrite(made.ir if sites else model.ir, declined, {"sites": sites})
