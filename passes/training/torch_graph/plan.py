"""Execution plan of a graph: steps over numbered slots, fixed before the first run.

Values live in three places. Constants, and what follows from constants alone, are computed when
planning. Sizes and indices that follow from shapes stay on the CPU, so that a Reshape never waits
for an accelerator. All else is a tensor on the module's device, freed after its last use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from trimtab.core.errors import ModelError, OptionError, TrimtabError, nearest
from trimtab.core.model import Model

from ...graph.queries import input_at, node_label
from .operators.table import FUSED, Mode, NodeSpec, OperatorEntry, Run, key_of, supported_operators
from .operators.values import DTYPES, to_tensor
from .roles import TrainableWeight, rounding_range, same_axis

#: Slot that always contains None, for omitted inputs and unused outputs.
NOTHING = 0
OLDEST, NEWEST = 7, 23


@dataclass
class ExecutionStep:
    """Execution of one node.

    Attributes:
        name: name for messages.
        run: operator with its attributes bound.
        inputs: slots of its inputs.
        moves: positions of inputs on another device, and true where they go to the CPU.
        outputs: slots of its outputs, NOTHING for unused ones.
        free: slots to free afterwards.
    """

    name: str
    run: Run
    inputs: tuple[int, ...]
    moves: tuple[tuple[int, bool], ...]
    outputs: tuple[int, ...]
    free: tuple[int, ...] = ()


@dataclass
class ExecutionPlan:
    """All steps, and the contents of slots before the first.

    Attributes:
        steps: steps in order.
        slots: number of slots.
        feeds: slot of each input by name.
        weights: slot of each trained initializer by name.
        constants: tensors that belong on the device, by slot.
        fixed: tensors that stay on the CPU, by slot.
        results: name, slot and type of each output and each intermediate output.
    """

    steps: list[ExecutionStep] = field(default_factory=list)
    slots: int = 1
    feeds: dict[str, int] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)
    constants: dict[int, Tensor] = field(default_factory=dict)
    fixed: dict[int, Tensor] = field(default_factory=dict)
    results: list[tuple[str, int, torch.dtype | None]] = field(default_factory=list)


def make_plan(
    model: Model, weights: dict[str, TrainableWeight], mode: Mode, intermediate: Sequence[str]
) -> ExecutionPlan:
    """Plan the execution of a graph that returns intermediate outputs beside its outputs.

    Raises:
        ModelError: unsupported operators, all of them named.
        OptionError: an unknown intermediate output.
    """
    _check_known(model)
    return _Planner(model, weights, mode).plan(intermediate)


def _check_known(model: Model) -> None:
    if not OLDEST <= model.opset <= NEWEST:
        raise ModelError(
            f"has opset {model.opset}; {OLDEST} to {NEWEST} can be trained",
            where=model.name,
            hint="Run the pass simplify first, which raises it, or export with another opset",
        )
    known = supported_operators()
    missing: dict[str, list[str]] = {}
    for node in model.nodes():
        key = key_of(node.domain, node.op_type)
        if key not in known:
            missing.setdefault(key, []).append(node.name or "unnamed")
    if missing:
        listed = "; ".join(f"{key} ({len(n)}x, first {n[0]!r})" for key, n in missing.items())
        raise ModelError(
            f"has operators that cannot be trained: {listed}",
            where=model.name,
            hint="Export or simplify it without them, or train it in its own framework",
        )


class _Planner:
    def __init__(self, model: Model, weights: dict[str, TrainableWeight], mode: Mode) -> None:
        self.model, self.weights, self.mode = model, weights, mode
        self.result = ExecutionPlan()
        self.known: dict[ir.Value, Tensor] = {}
        self.on_host: set[ir.Value] = set()
        self.slot_of: dict[ir.Value, int] = {}
        self.paired: dict[ir.Value, ir.Node] = {}
        self.intermediate: frozenset[str] = frozenset()
        self.copies: dict[tuple[ir.Value, bool], int] = {}

    def plan(self, intermediate: Sequence[str]) -> ExecutionPlan:
        self.intermediate, graph = frozenset(intermediate), self.model.graph
        for name, value in graph.initializers.items():
            if name in self.weights:
                self.result.weights[name] = self._slot(value)
            elif value.const_value is not None:
                self.known[value] = to_tensor(value.const_value)
        for value in graph.inputs:
            if value.name not in graph.initializers:
                self.result.feeds[value.name or ""] = self._slot(value)
        for node in graph:
            self._add(node)
        self._results(intermediate)
        self._free()
        return self.result

    def _slot(self, value: ir.Value | None = None) -> int:
        slot = self.result.slots
        self.result.slots += 1
        if value is not None:
            self.slot_of[value] = slot
        return slot

    def _add(self, node: ir.Node) -> None:
        if self._is_fused_quantize(node):
            self.paired[node.outputs[0]] = node
            return
        data = input_at(node, 0)
        self._plan_node(node, self.paired.get(data, node) if data is not None else node)

    def _plan_node(self, node: ir.Node, source: ir.Node) -> None:
        """Plan a node; `source` is its QuantizeLinear where a Q/DQ pair is computed at once."""
        key = key_of(node.domain, node.op_type) if source is node else FUSED
        entry, spec = supported_operators()[key], self._spec(source)
        try:
            run = entry.build(spec)
            present = [v for v in source.inputs if v is not None]
            if all(v in self.known for v in present) and source.op_type != "QuantizeLinear":
                with torch.no_grad():
                    made = run(*(None if v is None else self.known[v] for v in node.inputs))
                self.known.update(zip(node.outputs, outputs_of(made), strict=False))
                return
        except TrimtabError:
            raise
        except Exception as error:
            raise _broken(node, error) from error
        host = entry.to_host or (
            bool(present) and all(v in self.known or v in self.on_host for v in present)
        )
        inputs, moves = self._inputs(source, entry, host=host and not entry.to_host)
        outputs = [
            self._slot(value) if value.uses() or value.is_graph_output() or value.name else NOTHING
            for value in node.outputs
        ]
        self.on_host.update(node.outputs if host else ())
        self.result.steps.append(ExecutionStep(_title(node), run, inputs, moves, tuple(outputs)))

    def _is_fused_quantize(self, node: ir.Node) -> bool:
        """Return whether only DequantizeLinear nodes with the same scale read a QuantizeLinear."""
        if node.op_type != "QuantizeLinear":
            return False
        made = node.outputs[0]
        shown = made.is_graph_output() or made.name in self.intermediate
        return (not shown and bool(made.uses())) and all(
            user.op_type == "DequantizeLinear"
            and list(user.inputs[1:]) == list(node.inputs[1:])
            and same_axis(user, node)
            for user, _ in made.uses()
        )

    def _inputs(
        self, node: ir.Node, entry: OperatorEntry, *, host: bool
    ) -> tuple[tuple[int, ...], tuple[tuple[int, bool], ...]]:
        slots, moves = [], []
        for index, value in enumerate(node.inputs):
            wants = host or index in entry.host
            if value is None:
                slots.append(NOTHING)
            elif value in self.known:
                slots.append(self._constant(value, host=wants))
            else:
                slots.append(self.slot_of[value])
                if (value in self.on_host) != wants and not (entry.to_host and not wants):
                    moves.append((index, wants))
        return tuple(slots), tuple(moves)

    def _constant(self, value: ir.Value, *, host: bool) -> int:
        """Return the slot of a constant on the CPU or on the device."""
        if (value, host) not in self.copies:
            slot = self.copies[value, host] = self._slot()
            (self.result.fixed if host else self.result.constants)[slot] = self.known[value]
        return self.copies[value, host]

    def _spec(self, node: ir.Node) -> NodeSpec:
        domain = "" if node.domain == "ai.onnx" else node.domain
        data = input_at(node, 0)
        weight = self.weights.get(data.name or "") if data is not None else None
        return NodeSpec(
            op=node.op_type,
            name=node.name or _title(node),
            version=node.version or self.model.ir.opset_imports.get(domain, 1),
            attributes={name: a.value for name, a in node.attributes.items()},
            inputs=tuple(v is not None for v in node.inputs),
            constants={i: self.known[v] for i, v in enumerate(node.inputs) if v in self.known},
            used=tuple(bool(v.uses()) or v.is_graph_output() for v in node.outputs),
            mode=self.mode,
            integers=rounding_range(node, weight),
            weight=weight is not None and weight.qparams is not None,
        )

    def _results(self, intermediate: Sequence[str]) -> None:
        graph = self.model.graph
        values = {v.name: v for node in graph for v in node.outputs if v.name}
        for name in intermediate:
            if name not in values:
                hint = nearest(name, map(str, values))
                raise OptionError(f"no tensor named {name!r}", where=self.model.name, hint=hint)
        for value in [*graph.outputs, *(values[name] for name in intermediate)]:
            known = value in self.known
            slot = self._constant(value, host=False) if known else self.slot_of[value]
            dtype = DTYPES.get(value.dtype) if value.dtype is not None else None
            self.result.results.append((value.name or "", slot, dtype))

    def _free(self) -> None:
        """Free each slot after its last use."""
        plan = self.result
        seen = {NOTHING, *plan.weights.values(), *plan.fixed, *plan.constants}
        seen |= {slot for _, slot, _ in plan.results}
        for step in reversed(plan.steps):
            used = dict.fromkeys((*step.inputs, *step.outputs))
            step.free = tuple(slot for slot in used if slot not in seen)
            seen.update(step.free)


def outputs_of(made: Any) -> Sequence[Tensor]:
    """Return what an operator computed as a sequence, also where it is one tensor."""
    return made if isinstance(made, tuple | list) else (made,)


def _title(node: ir.Node) -> str:
    return f"{node.op_type} {node_label(node)!r}"


def _broken(node: ir.Node, error: Exception) -> ModelError:
    return ModelError(
        f"cannot be computed: {str(error).splitlines()[0][:200] if str(error) else error!r}",
        where=_title(node),
        hint="Check the model with onnxruntime; where it runs there, please report this",
    )
