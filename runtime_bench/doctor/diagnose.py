"""Diagnosis of a slow model: a list of finders over the graph that onnxruntime really runs.

A finder is a function from facts to findings; to add one, write it and list it in `FINDERS`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

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
    """Diagnosis of a model.

    Attributes:
        facts: facts that it is based on.
        findings: findings, those that cost first.
    """

    facts: GraphFacts
    findings: tuple[Finding, ...] = field(default_factory=tuple)

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
    """Diagnose why a model is slow.

    Args:
        model: any model.
        feeds: arrays by input name.
        config: session configuration of the deployment.
        target: target that it runs on (default this machine).
        baseline: float original, to show operators side by side.
        profiled: profile the model, which runs it for about a second (default true).

    Raises:
        RunError: onnxruntime refuses the model.
    """
    facts = collect_facts(model, feeds, config or SessionConfig(), target=target)
    if profiled:
        settings = config or SessionConfig()
        other = profile(baseline, settings, feeds) if baseline is not None else None
        facts = replace(facts, times=profile(model, settings, feeds), baseline=other)
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
