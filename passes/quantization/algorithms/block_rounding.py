"""Rounding by what it does to a block's output: all weights of a residual block at once.

    min over the h in [0, 1]   || y_float - block(x_int8; s (floor(w / s) + h)) ||^2

with h pushed to 0 or 1 on the way (AdaRound's objective, Nagel et al. 2020, arXiv 2004.10568, over
the blocks of BRECQ, Li et al. 2021, arXiv 2102.05426): what one layer loses another may make good.
A block lies between two places where a single tensor carries everything; a chain's blocks are its
layers. A block's rounding stays only where its output's error falls on samples held out, and all of
them only where the answer's does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimtab.core.context import Context
from trimtab.core.data import Array, Batch
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.core.target import usable_cpus

from ...base import Declined, Rewrite
from ...graph.partial_run import Walk
from ..output_error import answer_error, answers
from ..qdq.float_reference import Nodes, shared_layers
from .int8_layer import Int8Weight, float_weight, int8_weight


@dataclass(frozen=True)
class Unit:
    """A part of the graph that one tensor enters and one leaves.

    Attributes:
        source: what enters, float.
        result: what leaves, float.
        wanted: the float model's name of what leaves.
        layers: the part's products.
    """

    source: ir.Value
    result: ir.Value
    wanted: str
    layers: tuple[ir.Node, ...]


def round_blocks(
    model: Model, reference: Model, batches: Sequence[Batch], ctx: Context, *, steps: int
) -> Rewrite:
    """Round the weights of a Q/DQ model in place, block by block.

    Args:
        model: a clone of the Q/DQ model.
        reference: the float model, prepared, its nodes named like the model's.
        batches: samples; every fourth judges.
        ctx: for progress and the seed.
        steps: of descent for each block.

    Raises:
        InputError: no layer of the model bears the name of one in the reference.
        MissingExtraError: PyTorch is not installed.
    """
    layers, makers = shared_layers(model, reference)
    values = {v.name: v for node in reference.graph for v in node.outputs}
    units = find_units(model.graph, set(layers), makers)
    order = [*(b for i, b in enumerate(batches) if i % 4 != 3), *batches[3::4]]
    fits = len(batches) - len(batches[3::4])
    fits -= fits == len(batches) and fits > 1  # a single batch serves for both
    judge = order[fits:] or order
    config = SessionConfig.judging(ctx.target, threads=usable_cpus())
    truth = answers(reference, judge, config)
    first, untouched = answer_error(model, judge, truth, config), model.clone()
    here, there = (Walk(m, [b.feeds for b in order]) for m in (model, reference))
    rounded: list[str] = []
    declined = _outside(layers, units)
    for unit in ctx.progress.track(units, "rounding blocks", len(units)):
        fed = here.to(unit.source)
        wanted = there.to(values[unit.wanted])
        names, skipped = _round(model, unit, makers, (fed, wanted, fits), ctx.seed, steps)
        rounded += names
        declined += skipped
    after = answer_error(model, judge, truth, config)
    if after >= first:
        declined += [Declined(name, "the answer's error would not fall") for name in rounded]
        rounded, after, model = [], first, untouched
    report = {"units": len(units), "rounded": rounded, "error_before": first, "error_after": after}
    return Rewrite(model.ir, declined, report)


def find_units(graph: ir.Graph, layers: set[ir.Node], makers: Nodes) -> list[Unit]:
    """The parts between the float tensors that carry everything, those with layers.

    Args:
        graph: of a Q/DQ model, sorted.
        layers: the products to look for.
        makers: the float model's nodes by name, among which a part's result must be found.
    """
    units: list[Unit] = []
    inputs = [v for v in graph.inputs if not v.is_initializer()]
    if len(inputs) != 1:
        return units
    source, inside = inputs[0], []
    for node, alone in _crossings(graph):
        inside += [node] if node in layers else []
        if alone is None:
            continue
        wanted = _in_reference(alone, makers)
        if inside and wanted is None:
            continue  # the float model has nothing to hold it against: the part goes on
        if inside and wanted is not None:
            units.append(Unit(source, alone, wanted, tuple(inside)))
        source, inside = alone, []
    return units


def _crossings(graph: ir.Graph) -> list[tuple[ir.Node, ir.Value | None]]:
    """Each node that computes, with the float tensor that alone is read behind it, if one is."""
    order = list(graph)
    place = {node: index for index, node in enumerate(order)}
    fixed: set[ir.Node] = set()
    live: dict[ir.Value, int] = {}
    for value in graph.inputs:
        if not value.is_initializer():
            live[value] = _last(value, place)
    found: list[tuple[ir.Node, ir.Value | None]] = []
    for index, node in enumerate(order):
        sources = [v for v in node.inputs if v is not None]
        if all(v.is_initializer() or v.producer() in fixed for v in sources):
            fixed.add(node)
            continue
        live |= {v: _last(v, place) for v in node.outputs}
        live = {v: last for v, last in live.items() if last > index}
        only = next(iter(live)) if len(live) == 1 else None
        found.append((node, only if only is not None and _is_float(only) else None))
    return found


def _is_float(value: ir.Value) -> bool:
    maker = value.producer()
    rounds = maker is not None and maker.op_type == "DequantizeLinear"
    return rounds or value.dtype == ir.DataType.FLOAT


def _last(value: ir.Value, place: dict[ir.Node, int]) -> int:
    """Where the value is read last; beyond the graph where it is an answer or in a subgraph."""
    if value.is_graph_output():
        return len(place)
    return max((place.get(user, len(place)) for user, _ in value.uses()), default=-1)


def _in_reference(value: ir.Value, makers: Nodes) -> str | None:
    """The float model's name of a tensor: what the node of the same name reads at the same place.

    The tensor's own name does not tell, since a pair takes the place of the Relu before it.
    """
    for user, index in value.uses():
        twin = makers.get(user.name)
        read = twin.inputs[index] if twin is not None and index < len(twin.inputs) else None
        if read is not None:
            return read.name
    return value.name if value.is_graph_output() else None


def _outside(layers: Sequence[ir.Node], units: Sequence[Unit]) -> list[Declined]:
    inside = {layer for unit in units for layer in unit.layers}
    why = "it lies in no block that one tensor enters and one leaves"
    return [Declined(layer.name or "", why) for layer in layers if layer not in inside]


def _round(
    model: Model,
    unit: Unit,
    makers: Nodes,
    data: tuple[list[Array], list[Array], int],
    seed: int,
    steps: int,
) -> tuple[list[str], list[Declined]]:
    """Round one unit and keep that if it helps; names of the rounded layers, and the others."""
    from ...training.torch_graph import round_softly

    weights: dict[ir.Node, Int8Weight] = {}
    declined: list[Declined] = []
    for layer in unit.layers:
        weight = int8_weight(layer)
        shape = None if isinstance(weight, str) else weight.shape
        original = float_weight(makers[layer.name], shape)
        if isinstance(weight, str) or original is None or original.shape != weight.shape:
            why = weight if isinstance(weight, str) else "the float model has another weight"
            declined.append(Declined(layer.name or "", why))
        else:
            weights[layer] = weight
    if not weights:
        return [], declined
    fed, wanted, fits = data
    part, grids = _floated(model, unit, weights, makers)
    chosen = round_softly(
        part,
        grids,
        np.concatenate(fed[:fits]),
        np.concatenate(wanted[:fits]),
        seed=seed,
        steps=steps,
    )
    judge = (fed[fits:] or fed, wanted[fits:] or wanted)
    before = _unit_error(model, unit, *judge)
    old = {layer: weight.integers.const_value for layer, weight in weights.items()}
    for layer, weight in weights.items():
        value = weight.integers
        assert value.const_value is not None
        kind = value.const_value.numpy().dtype
        value.const_value = ir.tensor(chosen[layer.name or ""].astype(kind), name=value.name)
    if _unit_error(model, unit, *judge) < before:
        return [layer.name or "" for layer in weights], declined
    for layer, weight in weights.items():
        weight.integers.const_value = old[layer]
    why = "its block's error would not fall"
    return [], declined + [Declined(layer.name or "", why) for layer in weights]


def _part(model: Model, unit: Unit) -> Model:
    graph = ir.convenience.extract(model.graph, [unit.source], [unit.result])
    for value in (*graph.inputs, *graph.outputs):
        value.dtype = ir.DataType.FLOAT  # the quantizer leaves what it makes without a type
    return Model(ir.Model(graph, ir_version=model.ir.ir_version), name=model.name)


def _floated(
    model: Model, unit: Unit, weights: dict[ir.Node, Int8Weight], makers: Nodes
) -> tuple[Model, dict[str, tuple[str, Array, Array, Array, int, int]]]:
    """The unit with float weights in place of the int8 ones, and by layer how those are stored.

    Stored are the float weight's name in the part, the weight, its steps and zero points in its
    shape, the smallest and the largest integer.
    """
    part = _part(model, unit)
    grids = {}
    named = {layer.name: weight for layer, weight in weights.items()}
    for node in list(part.graph):
        weight = named.get(node.name)
        if weight is None or node.inputs[1] is None:
            continue
        original = float_weight(makers[node.name], weight.shape)
        assert original is not None
        name = f"{node.name}_float_weight"
        value = ir.val(name, const_value=ir.tensor(original.astype(np.float32), name=name))
        part.graph.register_initializer(value)
        node.replace_input_with(1, value)
        scale, zero = weight.broadcast(node)
        low, high = weight.integer_range()
        grids[node.name or ""] = (name, original, scale, zero, low, high)
    return part, grids


def _unit_error(model: Model, unit: Unit, fed: Sequence[Array], wanted: Sequence[Array]) -> float:
    """Mean squared error of the unit's output."""
    part = _part(model, unit)
    session = build_session(part, SessionConfig(level="basic", threads=usable_cpus()))
    name = unit.source.name or ""
    errors = [
        float(np.square(next(iter(run(session, {name: x}).values())) - y).mean())
        for x, y in zip(fed, wanted, strict=True)
    ]
    return float(np.mean(errors))
