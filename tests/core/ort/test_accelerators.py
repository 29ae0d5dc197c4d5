"""Providers beyond the CPU: the message names what is missing and how to install it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from trimtab.core.errors import OptionError
from trimtab.core.ort.accelerators import (
    CPU,
    CUDA,
    TENSORRT,
    chain,
    check_installed,
    check_started,
    memory_of,
)


def test_each_provider_has_its_memory() -> None:
    assert memory_of(CPU) is None
    assert memory_of(CUDA) == memory_of(TENSORRT) == "cuda"
    assert memory_of("SomeExecutionProvider") == "cpu"


@pytest.mark.parametrize(
    ("provider", "says"),
    [
        (CUDA, "NVIDIA GPU with its driver.*onnxruntime-gpu"),
        (TENSORRT, "onnxruntime-gpu.*pip install tensorrt"),
        ("OpenVINOExecutionProvider", "onnxruntime-ep-openvino"),
        ("CUDAExecutionProvide", "Did you mean 'CUDAExecutionProvider'"),
    ],
)
def test_a_missing_provider_says_what_to_install(provider: str, says: str) -> None:
    with pytest.raises(OptionError, match=f"This onnxruntime has: {CPU}.*{says}"):
        check_installed(provider, [CPU])


def test_a_provider_that_does_not_start_is_an_error() -> None:
    session = SimpleNamespace(get_providers=lambda: [CPU])
    with pytest.raises(OptionError, match=r"installed but does not start.*nvidia-smi"):
        check_started(session, CUDA)
    check_started(session, CPU)


def test_tensorrt_leaves_nodes_to_cuda_on_the_same_device() -> None:
    options = {"device_id": "1", "trt_engine_cache_enable": "1"}
    assert chain(TENSORRT, options, [TENSORRT, CUDA, CPU]) == [
        (TENSORRT, options),
        (CUDA, {"device_id": "1"}),
    ]
    assert chain(TENSORRT, {}, [TENSORRT, CPU]) == [(TENSORRT, {})]
    assert chain(CPU, {}, [CPU]) == [(CPU, {})]
