"""What a candidate costs without a clock: products, bytes moved, and a latency predicted from them.

The prediction orders candidates, and stands for a latency where the target is another machine. It
is a roofline without a roof (Williams et al. 2009): products at the rate of their kernels, plus
bytes moved at the rate of the memory, the rates as ratios that hold for a class of machines.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np

from trimtab.core.collector import collector_paused
from trimtab.core.context import Context
from trimtab.core.model import Model
from trimtab.core.running import observed, products
from trimtab.core.session import (
    Feeds,
    SessionConfig,
    available_providers,
    build_session,
    run,
    running_graph,
)
from trimtab.core.target import Target
from trimtab.result import Result

from .store import Store, key_of

#: Time of an int8 product, as a share of a float one's: with VNNI or dot products, without, on ARM.
INT8_TIME = {"vnni": 0.3, "plain": 0.6, "arm64": 0.4, "gpu": 0.5}
#: Float products in the time in which a byte is moved: between that of caches and of memory.
PRODUCTS_PER_BYTE = 4.0


@dataclass(frozen=True)
class Costs:
    """Of one run on one row.

    Attributes:
        float_macs: multiply-accumulates in float kernels.
        int8_macs: in int8 kernels.
        moved_bytes: read and written by all operators of the graph that runs.
    """

    float_macs: int
    int8_macs: int
    moved_bytes: int

    @property
    def macs(self) -> int:
        """All multiply-accumulates."""
        return self.float_macs + self.int8_macs

    def time(self, target: Target) -> float:
        """Predicted time in units of a float product."""
        kind = target.isa if target.isa in {"arm64", "gpu"} else "vnni" if target.vnni else "plain"
        products = self.float_macs + INT8_TIME[kind] * self.int8_macs
        return products + PRODUCTS_PER_BYTE * self.moved_bytes


def costs(model: Model, feeds: Feeds, ctx: Context, store: Store) -> Costs:
    """The costs of a model on these feeds.

    Raises:
        RunError: onnxruntime refuses it.
    """
    config = _here(ctx.target)
    key = key_of(
        "costs",
        model=model.digest,
        inputs={n: [list(a.shape), str(a.dtype)] for n, a in feeds.items()},
        config=config.to_json(),
    )

    return Costs(**store.value(key, lambda: asdict(counted(model, config, feeds))))


@collector_paused()
def counted(model: Model, config: SessionConfig, feeds: Feeds) -> Costs:
    """Products and bytes of one run of the graph that onnxruntime makes of a model.

    The blocked layout of float convolutions is left out: it hides true channel counts.

    Raises:
        RunError: onnxruntime refuses the model.
    """
    plain = replace(config, disabled_optimizers=(*config.disabled_optimizers, "NchwcTransformer"))
    running = replace(model, ir=running_graph(model, plain))
    tensors = _tensors(running, config, feeds)
    int8_macs, float_macs = products(running.ir, {n: shape for n, (shape, _) in tensors.items()})
    moved = sum(
        tensors[value.name][1]
        for node in running.graph
        for value in (*node.inputs, *node.outputs)
        if value is not None and value.name in tensors
    )
    return Costs(float_macs, int8_macs, moved)


def _tensors(
    running: Model, config: SessionConfig, feeds: Feeds
) -> dict[str, tuple[tuple[int, ...], int]]:
    """Shape and bytes of all tensors of a graph that runs, by one run of it."""
    inner = [v.name for node in running.graph for v in node.outputs if v.name]
    session = build_session(observed(running, inner), replace(config, level="off").unpacked())
    found = {
        name: (np.shape(array), np.asarray(array).nbytes)
        for name, array in (*run(session, feeds).items(), *feeds.items())
    }
    for name, value in running.graph.initializers.items():
        if value.const_value is not None:
            shape = tuple(value.const_value.shape.numpy())
            found[name] = (shape, value.const_value.nbytes)
    return found


def with_costs(result: Result, original: Costs, found: Costs, target: Target | None) -> Result:
    """A result with its costs, and with its predicted speed-up where a target is given."""
    predicted = None if target is None else original.time(target) / found.time(target)
    return replace(result, macs=found.macs, moved_bytes=found.moved_bytes, predicted=predicted)


def is_here(target: Target) -> bool:
    """Whether this machine is of the target's kind, so that its latencies can be measured."""
    here = Target.detect()
    if target.name in {"detected", "auto"}:
        return True
    if target.provider not in available_providers():
        return False
    gpu = target.isa == "gpu"
    return gpu or (target.isa == here.isa and target.vnni == here.vnni)


def _here(target: Target) -> SessionConfig:
    config = SessionConfig.of(target)
    if config.provider in available_providers():
        return config
    return replace(config, provider="CPUExecutionProvider")
