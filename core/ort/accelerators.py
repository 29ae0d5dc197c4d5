"""Execution providers beyond the CPU: their memory, and what they need installed."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import OptionError, nearest
from ..runtime import runtime

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
OPENVINO, XNNPACK = "OpenVINOExecutionProvider", "XnnpackExecutionProvider"


@dataclass(frozen=True)
class Accelerator:
    """Properties of an execution provider.

    Attributes:
        short: name that people write.
        install: instructions to install it.
        memory: name of its device memory; `cpu` where onnxruntime's Python API has none, so each
            run copies.
        behind: providers that take the nodes it leaves, before the CPU.
        compiles: true where it compiles pieces of the graph, of which onnxruntime then saves none.
    """

    short: str
    install: str
    memory: str = "cpu"
    behind: tuple[str, ...] = ()
    compiles: bool = False


_NVIDIA = (
    "It needs an NVIDIA GPU with its driver, and `pip uninstall onnxruntime` then "
    '`pip install "onnxruntime-gpu[cuda,cudnn]"`'
)
ACCELERATORS: Mapping[str, Accelerator] = {
    CUDA: Accelerator("cuda", _NVIDIA, "cuda"),
    TENSORRT: Accelerator(
        "tensorrt", f"{_NVIDIA} and `pip install tensorrt`", "cuda", (CUDA,), compiles=True
    ),
    "NvTensorRTRTXExecutionProvider": Accelerator(
        "tensorrt-rtx",
        "It needs an NVIDIA RTX GPU, its driver, and `pip install onnxruntime-ep-nv-tensorrt-rtx`",
        "cuda",
        compiles=True,
    ),
    "DmlExecutionProvider": Accelerator(
        "directml",
        "It needs Windows with DirectX 12, and `pip install onnxruntime-directml`",
        "dml",
    ),
    "CANNExecutionProvider": Accelerator(
        "cann", "It needs an Ascend device, and `pip install onnxruntime-cann`", "cann"
    ),
    OPENVINO: Accelerator("openvino", "`pip install onnxruntime-ep-openvino`", compiles=True),
    "QNNExecutionProvider": Accelerator("qnn", "`pip install onnxruntime-qnn`", compiles=True),
    "WebGpuExecutionProvider": Accelerator(
        "webgpu",
        "It needs a GPU with Vulkan, Metal or DirectX 12, and `pip install onnxruntime-ep-webgpu`",
    ),
    "MIGraphXExecutionProvider": Accelerator(
        "migraphx",
        "It needs an AMD GPU with ROCm, and `pip install onnxruntime-migraphx`",
        compiles=True,
    ),
    "VitisAIExecutionProvider": Accelerator(
        "vitisai",
        "It needs an AMD Ryzen AI or Versal device, and AMD's own build of onnxruntime",
        compiles=True,
    ),
    "CoreMLExecutionProvider": Accelerator(
        "coreml", "It is in onnxruntime for macOS", compiles=True
    ),
    XNNPACK: Accelerator(
        "xnnpack", "It is in onnxruntime for Android and iOS, and in builds with --use_xnnpack"
    ),
    "NnapiExecutionProvider": Accelerator(
        "nnapi", "It is in onnxruntime for Android", compiles=True
    ),
    "WebNNExecutionProvider": Accelerator(
        "webnn", "It is in onnxruntime-web, in a browser", compiles=True
    ),
}


_UNKNOWN = Accelerator("", "")


def memory_of(provider: str) -> str | None:
    """Return the name of a provider's device memory; None for the CPU provider."""
    return None if provider == CPU else ACCELERATORS.get(provider, _UNKNOWN).memory


def compiles(provider: str) -> bool:
    """Return whether a provider compiles what it takes, so that no graph of it can be saved."""
    return ACCELERATORS.get(provider, _UNKNOWN).compiles


def check_installed(name: str, have: Sequence[str]) -> None:
    """Refuse a provider that the installed onnxruntime, which has `have`, would replace by the CPU.

    Raises:
        OptionError: it is missing; the message says how to install it.
    """
    if name in have:
        return
    known = ACCELERATORS.get(name)
    names = [*have, *ACCELERATORS, *(a.short for a in ACCELERATORS.values())]
    further = known.install if known else nearest(name, names)
    raise OptionError(
        f"provider {name!r} is not in the installed onnxruntime",
        hint=f"This onnxruntime has: {', '.join(have)}. {further}",
    )


def chain(
    name: str, options: Mapping[str, str], have: Sequence[str]
) -> list[tuple[str, dict[str, str]]]:
    """Return the provider with its options, and its fallbacks: TensorRT leaves nodes to CUDA."""
    behind = [p for p in ACCELERATORS.get(name, _UNKNOWN).behind if p in have]
    device = {k: v for k, v in options.items() if k == "device_id"}
    return [(name, dict(options)), *((p, dict(device)) for p in behind)]


@functools.cache
def load_libraries(name: str) -> None:
    """Preload the libraries that pip installed, where onnxruntime can."""
    ort = runtime()

    if memory_of(name) == "cuda" and hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(sys.stderr):  # it prints what is missing
            ort.preload_dlls()


def check_started(session: Any, name: str) -> None:
    """Refuse a session whose provider did not start, which onnxruntime only warns of.

    Raises:
        OptionError: it runs without the provider.
    """
    if name not in session.get_providers():
        raise OptionError(
            f"provider {name!r} is installed but does not start here",
            hint="A driver, a library or the device is missing: see `nvidia-smi` and the lines "
            f"above. {ACCELERATORS.get(name, _UNKNOWN).install}".strip(),
        )
