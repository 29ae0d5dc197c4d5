"""Runs of a model part by part over all calibration data, while its weights change.

Between parts only the tensors that cross the cut are kept, in memory up to a limit and in
temporary files beyond it, so that all layers together cost one run of the model.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Array
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig, build_session, run

from .constants import captured
from .partial_run import part_between

#: Bytes of activations that stay in memory; more of them go to temporary files.
MEMORY_BYTES = 256 << 20

Values = dict[str, list[Array]]


@dataclass(eq=False)
class Stream:
    """All calibration data on their way through a model.

    Attributes:
        model: model whose graph may change after `position`.
        values: tensors that later nodes need, a list of batches each.
        position: number of nodes that have run.
        config: configuration of the sessions that run them.
    """

    model: Model
    values: Values
    position: int = 0
    config: SessionConfig = field(default_factory=SessionConfig.for_inner_tensors)
    _files: tempfile.TemporaryDirectory[str] | None = field(default=None, repr=False)
    _count: int = 0

    @classmethod
    def start(
        cls, model: Model, batches: Iterable[dict[str, Array]], config: SessionConfig | None = None
    ) -> Stream:
        """Start at the inputs of the model."""
        stream = cls(model, {spec.name: [] for spec in model.inputs})
        stream.config = config or stream.config
        for feeds in batches:
            for name in stream.values:
                stream.values[name].append(feeds[name])
        return stream

    @property
    def batches(self) -> int:
        """Number of batches."""
        return len(next(iter(self.values.values()), []))

    def advance(self, stop: int) -> None:
        """Run the nodes up to number `stop`; keep what later ones and the outputs need."""
        if stop <= self.position:
            return
        nodes = list(self.model.graph)
        needed = _read(nodes[stop:], self.model.graph.outputs)
        made = [v.name for n in nodes[self.position : stop] for v in n.outputs if v.name]
        new: Values = {name: [] for name in made if name in needed}
        room = MEMORY_BYTES - sum(
            a.nbytes for n, arrays in self.values.items() if n in needed for a in arrays
        )
        for results in self._run(list(new)):
            for name, array in results.items():
                room -= array.nbytes
                new[name].append(array if room >= 0 else self._filed(array))
        self.values = {n: arrays for n, arrays in self.values.items() if n in needed} | new
        self.position = stop

    def peek(self, value: ir.Value) -> Iterator[Array]:
        """Yield the batches of a tensor at any distance after `position`, without moving."""
        name = str(value.name)
        if name in self.values:
            yield from self.values[name]
        else:
            yield from (results[name] for results in self._run([name]))

    def _run(self, names: Sequence[str]) -> Iterator[dict[str, Array]]:
        """Yield these tensors batch by batch."""
        if not names:
            return
        part = part_between(self.model, {n: a[0] for n, a in self.values.items()}, names)
        session = build_session(part, self.config)
        for number in range(self.batches):
            feeds = {spec.name: self.values[spec.name][number] for spec in part.inputs}
            yield run(session, feeds, names)

    def _filed(self, array: Array) -> Array:
        """Return an array that lies in a temporary file."""
        if self._files is None:
            self._files = tempfile.TemporaryDirectory(prefix="trimtab-")
        self._count += 1
        path = Path(self._files.name) / f"{self._count}.npy"
        np.save(path, array)
        return np.asarray(np.load(path, mmap_mode="r"))


def _read(nodes: Iterable[ir.Node], outputs: Iterable[ir.Value]) -> set[str]:
    """Return the names of the values that these nodes read, and of the outputs."""
    names = {str(v.name) for v in outputs}
    for node in nodes:
        names.update(str(v.name) for v in (*node.inputs, *captured(node)) if v is not None)
    return names
