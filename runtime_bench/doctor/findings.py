"""Facts of a running graph, and the findings that the doctor's finders make of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import onnx_ir as ir

from trimtab.core.model import Model
from trimtab.core.ort.int8_share import QDQ_OPS, Int8Share
from trimtab.core.target import Target

from .graph import Island, key_of, makes_int8, original_name
from .profile import Profile

Severity = Literal["costs", "note"]


#: Operators that onnxruntime fuses into the preceding convolution or matrix product.
FUSED_IN = frozenset({"Add", "Clip", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Tanh"})


@dataclass(frozen=True)
class Finding:
    """A finding of the doctor.

    Attributes:
        kind: kind of finding: float-island, layout, fallback, channels, ...
        severity: `costs` time or memory, or a `note`.
        nodes: names in the file.
        why: reason, in one or two sentences.
        fix: what to do, with a command if there is one.
        cause: short name of the reason, by which findings are grouped.
        time_share: share of these nodes in the profiled time; None without a profile.
    """

    kind: str
    severity: Severity
    nodes: tuple[str, ...]
    why: str
    fix: str
    cause: str = ""
    time_share: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON values; the fix keeps its first key."""
        plain = {"mend" if k == "fix" else k: v for k, v in self.__dict__.items()}
        return plain | {"nodes": list(self.nodes)}


@dataclass(frozen=True)
class GraphFacts:
    """Facts of a model's running graph.

    Attributes:
        running: the graph that onnxruntime runs.
        share: share of its arithmetic in int8.
        target: target that it runs on.
        islands: groups of float nodes of the running graph.
        freed: nodes (by `key_of`) that become int8 if int8 activations are allowed.
        times: profile; None if not profiled.
        baseline: profile of the baseline; None without one.
        fallback: name and operator of nodes that run on a provider other than the requested one.
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
        """Nodes of the model by their names and by the names of their outputs."""
        nodes = list(self.model.graph)
        made = {v.name: node for node in nodes for v in node.outputs if v.name}
        return {node.name: node for node in nodes if node.name}, made

    def origin_of(self, node: ir.Node) -> ir.Node | None:
        """Find the node of the model that a node of the running graph comes from.

        onnxruntime keeps the name, or derives one from the output's; if an activation was fused
        into the node, that is the activation's output.
        """
        by_name, by_output = self._origins
        name = original_name(node.name or "")
        found = by_name.get(name) or by_output.get(name)
        while found is not None and found.op_type in FUSED_IN and node.op_type not in FUSED_IN:
            before = found.inputs[0]
            found = before.producer() if before is not None else None
        return found

    def names_of(self, nodes: Iterable[ir.Node]) -> tuple[str, ...]:
        """Return names in the file; for nodes that are not in it, those in the running graph."""
        origins = ((node, self.origin_of(node)) for node in nodes)
        return tuple((origin.name if origin else None) or key_of(node) for node, origin in origins)

    def time_of(self, nodes: Iterable[ir.Node]) -> float | None:
        """Return the share of running nodes in the profiled time; None without a profile."""
        if self.times is None:
            return None
        known = self.times.by_name
        return sum(known.get(node.name or "", 0.0) for node in nodes)

    @property
    def is_quantized(self) -> bool:
        """True if any node is int8."""
        return any(n.op_type in QDQ_OPS or makes_int8(n) for n in self.running)


Finder = Callable[[GraphFacts], Iterable[Finding]]
