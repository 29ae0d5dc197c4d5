"""Candidates of the tuner: rules with their sites, and models with a choice of them applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from trimtab.core.model import Model

from ..graph.cleanup import normalize
from ..graph.declined import Declined
from ..graph.shapes import infer_shapes
from ..rewrites import find_rewrite_rule, rewrite_rules
from ..rewrites.sites import RewriteSite, apply_rule, find_sites

#: Operators that onnxruntime's optimizer writes, and neither exporters nor our rules do.
FUSED = frozenset(
    {
        "BiasGelu",
        "DynamicQuantizeMatMul",
        "FusedConv",
        "FusedGemm",
        "FusedMatMul",
        "MatMulIntegerToFloat",
        "ReorderInput",
        "SkipLayerNormalization",
    }
)


@dataclass(frozen=True)
class Choice:
    """Rule at some of its sites.

    Attributes:
        rule: name of the rule.
        only: groups of alike sites to rewrite; all where empty.
        without: groups to leave unchanged.
    """

    rule: str
    only: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()

    def covers(self, shape: str) -> bool:
        """Return whether sites of this shape are rewritten."""
        return (not self.only or shape in self.only) and shape not in self.without

    def merged(self, other: Choice) -> Choice:
        """Return both choices of the same rule as one."""
        return Choice(self.rule, self.only | other.only, self.without | other.without)

    def __str__(self) -> str:
        parts = [f"at {', '.join(sorted(self.only))}"] if self.only else []
        parts += [f"but not at {', '.join(sorted(self.without))}"] if self.without else []
        return " ".join([self.rule, *parts])


@dataclass(frozen=True)
class Candidate:
    """Rule that has sites in a model."""

    rule: str
    sites: tuple[RewriteSite, ...]

    @property
    def shapes(self) -> tuple[str, ...]:
        """Groups of alike sites."""
        return tuple(sorted({site.shape for site in self.sites}))


def with_shapes(model: Model) -> Model:
    """Return a normalized copy with inferred shapes, which rules need."""
    copy = model.clone()
    normalize(copy.ir)
    infer_shapes(copy.ir)
    return copy


def candidates(
    model: Model, rules: Sequence[str] = (), *, contrib: bool = False
) -> tuple[list[Candidate], list[Declined]]:
    """Return the rules that have sites in a model with shapes, and what they decline.

    Args:
        model: model with inferred shapes.
        rules: names of the rules to look for; all where empty.
        contrib: true to include rules that write onnxruntime's own operators without being named.

    Raises:
        OptionError: an unknown rule.
    """
    wanted = [find_rewrite_rule(name) for name in rules] or [
        rule for rule in rewrite_rules().values() if contrib or not rule.runtime_only
    ]
    found: list[Candidate] = []
    declined: list[Declined] = []
    for rule in wanted:
        sites, refusals = find_sites(rule, model.graph)
        if sites:
            found.append(Candidate(rule.name, tuple(sites)))
        declined += _summed_up(refusals)
    return found, declined


def _summed_up(refusals: Sequence[Declined]) -> list[Declined]:
    """Merge refusals of one reason, since a model often has a pattern dozens of times."""
    by_reason: dict[str, list[str]] = {}
    for refusal in refusals:
        by_reason.setdefault(refusal.reason, []).append(refusal.node)
    return [
        Declined(nodes[0] if len(nodes) == 1 else f"{nodes[0]} and {len(nodes) - 1} more", reason)
        for reason, nodes in by_reason.items()
    ]


def build(model: Model, choices: Sequence[Choice]) -> Model | None:
    """Return a copy with the choices applied in order; None where one of them finds no site."""
    for choice in choices:
        rule = find_rewrite_rule(choice.rule)
        sites, _ = find_sites(rule, model.graph)
        where = {site.value for site in sites if choice.covers(site.shape)}
        model = replace(model.clone(), name=f"{model.name} with {choice.rule}")
        if not apply_rule(rule, model.ir, where):
            return None
    return model


def already_optimized(model: Model) -> str | None:
    """Return a sign that onnxruntime's optimizer wrote the graph; None where there is none."""
    for node in model.nodes():
        if node.domain.endswith("nchwc"):
            return f"node {node.name!r} is in the blocked layout of one machine"
        if node.domain == "com.microsoft" and node.op_type in FUSED:
            return f"node {node.name!r} is a fused {node.op_type}"
    return None
