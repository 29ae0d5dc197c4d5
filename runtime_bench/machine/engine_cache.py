"""Cache of TensorRT's engines and timings: building an engine takes minutes, loading it a second.

An engine is valid for one GPU, driver, TensorRT, onnxruntime and model only, so each combination
has its own folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import re
from importlib import metadata
from pathlib import Path

from trimtab.core.cache import cache_root
from trimtab.core.model import Model
from trimtab.core.ort.accelerators import TENSORRT
from trimtab.core.ort.session import SessionConfig, available_providers
from trimtab.core.runtime import runtime

from .gpu import GpuState

#: Names under which TensorRT's libraries are installed by pip.
DISTRIBUTIONS = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
LIBRARIES = ("libnvinfer.so.10", "libnvinfer.so", "nvinfer_10.dll")
UNKNOWN = "unknown"


def cache_options(config: SessionConfig, source: Model | Path) -> dict[str, str]:
    """Return TensorRT's options that keep a model's engines and timings; none for others."""
    if config.provider != TENSORRT or TENSORRT not in available_providers():
        return {}
    model = source if isinstance(source, Model) else Model.load(source)
    folder = cache_folder(
        cache_root(),
        GpuState.of(config),
        tensorrt=tensorrt_version(),
        onnxruntime=runtime().__version__,
        digest=model.digest,
    )
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
    }


def cache_folder(
    root: Path, gpu: GpuState | None, *, tensorrt: str, onnxruntime: str, digest: str
) -> Path:
    """Return the folder of one combination: readable parts, then a digest that covers the model."""
    name, driver = (gpu.name, gpu.driver) if gpu else (UNKNOWN, UNKNOWN)
    key = (name, driver, tensorrt, onnxruntime, digest)
    parts = (name, f"driver {driver}", f"trt {tensorrt}", f"ort {onnxruntime}")
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", " ".join(parts))
    return root / "tensorrt" / readable / hashlib.sha256(repr(key).encode()).hexdigest()[:16]


@functools.cache
def tensorrt_version() -> str:
    """Return the version of TensorRT's libraries, `unknown` if it cannot be found."""
    for name in DISTRIBUTIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    for library in LIBRARIES:
        with contextlib.suppress(OSError, AttributeError):
            return str(ctypes.CDLL(library).getInferLibVersion())
    return UNKNOWN
