"""What there is to try: rules, the sites of each, and models with a choice of them applied."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from trimtab.core.model import Model

from ..base import Declined
from ..rewrites import find_form, forms
from ..rewrites.sites import Site, apply_form, find_sites, infer_shapes

#: Operators that onnxruntime's optimizer writes, and neither exporters nor rules of ours do.
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
    """A rule at some of its sites.

    Attributes:
        form: the rule's name.
        only: groups of alike sites to rewrite; all where empty.
        without: groups to leave as they are.
    """

    form: str
    only: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()

    def covers(self, shape: str) -> bool:
        """Whether sites of this shape are rewritten."""
        return (not self.only or shape in self.only) and shape not in self.without

    def merged(self, other: Choice) -> Choice:
        """Both choices of the same rule together."""
        return Choice(self.form, self.only | other.only, self.without | other.without)

    def __str__(self) -> str:
        parts = [f"at {', '.join(sorted(self.only))}"] if self.only else []
        parts += [f"but not at {', '.join(sorted(self.without))}"] if self.without else []
        return " ".join([self.form, *parts])


@dataclass(frozen=True)
class Candidate:
    """A rule that has sites in a model.

    Attributes:
        form: the rule's name.
        sites: where it applies.
    """

    form: str
    sites: tuple[Site, ...]

    @property
    def shapes(self) -> tuple[str, ...]:
        """The groups of alike sites."""
        return tuple(sorted({site.shape for site in self.sites}))


def with_shapes(model: Model) -> Model:
    """A copy with the shapes inferred that rules ask for."""
    copy = model.clone()
    infer_shapes(copy.ir)
    return copy


def candidates(
    model: Model, rules: Sequence[str] = (), *, contrib: bool = False
) -> tuple[list[Candidate], list[Declined]]:
    """Rules that have sites in a model with shapes, and what they decline.

    Args:
        model: with shapes inferred.
        rules: names of the rules to look for; all where empty.
        contrib: whether rules count that write operators of onnxruntime's own, named or not.

    Raises:
        OptionError: an unknown rule.
    """
    wanted = [find_form(name) for name in rules] or [
        form for form in forms().values() if contrib or not form.runtime_only
    ]
    found: list[Candidate] = []
    declined: list[Declined] = []
    for form in wanted:
        sites, refusals = find_sites(form, model.graph)
        if sites:
            found.append(Candidate(form.name, tuple(sites)))
        declined += _summed_up(refusals)
    return found, declined


def _summed_up(refusals: Sequence[Declined]) -> list[Declined]:
    """One line a reason, since a pattern often stands in a model dozens of times."""
    by_reason: dict[str, list[str]] = {}
    for refusal in refusals:
        by_reason.setdefault(refusal.reason, []).append(refusal.node)
    return [
        Declined(nodes[0] if len(nodes) == 1 else f"{nodes[0]} and {len(nodes) - 1} more", reason)
        for reason, nodes in by_reason.items()
    ]


def build(model: Model, choices: Sequence[Choice]) -> Model | None:
    """A copy with the choices applied in order; None where one of them finds no site."""
    made = model
    for choice in choices:
        step = _applied(made, choice)
        if step is None:
            return None
        made = step
    return made


def _applied(model: Model, choice: Choice) -> Model | None:
    form = find_form(choice.form)
    sites, _ = find_sites(form, model.graph)
    where = {site.value for site in sites if choice.covers(site.shape)}
    copy = replace(model.clone(), name=f"{model.name} with {choice.form}")
    return copy if apply_form(form, copy.ir, where) else None


def already_optimized(model: Model) -> str | None:
    """A sign that onnxruntime's optimizer wrote the graph; None where there is none."""
    for node in model.nodes():
        if node.domain.endswith("nchwc"):
            return f"node {node.name!r} is in the blocked layout of one machine"
        if node.domain == "com.microsoft" and node.op_type in FUSED:
            return f"node {node.name!r} is a fused {node.op_type}"
    return None


@functools.cache
def _integer_ops() -> frozenset[str]:
    from trimtab.core.ort.int8_share import INT8_OPS, QDQ_OPS

    return INT8_OPS | QDQ_OPS


def is_quantized(model: Model) -> bool:
    """Whether anything in it is int8."""
    return any(node.op_type in _integer_ops() for node in model.nodes())
