"""Search for the first place at which onnxruntime and torch differ.

Two steps can go wrong: torch's capture of the module as a graph, and the translation of that graph
to ONNX. Both the module and the ONNX model are compared with the captured graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trimtab.core.errors import RunError
from trimtab.core.model import Model
from trimtab.core.ort.inner_outputs import with_outputs
from trimtab.core.ort.session import SessionConfig, build_session, run

from .capture import silenced
from .export_errors import submodule_label
from .flat_module import FlatModule
from .parity import TOLERANCE, ParityTrial, as_feeds, difference, to_numpy


class NodeRecorder(torch.fx.Interpreter):
    """Interpreter of torch's graph that keeps the value of each node."""

    def __init__(self, module: Any) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.values: dict[str, Any] = {}

    def run_node(self, n: torch.fx.Node) -> Any:
        """Run a node and keep its value."""
        value = self.values[n.name] = super().run_node(n)
        return value


def first_difference(
    model: Model, flat: FlatModule, program: Any, origins: Mapping[str, str], trial: ParityTrial
) -> str:
    """Describe the first place at which the model differs from the module on the trial's inputs.

    `program` is torch's `ExportedProgram`, `origins` has torch's name of each value of the model.
    """
    graph = program.module(check_guards=False)
    recorder = NodeRecorder(graph)
    with silenced():
        recorder.run(*trial.tensors)
    node = _first_node(model, recorder.values, origins, trial.tensors)
    if node:
        return f"the first node that differs is {node}"
    submodule = _first_submodule(flat, graph, recorder.values, trial.tensors)
    if submodule:
        return f"the first part that differs is {submodule}"
    return "every node agrees with torch's captured graph: the capture itself differs"


def _first_node(
    model: Model, values: Mapping[str, Any], origins: Mapping[str, str], tensors: Sequence[Tensor]
) -> str:
    """Find the first ONNX node whose result differs from its node of torch's graph."""
    known = [
        (node, value.name or "", values[origins[value.name or ""]])
        for node in model.graph
        for value in node.outputs
        if isinstance(values.get(origins.get(value.name or "", "")), Tensor)
    ]
    # Unoptimized, so that every value exists and no fusion matters.
    wide = with_outputs(model, [name for _, name, _ in known])
    try:
        got = run(build_session(wide, SessionConfig(level="off")), as_feeds(model, tensors))
    except RunError:
        return ""
    for node, name, expected in known:
        array = to_numpy(expected)
        # Nodes of one name may be different steps of one operator, in another layout.
        if array.shape == got[name].shape and _differs(array, got[name]):
            return f"{node.name!r} ({node.op_type})"
    return ""


def _first_submodule(
    flat: FlatModule, graph: Any, values: Mapping[str, Any], tensors: Sequence[Tensor]
) -> str:
    """Find the first submodule whose result differs in the captured graph."""
    last: dict[str, Any] = {}
    for node in graph.graph.nodes:
        if isinstance(values.get(node.name), Tensor):
            for path, _ in (node.meta.get("nn_module_stack") or {}).values():
                last[path] = values[node.name]
    results: list[tuple[str, Any, Any]] = []
    hooks = [
        m.register_forward_hook(lambda m, _, result, path=path: results.append((path, m, result)))
        for path, m in flat.named_modules()
        if path
    ]
    try:
        flat(*tensors)
    finally:
        for hook in hooks:
            hook.remove()
    for path, module, result in results:
        captured = last.get(path, result)
        if (
            isinstance(result, Tensor)
            and captured.shape == result.shape
            and _differs(to_numpy(result), to_numpy(captured))
        ):
            return submodule_label(path.partition(".")[2], module)
    return ""


def _differs(expected: Any, got: Any) -> bool:
    return not difference(expected, np.asarray(got)).relative <= TOLERANCE
