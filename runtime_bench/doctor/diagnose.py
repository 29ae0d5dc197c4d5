"""Why a model is slow: a list of finders over the graph that onnxruntime really runs.

A finder is a function from facts to findings; to add one, write it and name it in `FINDERS`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import onnx_ir as ir

from trimtab.core.model import Model
from trimtab.core.ort.int8_share import QDQ_OPS, Int8Share, int8_share
from trimtab.core.ort.session import INT8_ALLOWED, Feeds, SessionConfig, optimized_graph
from trimtab.core.target import PRESETS, Target

from ..machine.providers import nodes_by_provider
from .graph import Island, islands, key_of, makes_int8, original_name
from .profile import Profile, profile

Severity = Literal["costs", "note"]
#: Operators that onnxruntime fuses into the convolution or product before them.
FUSED_IN = frozenset({"Add", "Clip", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Tanh"})


@dataclass(frozen=True)
class Finding:
    """Something that the doctor found.

    Attributes:
        kind: what sort of thing: float-island, layout, fallback, channels, ...
        severity: `costs` time or memory, or a `note`.
        nodes: names in the file.
        why: the reason, one or two sentences.
        mend: what to do, naming a command where there is one.
        cause: short name of the reason, by which findings are grouped.
        time_share: part of the profiled time of these nodes, None without a profile.
    """

    kind: str
    severity: Severity
    nodes: tuple[str, ...]
    why: str
    mend: str
    cause: str = ""
    time_share: float | None = None

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return dict(self.__dict__, nodes=list(self.nodes))


@dataclass(frozen=True)
class Facts:
    """What is known of a model before anything is judged.

    Attributes:
        model: as it was given.
        running: the graph that onnxruntime runs.
        share: its arithmetic, int8 against float.
        target: the machine it runs on.
        islands: groups of float nodes of the running graph.
        freed: nodes (by `key_of`) that become int8 once int8 activations are allowed.
        times: where the time goes, None where it was not profiled.
        baseline: where the baseline's time goes, None without one.
        fallback: name and operator of nodes that another provider than the wanted one runs.
    """

    model: Model
    running: ir.Graph
    share: Int8Share
    target: Target
    islands: tuple[Island, ...] = ()
    freed: frozenset[str] = frozenset()
    times: Profile | None = None
    baseline: Profile | None = None
    fallback: tuple[tuple[str, str], ...] = ()

    @functools.cached_property
    def _origins(self) -> tuple[dict[str, ir.Node], dict[str, ir.Node]]:
        """Nodes of the given model by their names and by the names of what they make."""
        nodes = list(self.model.graph)
        made = {v.name: node for node in nodes for v in node.outputs if v.name}
        return {node.name: node for node in nodes if node.name}, made

    def origin_of(self, node: ir.Node) -> ir.Node | None:
        """The node of the given model that a node of the running graph comes from.

        onnxruntime keeps names, or makes one of the output's; where an activation was fused in,
        that output is the activation's.
        """
        by_name, by_output = self._origins
        name = original_name(node.name or "")
        found = by_name.get(name) or by_output.get(name)
        while found is not None and found.op_type in FUSED_IN and node.op_type not in FUSED_IN:
            before = found.inputs[0]
            found = before.producer() if before is not None else None
        return found

    def names_of(self, nodes: Iterable[ir.Node]) -> tuple[str, ...]:
        """Names in the file; for nodes that are not there, what onnxruntime made of them."""
        origins = ((node, self.origin_of(node)) for node in nodes)
        return tuple((origin.name if origin else None) or key_of(node) for node, origin in origins)

    def time_of(self, nodes: Iterable[ir.Node]) -> float | None:
        """Part of the profiled time of nodes of the running graph, None without a profile."""
        if self.times is None:
            return None
        known = self.times.by_name
        return sum(known.get(node.name or "", 0.0) for node in nodes)

    @property
    def is_quantized(self) -> bool:
        """Whether anything at all is int8."""
        nodes = list(self.running)
        return any(n.op_type in QDQ_OPS or makes_int8(n) for n in nodes)


Finder = Callable[[Facts], Iterable[Finding]]


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor says.

    Attributes:
        facts: that it rests on.
        findings: those that cost come first.
    """

    facts: Facts
    findings: tuple[Finding, ...] = field(default_factory=tuple)

    @property
    def healthy(self) -> bool:
        """Whether nothing was found that costs."""
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
    """Examine a model.

    Args:
        model: any model.
        feeds: what it is run with.
        config: how its session is deployed.
        target: where it runs; this machine where None.
        baseline: the float original, to show operators side by side.
        profiled: whether to profile, which runs the model for about a second.

    Raises:
        RunError: onnxruntime refuses the model.
    """
    facts = gather(model, feeds, config or SessionConfig(), target=target)
    if profiled:
        settings = config or SessionConfig()
        other = profile(baseline, settings, feeds) if baseline is not None else None
        facts = replace(facts, times=profile(model, settings, feeds), baseline=other)
    return Diagnosis(facts, examine(facts))


def gather(
    model: Model, feeds: Feeds, config: SessionConfig, *, target: Target | None = None
) -> Facts:
    """The facts that need no clock."""
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
    return Facts(
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
    """The experiment that proves S8S8 to be the cause: allow it, and see which nodes turn int8."""
    touching = [island for island in found if island.touches_int8]
    if target.isa != "x64" or not touching or INT8_ALLOWED in config.config:
        return frozenset()
    allowed = replace(config, config={**config.config, INT8_ALLOWED: "1"})
    again = islands(optimized_graph(model, allowed).graph)
    still = {key_of(node) for island in again for node in island.nodes}
    before = {key_of(node) for island in touching for node in island.nodes}
    return frozenset(before - still)


def examine(facts: Facts) -> tuple[Finding, ...]:
    """The findings of all finders; those that cost come first, the slowest of them before."""
    from .checks import FINDERS

    found = [finding for finder in FINDERS for finding in finder(facts)]
    return tuple(sorted(found, key=lambda f: (f.severity != "costs", -(f.time_share or 0))))
