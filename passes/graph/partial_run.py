"""Runs of a model from one tensor to the next, each node once, on batches that stay in memory.

Methods that correct one layer after the other need a layer's output after the correction of those
before it. Running the model anew for each layer costs the square of its depth; a walk keeps the
tensors that later nodes read and goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.data import Array
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig, build_session, run

from .constants import captured


class Walk:
    """Position of a run in the model, and the tensors that later nodes read.

    Attributes:
        model: model whose nodes are in topological order.
        values: for each batch the tensors by name that are computed and still needed.
    """

    def __init__(self, model: Model, batches: Iterable[Mapping[str, Array]]) -> None:
        self.model = model
        self.values: list[dict[str, Array]] = [dict(feeds) for feeds in batches]
        self._place = {node: index for index, node in enumerate(model.graph)}
        self._fixed = constant_nodes(model.graph)
        self._live: dict[str, ir.Value] = {
            v.name or "": v for v in model.graph.inputs if not v.is_initializer()
        }
        self._done = -1
        self._order = list(model.graph)

    def to(self, value: ir.Value) -> list[Array]:
        """Run on until a tensor is computed, if it is not yet; return its array for each batch."""
        self.past([value])
        return [batch[value.name or ""] for batch in self.values]

    def past(self, wanted: Sequence[ir.Value]) -> None:
        """Run on until all of these are computed, and keep them until the next step."""
        makers = [v.producer() for v in wanted]
        last = max((self._place[m] for m in makers if m is not None), default=-1)
        names = {v.name or "" for v in wanted}
        if last > self._done:
            step = self._order[self._done + 1 : last + 1]
            fresh = [v for node in step if node not in self._fixed for v in node.outputs if v.name]
            outputs = [v for v in fresh if v.name in names or self._read_behind(v, last)]
            self._run(outputs)
            self._live |= {v.name or "": v for v in outputs}
            self._done = last
        gone = [n for n, v in self._live.items() if n not in names and not self._read_behind(v)]
        for name in gone:
            del self._live[name]
            for batch in self.values:
                batch.pop(name, None)

    def add(self, value: ir.Value, by: NDArray[np.float64], axis: int) -> None:
        """Add a number to each channel of a tensor that is computed already."""
        for batch in self.values:
            array = batch[value.name or ""]
            wide = [-1 if i == axis % array.ndim else 1 for i in range(array.ndim)]
            batch[value.name or ""] = array + by.reshape(wide).astype(array.dtype)

    def _run(self, outputs: Sequence[ir.Value]) -> None:
        if not outputs:
            return
        names = [v.name or "" for v in outputs]
        part = part_between(self.model, {n: self.values[0][n] for n in self._live}, names)
        # Q and DQ run unfused: the wanted tensors lie inside the fusions.
        config = SessionConfig.for_inner_tensors("basic")
        session = build_session(part, config)
        fed = [spec.name for spec in part.inputs]
        for batch in self.values:
            batch.update(run(session, {name: batch[name] for name in fed}, names))

    def _read_behind(self, value: ir.Value, place: int | None = None) -> bool:
        """Return whether a node after the place, or inside a subgraph, reads the value."""
        place = self._done if place is None else place
        return any(self._place.get(user, len(self._order)) > place for user, _ in value.uses())


def part_between(model: Model, fed: Mapping[str, Array], wanted: Sequence[str]) -> Model:
    """Return the model of the nodes that the wanted tensors need, fed by those that are known.

    Args:
        model: model whose graph may have changed since it was built: its shapes are not used.
        fed: an example of each known tensor; those that the graph lacks are ignored.
        wanted: names of the outputs.
    """
    known = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    part = ir.convenience.extract(model.graph, [name for name in fed if name in known], wanted)
    for value in list(part.inputs):
        example = fed[str(value.name)]
        value.dtype = ir.DataType.from_numpy(example.dtype)
        value.shape = ir.Shape([None] * example.ndim)
        if not value.uses() and not value.is_graph_output():
            part.inputs.remove(value)
    for value in (v for node in part for v in node.outputs):
        value.shape = None
    whole = ir.Model(part, ir_version=model.ir.ir_version)
    whole.functions.update(model.ir.functions)
    return Model(whole, name=f"a part of {model.name}")


def constant_nodes(graph: ir.Graph) -> set[ir.Node]:
    """Return the nodes whose outputs are the same in every run; each step computes them again."""
    found: set[ir.Node] = set()
    for node in graph:
        sources = [v for v in node.inputs if v is not None]
        known = all(v.is_initializer() or v.producer() in found for v in sources)
        if known and not captured(node):  # what has subgraphs is left out
            found.add(node)
    return found


def channel_rows(array: Array, axis: int) -> Array:
    """Return an array as (positions, channels)."""
    return np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])


def channel_mean(arrays: Iterable[Array], axis: int) -> NDArray[np.float64]:
    """Return the mean over all axes but one, and over all arrays."""
    total: Any = 0.0
    count = 0
    for array in arrays:
        flat = channel_rows(array, axis)
        total = total + flat.sum(axis=0, dtype=np.float64)
        count += len(flat)
    return np.asarray(total / max(count, 1), np.float64)
