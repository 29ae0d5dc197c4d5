"""Costs of a candidate without a clock: products, bytes moved, and a latency predicted from them.

The prediction ranks candidates, and replaces a latency where the target is another machine. It
is a roofline without a roof (Williams et al. 2009): products at the rate of their kernels, plus
bytes moved at the rate of the memory, the rates as ratios that hold for a class of machines.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from trimtab.core.context import Context
from trimtab.core.garbage import gc_paused
from trimtab.core.model import Model
from trimtab.core.ort.int8_share import products
from trimtab.core.ort.session import Feeds, SessionConfig, available_providers, optimized_graph
from trimtab.core.target import Target

from ..result import Result
from ..store import ResultStore, key_of, key_of_feeds
from .gpu_costs import counted_on_gpu
from .tensors import tensors_of

#: Time of an int8 product, as a share of a float one's: with VNNI or dot products, without, on ARM,
#: on tensor cores, which double their rate from TF32 to float16 and again to int8 (NVIDIA's A100
#: white paper, 2020: 156, 312 and 624 TOPS).
INT8_TIME = {"vnni": 0.3, "plain": 0.6, "arm64": 0.4, "gpu": 0.25}
HALF_TIME = 0.5
#: Float products in the time in which a byte is moved. CPU: between that of caches and of memory.
#: GPU: 78 of 10^12 in TF32 and 1.6 of 10^12 bytes each second (the same paper).
PRODUCTS_PER_BYTE = {"cpu": 4.0, "gpu": 50.0}


@dataclass(frozen=True)
class Costs:
    """Costs of one run on one row.

    Attributes:
        float_macs: multiply-accumulates in float kernels.
        int8_macs: multiply-accumulates in int8 kernels.
        moved_bytes: bytes read and written by all operators of the graph that runs.
        half_macs: multiply-accumulates in float16 kernels.
    """

    float_macs: int
    int8_macs: int
    moved_bytes: int
    half_macs: int = 0

    @property
    def macs(self) -> int:
        """All multiply-accumulates."""
        return self.float_macs + self.int8_macs + self.half_macs

    def time(self, target: Target) -> float:
        """Predict the time of a run in units of a float product."""
        kind = target.isa if target.isa in {"arm64", "gpu"} else "vnni" if target.vnni else "plain"
        products = self.float_macs + INT8_TIME[kind] * self.int8_macs + HALF_TIME * self.half_macs
        per_byte = PRODUCTS_PER_BYTE["gpu" if kind == "gpu" else "cpu"]
        return products + per_byte * self.moved_bytes


def costs(model: Model, feeds: Feeds, ctx: Context, store: ResultStore) -> Costs:
    """Count the costs of a model on these feeds; on a GPU those of the graph as it is written.

    Raises:
        RunError: onnxruntime refuses the model.
    """
    config, gpu = _here(ctx.target), ctx.target.isa == "gpu"
    subject = {"model": model.digest, "inputs": key_of_feeds(feeds), "config": config.to_json()}
    key = key_of("costs", **subject, gpu=ctx.target.provider if gpu else None)

    def fresh() -> Costs:
        if not gpu:
            return counted(model, config, feeds)
        return Costs(*counted_on_gpu(model, config, feeds, fused=ctx.target.fuses_int8))

    return Costs(**store.value(key, lambda: asdict(fresh())))


@gc_paused()
def counted(model: Model, config: SessionConfig, feeds: Feeds) -> Costs:
    """Count products and bytes of one run of the graph that onnxruntime makes of a model.

    The blocked layout of float convolutions is left out: it hides true channel counts.

    Raises:
        RunError: onnxruntime refuses the model.
    """
    plain = replace(config, disabled_optimizers=(*config.disabled_optimizers, "NchwcTransformer"))
    running = replace(model, ir=optimized_graph(model, plain))
    tensors = tensors_of(running, config, feeds)
    int8_macs, float_macs = products(running.ir, {n: t.shape for n, t in tensors.items()})
    moved = sum(
        tensors[value.name].nbytes
        for node in running.graph
        for value in (*node.inputs, *node.outputs)
        if value is not None and value.name in tensors
    )
    return Costs(float_macs, int8_macs, moved)


def with_costs(result: Result, original: Costs, found: Costs, target: Target | None) -> Result:
    """Return a result with its costs and, where a target is given, its predicted speed-up."""
    predicted = None if target is None else original.time(target) / found.time(target)
    return replace(result, macs=found.macs, moved_bytes=found.moved_bytes, predicted=predicted)


def is_here(target: Target) -> bool:
    """Return whether this machine is of the target's kind, so that latencies can be measured."""
    if target.name in {"detected", "auto"}:
        return True
    if target.provider not in available_providers():
        return False
    here = Target.detect()
    return target.isa == "gpu" or (target.isa, target.vnni) == (here.isa, here.vnni)


def _here(target: Target) -> SessionConfig:
    config = SessionConfig.with_fusions_of(target)
    if config.provider in available_providers():
        return config
    return replace(config, provider="CPUExecutionProvider")
