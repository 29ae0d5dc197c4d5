"""Rounding by its effect on a block's output: all weights of a residual block at once.

    min over the h in [0, 1]   || y_float - block(x_int8; s (floor(w / s) + h)) ||^2

with h pushed to 0 or 1 on the way (AdaRound's objective, Nagel et al. 2020, arXiv 2004.10568, over
the blocks of BRECQ, Li et al. 2021, arXiv 2102.05426): one layer may compensate another's error.
A block lies between two places where a single tensor carries everything; a chain's blocks are its
layers. A block's rounding is kept only where its output's error falls on held-out samples, and all
of them only where the error of the model's output does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimtab.core.context import Context
from trimtab.core.data import Array, Batch, Floats
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.core.target import usable_cpus

from ...base import Rewrite
from ...graph.edit import add_initializer
from ...graph.partial_run import Walk
from ...graph.queries import input_at, is_float, producer_in_any_domain
from ..output_error import LayerChanges
from ..qdq.float_reference import NodesByName, shared_layers
from .int8_layer import Int8Weight, float_weight, int8_weight

#: The int8 and the float weight of each layer of a block.
Weights = dict[ir.Node, tuple[Int8Weight, Floats]]


@dataclass(frozen=True)
class RoundingBlock:
    """A part of the graph with one input and one output, whose weights are rounded together.

    Attributes:
        source: its input, float; its output is `result`.
        wanted: name of the output in the float model.
        layers: its products.
    """

    source: ir.Value
    result: ir.Value
    wanted: str
    layers: tuple[ir.Node, ...]


def round_blocks(
    model: Model, reference: Model, batches: Sequence[Batch], ctx: Context, *, steps: int
) -> Rewrite:
    """Round the weights of a clone of a Q/DQ model in place, block by block.

    Every fourth batch is held out; arguments as in `round_weights`, with `steps` gradient steps
    for each block.

    Raises:
        InputError: no layer of the model bears the name of one in the reference.
        MissingExtraError: PyTorch is not installed.
    """
    layers, reference_nodes = shared_layers(model, reference)
    values = {v.name: v for node in reference.graph for v in node.outputs}
    blocks = find_blocks(model.graph, set(layers), reference_nodes)
    order = [*(b for i, b in enumerate(batches) if i % 4 != 3), *batches[3::4]]
    fitted = len(batches) - len(batches[3::4])
    fitted -= fitted == len(batches) and fitted > 1  # a single batch serves for both
    held_out = order[fitted:] or order
    changes = LayerChanges(model, reference, held_out, ctx.target)
    untouched = model.clone()
    here, there = (Walk(m, [b.feeds for b in order]) for m in (model, reference))
    inside = {layer for block in blocks for layer in block.layers}
    for layer in layers:
        if layer not in inside:
            changes.decline(layer, "it is not in a block of one input and one output")
    for block in ctx.progress.track(blocks, "rounding blocks", len(blocks)):
        fed = here.to(block.source)
        wanted = there.to(values[block.wanted])
        _round(changes, block, reference_nodes, (fed, wanted, fitted), ctx.seed, steps)
    changes.keep_all_or(untouched)
    return changes.result("rounded", units=len(blocks))


def find_blocks(
    graph: ir.Graph, layers: set[ir.Node], reference_nodes: NodesByName
) -> list[RoundingBlock]:
    """Find the parts of a sorted Q/DQ graph with layers between tensors that carry everything.

    The float model, of these nodes by name, must contain a part's result.
    """
    blocks: list[RoundingBlock] = []
    inputs = [v for v in graph.inputs if not v.is_initializer()]
    if len(inputs) != 1:
        return blocks
    source, inside = inputs[0], []
    for node, alone in _crossings(graph):
        inside += [node] if node in layers else []
        if alone is None:
            continue
        wanted = _in_reference(alone, reference_nodes)
        if inside and wanted is None:
            continue  # the float model has no tensor to compare with: the part goes on
        if inside and wanted is not None:
            blocks.append(RoundingBlock(source, alone, wanted, tuple(inside)))
        source, inside = alone, []
    return blocks


def _crossings(graph: ir.Graph) -> list[tuple[ir.Node, ir.Value | None]]:
    """List each computing node with the float tensor that alone is read after it, if any."""
    order = list(graph)
    place = {node: index for index, node in enumerate(order)}
    fixed: set[ir.Node] = set()
    live = {v: _last(v, place) for v in graph.inputs if not v.is_initializer()}
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
    return is_float(value) or producer_in_any_domain(value, "DequantizeLinear") is not None


def _last(value: ir.Value, place: dict[ir.Node, int]) -> int:
    """Return where a value is read last; beyond the graph for outputs and inside subgraphs."""
    if value.is_graph_output():
        return len(place)
    return max((place.get(user, len(place)) for user, _ in value.uses()), default=-1)


def _in_reference(value: ir.Value, reference_nodes: NodesByName) -> str | None:
    """Return the float model's name of a tensor: the same input of the node of the same name.

    The tensor's own name may differ, since a pair replaces the Relu before it.
    """
    for user, index in value.uses():
        reference_node = reference_nodes.get(user.name)
        read = input_at(reference_node, index) if reference_node is not None else None
        if read is not None:
            return read.name
    return value.name if value.is_graph_output() else None


def _round(
    changes: LayerChanges,
    block: RoundingBlock,
    reference_nodes: NodesByName,
    data: tuple[list[Array], list[Array], int],
    seed: int,
    steps: int,
) -> None:
    """Round a block and keep that if it helps."""
    from ...training.torch_graph import round_softly

    weights: Weights = {}
    for layer in block.layers:
        weight = int8_weight(layer)
        if isinstance(weight, str):
            changes.decline(layer, weight)
            continue
        original = float_weight(reference_nodes[layer.name], weight.shape)
        if original is None or original.shape != weight.shape:
            changes.decline(layer, "the float model has another weight")
        else:
            weights[layer] = weight, original
    if not weights:
        return
    fed, wanted, fitted = data
    model = changes.model
    part, grids = _floated(model, block, weights)
    fit = np.concatenate(fed[:fitted]), np.concatenate(wanted[:fitted])
    chosen = round_softly(part, grids, *fit, seed=seed, steps=steps)
    held_out = (fed[fitted:] or fed, wanted[fitted:] or wanted)
    before = _block_error(model, block, *held_out)
    old = {layer: weight.values() for layer, (weight, _) in weights.items()}
    for layer, (weight, _) in weights.items():
        weight.assign(chosen[layer.name or ""])
    if _block_error(model, block, *held_out) < before:
        changes.kept += [layer.name or "" for layer in weights]
        return
    for layer, (weight, _) in weights.items():
        weight.assign(old[layer])
        changes.decline(layer, "its block's error would not fall")


def _part(model: Model, block: RoundingBlock) -> Model:
    graph = ir.convenience.extract(model.graph, [block.source], [block.result])
    for value in (*graph.inputs, *graph.outputs):
        value.dtype = ir.DataType.FLOAT  # the quantizer leaves what it makes without a type
    return Model(ir.Model(graph, ir_version=model.ir.ir_version), name=model.name)


def _floated(
    model: Model, block: RoundingBlock, weights: Weights
) -> tuple[Model, dict[str, tuple[str, Array, Array, Array, int, int]]]:
    """Return the block with float weights, and by layer the grid of its int8 weight.

    A grid is the float weight's name in the part, the weight, its scales and zero points in its
    shape, the smallest and the largest integer.
    """
    part = _part(model, block)
    grids = {}
    named = {layer.name: found for layer, found in weights.items()}
    for node in [node for node in part.graph if node.name in named]:
        weight, original = named[node.name]
        name = f"{node.name}_float_weight"
        value = add_initializer(part.graph, name, original.astype(np.float32))
        node.replace_input_with(1, value)
        scale, zero = weight.broadcast(node)
        grids[node.name or ""] = (name, original, scale, zero, *weight.integer_range())
    return part, grids


def _block_error(
    model: Model, block: RoundingBlock, fed: Sequence[Array], wanted: Sequence[Array]
) -> float:
    """Return the mean squared error of the block's output."""
    part = _part(model, block)
    session = build_session(part, SessionConfig(level="basic", threads=usable_cpus()))
    name = block.source.name or ""
    errors = [
        float(np.square(next(iter(run(session, {name: x}).values())) - y).mean())
        for x, y in zip(fed, wanted, strict=True)
    ]
    return float(np.mean(errors))
