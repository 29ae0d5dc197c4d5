"""Measured times of single layers, each measured once on a machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from trimtab.core.cache import read_figures
from trimtab.core.context import Context
from trimtab.core.files import write_text
from trimtab.core.memo import ByIdentity, MemoKind
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import SessionConfig

from .layer_benchmark import layer_model
from .layer_benchmark_int8 import addition_model
from .layer_spec import LayerSpec, one_node_model

#: Widths of one axis that are measured; those between are interpolated.
POINTS = 8
#: Assumed speed of a layer that cannot be timed alone; it sets how long the others may take.
MACS_PER_NS = 20.0
#: Seconds for one set of `POINTS` widths of one layer.
SECONDS = 0.4
#: Runs that each width of a slow layer gets: with two or three, noise looks like a stair.
RUNS = 9
#: Bytes of weights that are measured at once, a second, packed copy of which is in onnxruntime.
SET_BYTES = 1 << 28
#: Nanoseconds of layers, by clock, machine, target and layer.
TIMES: MemoKind[float] = MemoKind("layer times", 1 << 16)


class LayerTimer:
    """Clock for single layers that measures each layer once on a machine.

    The memo of `ctx` keeps the times; `cache` names a file of earlier times by machine, read first.
    """

    def __init__(self, ctx: Context, cache: str = "") -> None:
        self._ctx, self._clock = ctx, ctx.need_clock("latency=")
        self._config = SessionConfig.of(ctx.target)
        self._machine, self._path = ctx.timing_class(), Path(cache) if cache else None
        self._owner = (ByIdentity(self._clock), self._machine, ctx.target)
        self._times = {
            key[-1]: ns
            for key, ns in ctx.memo.items(TIMES)
            if isinstance(key, tuple) and key[:-1] == self._owner
        }
        if self._path is not None:
            for name, ns in read_figures(self._path).get(self._machine, {}).items():
                self._keep(name, float(ns))

    def layers_ns(self, layers: list[LayerSpec]) -> list[float]:
        """Return the nanoseconds of layers that read the same input."""
        for new in _sets([layer for layer in layers if layer.key not in self._times]):
            models = [layer_model(layer) for layer in new]
            once = sum(layer.macs for layer in new) / MACS_PER_NS / 1e9
            seconds = max(SECONDS * len(new) / POINTS, RUNS * once)
            found = self._clock.median_ns(models, random_feeds(models[0]), self._config, seconds)
            for layer, ns in zip(new, found, strict=True):
                self._keep(layer.key, ns)
        return [self._times[layer.key] for layer in layers]

    def empty_run_ns(self) -> float:
        """Return the time of a run that computes nothing, which each layer alone takes as well."""
        x = ir.val("x0", ir.DataType.FLOAT, [1])
        node = ir.Node("", "Identity", [x], num_outputs=1, name="nothing")
        return self._one_ns("nothing", one_node_model(node, [x], []))

    def addition_ns(self, elements: int) -> float:
        """Return the time of an int8 sum of so many elements, that of an empty run included."""
        kind = self._ctx.target.activation
        return self._one_ns(f"{kind} Add {elements}", addition_model(elements, kind))

    def save(self) -> None:
        """Add all times of this machine to the file."""
        if self._path is None:
            return
        everything = read_figures(self._path)  # again: another run may have written meanwhile
        own = {name: round(ns) for name, ns in self._times.items()}
        everything[self._machine] = everything.get(self._machine, {}) | own
        write_text(self._path, json.dumps(everything, indent=1, sort_keys=True) + "\n")

    def _one_ns(self, name: str, model: Model) -> float:
        if name not in self._times:
            feeds = random_feeds(model)
            self._keep(name, self._clock.median_ns([model], feeds, self._config, SECONDS / 4)[0])
        return self._times[name]

    def _keep(self, name: str, ns: float) -> None:
        self._times[name] = ns
        self._ctx.memo.put(TIMES, (*self._owner, name), ns)


def _sets(found: list[LayerSpec]) -> Iterator[list[LayerSpec]]:
    """Yield sets of layers to measure interleaved: as many as `SET_BYTES` of weights allow."""
    chosen: list[LayerSpec] = []
    for layer in found:
        if chosen and sum(other.nbytes for other in (*chosen, layer)) > SET_BYTES:
            yield chosen
            chosen = []
        chosen.append(layer)
    if chosen:
        yield chosen
