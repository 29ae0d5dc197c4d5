"""Diagnosis of a slow model: a list of finders over the graph that onnxruntime really runs.

A finder is a function from facts to findings; to add one, write it and list it in `FINDERS`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from trimtab.core.model import Model
from trimtab.core.ort.int8_share import int8_share
from trimtab.core.ort.session import INT8_ALLOWED, Feeds, SessionConfig, optimized_graph
from trimtab.core.target import PRESETS, Target

from ..machine.providers import nodes_by_provider
from .checks import FINDERS
from .findings import Finding, GraphFacts
from .graph import Island, islands, key_of
from .profile import profile


@dataclass(frozen=True)
class Diagnosis:
    """Diagnosis of a model: its findings, those that cost first, and the facts behind them."""

    facts: GraphFacts
    findings: tuple[Finding, ...] = ()

    @property
    def healthy(self) -> bool:
        """True if no finding costs time or memory."""
        return all(finding.severity != "costs" for finding in self.findings)


def diagnose(
    model: Model,
    feeds: Feeds,
    config: SessionConfig | None = None,
    *,
    target: Target | None = None,
    baseline: Model | None = None,
    profiled: bool = True,
) -> Diagnosis:
    """Diagnose why a model is slow on a target (default this machine).

    A profile runs it, and its float original to show operators side by side, for about a second.

    Raises:
        RunError: onnxruntime refuses the model.
    """
    config = config or SessionConfig()
    facts = collect_facts(model, feeds, config, target=target)
    if profiled:
        other = profile(baseline, config, feeds) if baseline is not None else None
        facts = replace(facts, times=profile(model, config, feeds), baseline=other)
    return Diagnosis(facts, run_finders(facts))


def collect_facts(
    model: Model, feeds: Feeds, config: SessionConfig, *, target: Target | None = None
) -> GraphFacts:
    """Collect the facts that need no timing."""
    where = target or _target_of(config)
    config = replace(
        config, config={**SessionConfig.with_fusions_of(where).config, **config.config}
    )
    running = optimized_graph(model, config).graph
    found = tuple(islands(running))
    fallback: tuple[tuple[str, str], ...] = ()
    if config.provider != "CPUExecutionProvider":
        placed = nodes_by_provider(model, config)
        elsewhere = [nodes for name, nodes in placed.items() if name != config.provider]
        fallback = tuple(pair for nodes in elsewhere for pair in nodes)
    return GraphFacts(
        model,
        running,
        int8_share(model, config, feeds),
        where,
        found,
        _freed(model, config, found, where),
        fallback=fallback,
    )


def _target_of(config: SessionConfig) -> Target:
    for preset in PRESETS.values():
        if preset.provider == config.provider != "CPUExecutionProvider":
            return preset
    return Target.detect(config.threads)


def _freed(
    model: Model, config: SessionConfig, found: tuple[Island, ...], target: Target
) -> frozenset[str]:
    """Prove by experiment that S8S8 is the cause: allow it, and return nodes that become int8."""
    touching = [island for island in found if island.touches_int8]
    if target.isa != "x64" or not touching or INT8_ALLOWED in config.config:
        return frozenset()
    allowed = replace(config, config={**config.config, INT8_ALLOWED: "1"})
    again = islands(optimized_graph(model, allowed).graph)
    still = {key_of(node) for island in again for node in island.nodes}
    before = {key_of(node) for island in touching for node in island.nodes}
    return frozenset(before - still)


def run_finders(facts: GraphFacts) -> tuple[Finding, ...]:
    """Run all finders; findings that cost come first, the slowest of them at the top."""
    found = [finding for finder in FINDERS for finding in finder(facts)]
    return tuple(sorted(found, key=lambda f: (f.severity != "costs", -(f.time_share or 0))))
