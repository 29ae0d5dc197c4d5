"""Properties of the machine and execution provider that a model will run on.

A pass asks the target for the properties of its kernels; no pass tests for a machine itself.
Sources: the onnxruntime quantization guide (U8S8 on x64, S8S8 on ARM, 7-bit weights on x64 without
VNNI, because `vpmaddubsw` saturates its 16-bit pair sums) and measurements of the channel block of
the NCHWc kernels.
"""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from .errors import OptionError, unknown
from .runtime import runtime

#: Most intra-op threads, above those of any machine in use.
MOST_THREADS = 512
Isa = Literal["x64", "arm64", "gpu", "any"]
IntType = Literal["int8", "uint8"]
#: CPU flags that choose between onnxruntime's kernels.
_X64_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")
KERNEL_FLAGS = (*_X64_FLAGS, "asimd", "asimddp", "i8mm", "sve")


@dataclass(frozen=True)
class Target:
    """Machine and execution provider that a model runs on, and properties of the kernels.

    Attributes:
        name: name of the preset, or `detected`.
        provider: onnxruntime execution provider.
        isa: instruction set family.
        vnni: true where 8-bit products are summed in 32 bits (VNNI, ARM dot product); without it
            x64 sums pairs in 16 bits and saturates.
        threads: intra-op threads to run and measure with.
        activation: int8 type of activations that the kernels fuse.
        weight: int8 type of weights.
        reduce_range: true where weights use 7 bits, or up to 8 where 16-bit pair sums allow it.
        symmetric_activations: true where zero points of activations must be zero (TensorRT).
        int16_activations: true where single activations may have 16 bits. onnxruntime's CPU and
            CUDA providers have no such kernels: a 16-bit pair there stays float.
        power_of_two_scales: true where scales must be powers of two (AMD's NPUs, XINT8).
        fuses_int8: true where the provider fuses Q/DQ around a product to an int8 product;
            onnxruntime's CUDA provider runs them unfused, around a float product.
        float_block: channel block of the float convolution kernels.
        int8_block: channel block of the int8 convolution kernels.
        max_opset: newest operator set that the runtime supports.
    """

    name: str
    provider: str = "CPUExecutionProvider"
    isa: Isa = "x64"
    vnni: bool = True
    threads: int = 1
    activation: IntType = "uint8"
    weight: IntType = "int8"
    reduce_range: bool = False
    symmetric_activations: bool = False
    int16_activations: bool = False
    power_of_two_scales: bool = False
    fuses_int8: bool = True
    float_block: int = 16
    int8_block: int = 16
    max_opset: int = 23

    @property
    def fills_channels(self) -> bool:
        """True where U8S8 convolutions are faster on input channels padded with zeros."""
        return self.isa == "x64"

    def __post_init__(self) -> None:
        check_threads(self.threads)

    @classmethod
    def named(cls, name: str, threads: int | None = None) -> Target:
        """Return a preset by name; `auto` is this machine.

        Raises:
            OptionError: there is no such preset.
        """
        if name == "auto":
            return cls.detect(threads)
        if name not in PRESETS:
            raise unknown("target", name, ["auto", *PRESETS])
        return replace(PRESETS[name], threads=threads or PRESETS[name].threads)

    @classmethod
    def detect(cls, threads: int | None = None) -> Target:
        """Return the target of this machine, on the CPU provider."""
        return replace(_detect_preset(), name="detected", threads=threads or usable_cpus())

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return dict(self.__dict__)


def check_threads(threads: int) -> None:
    """Refuse a number of threads that no machine has: each takes memory before any of them works.

    Raises:
        OptionError: it is below 1 or above `MOST_THREADS`.
    """
    if threads < 1:
        raise OptionError("threads must be at least 1", where=f"threads={threads}")
    if threads > MOST_THREADS:
        raise OptionError(f"more than {MOST_THREADS} threads", where=f"threads={threads}")


PRESETS: dict[str, Target] = {
    t.name: t
    for t in (
        Target("x64-avx512-vnni"),
        Target("x64-avx2-vnni", float_block=8, int8_block=8),
        Target("x64-avx512", vnni=False, reduce_range=True),
        Target("x64-avx2", vnni=False, reduce_range=True, float_block=8, int8_block=8),
        Target("arm64", isa="arm64", activation="int8", float_block=4, int8_block=8),
        Target(
            "cuda",
            provider="CUDAExecutionProvider",
            isa="gpu",
            activation="int8",
            symmetric_activations=True,
            fuses_int8=False,
            float_block=8,
        ),
        Target(
            "tensorrt",
            provider="TensorrtExecutionProvider",
            isa="gpu",
            activation="int8",
            symmetric_activations=True,
            float_block=8,
        ),
        # What these want stands with its sources under `int8` of the tables of
        # `runtime_bench/support/tables/`, which `trimtab doctor --target` prints.
        Target("openvino", provider="OpenVINOExecutionProvider", isa="any"),
        Target("openvino-npu", provider="OpenVINOExecutionProvider", isa="any"),
        Target("qnn-htp", provider="QNNExecutionProvider", isa="any", int16_activations=True),
        Target("xnnpack", provider="XnnpackExecutionProvider", isa="any", activation="int8"),
        Target("nnapi", provider="NnapiExecutionProvider", isa="any"),
        Target("coreml", provider="CoreMLExecutionProvider", isa="any", fuses_int8=False),
        Target("webnn", provider="WebNNExecutionProvider", isa="any"),
        Target("webgpu-web", provider="WebGpuExecutionProvider", isa="any", fuses_int8=False),
        Target(
            "vitis",
            provider="VitisAIExecutionProvider",
            isa="any",
            activation="int8",
            symmetric_activations=True,
            power_of_two_scales=True,
        ),
        Target(
            "generic-qdq",
            isa="any",
            reduce_range=True,
            int16_activations=True,
            float_block=8,
            int8_block=8,
        ),
    )
}


def usable_cpus() -> int:
    """Return the number of CPUs this process may use: its affinity mask, limited by the cgroup.

    onnxruntime's own default counts the host's cores and ignores the quota of a container.
    """
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        count = os.cpu_count() or 1
    quota = _cgroup_cpus()
    return max(1, min(count, quota) if quota else count)


def thread_counts(most: int) -> list[int]:
    """Return 1, 2, 4 ... and all: the numbers of threads that are worth a measurement."""
    return sorted({most, *(1 << n for n in range(most.bit_length()) if 1 << n <= most)})


def _cgroup_cpus() -> int | None:
    """Return the number of CPUs by the cgroup v2 quota, None where there is none."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if limit == "max" else max(1, int(limit) // int(period))
    except (OSError, ValueError):
        return None


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Return instruction-set flags as Linux names them; empty where they cannot be read."""
    return frozenset(_cpuinfo("flags", "features").split())


@functools.cache
def cpu_name() -> str:
    """Return the model name of this machine's CPU."""
    named = _cpuinfo("model name", "hardware", "cpu model")
    return named or platform.processor() or platform.machine()


def _cpuinfo(*keys: str) -> str:
    """Return the first value that Linux lists under one of these keys, empty where none is."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not on Linux
        return ""
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in pairs if key.strip().lower() in keys), "")


def cpu_identity() -> str:
    """Return this machine's CPU by model name, kernel flags and usable cores."""
    flags = " ".join(f for f in KERNEL_FLAGS if f in cpu_flags())
    return f"{cpu_name()} ({flags}), {usable_cpus()} CPUs"


def _detect_preset() -> Target:
    flags = cpu_flags()
    if platform.machine().lower() in {"arm64", "aarch64"}:
        return replace(PRESETS["arm64"], vnni=not flags or "asimddp" in flags)
    best = {"avx512_vnni": "x64-avx512-vnni", "avx_vnni": "x64-avx2-vnni", "avx512f": "x64-avx512"}
    # Where flags cannot be read, avx2: 7-bit weights are exact everywhere, 8-bit ones are not.
    return PRESETS[next((preset for flag, preset in best.items() if flag in flags), "x64-avx2")]


def common_target(targets: Sequence[Target]) -> Target:
    """Return a target that suits several: where they differ, the strictest requirement.

    Raises:
        OptionError: they have different providers, for which no single model is best.
    """
    first, *others = dict.fromkeys(targets)
    if not others:
        return first
    every = [first, *others]
    providers = {target.provider for target in every}
    if len(providers) > 1:
        raise OptionError(
            "the devices run models by " + " and ".join(sorted(providers)),
            where="--on",
            hint="Search for one kind of device at a time",
        )
    # Only x64 sums pairs of products in 16 bits; its types suit ARM too.
    strictest = min(every, key=lambda target: (target.isa != "x64", target.vnni))
    return replace(
        strictest,
        name=" and ".join(dict.fromkeys(target.name for target in every)),
        vnni=all(target.vnni for target in every),
        threads=min(target.threads for target in every),
        reduce_range=any(target.reduce_range for target in every),
        symmetric_activations=any(target.symmetric_activations for target in every),
        int16_activations=all(target.int16_activations for target in every),
        power_of_two_scales=any(target.power_of_two_scales for target in every),
        float_block=max(target.float_block for target in every),
        int8_block=max(target.int8_block for target in every),
        max_opset=min(target.max_opset for target in every),
    )


def kernel_class(target: Target) -> str:
    """Return a name of all machines that run the same kernels, on which the same rewrites win.

    Ratios of times carry over between them; for absolute times see `timing_class`.
    """
    parts = [target.provider.removesuffix("ExecutionProvider"), target.isa]
    parts += ["vnni"] if target.vnni and target.isa != "gpu" else []
    parts += [f"block {target.float_block}", f"{target.threads} threads"]
    return ", ".join([*parts, f"onnxruntime {runtime().__version__}"])


def timing_class(target: Target, machine: str = "") -> str:
    """Return a name of the machines and settings between which absolute times carry over.

    `machine` names the machine that measures; where it is empty, this machine's CPU does.
    """
    return f"{machine or cpu_identity()}, {kernel_class(target)}"
