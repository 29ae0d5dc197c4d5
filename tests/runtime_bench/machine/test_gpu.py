"""Facts of a GPU from a tool that is a fake here, and the cache that is keyed by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from trimtab.core.ort.accelerators import CUDA, TENSORRT
from trimtab.core.ort.session import SessionConfig
from trimtab.runtime_bench.machine import engine_cache
from trimtab.runtime_bench.machine.gpu import COUNTERS, FACTS, GpuState, nvidia_smi, smi_device

H200 = GpuState("NVIDIA H200", "570.1", 1900, 1980, 45, 0x20, 40)


def tool(*, counts: bool = True, old: bool = False, there: bool = True):
    def ask(fields: Sequence[str], device: str) -> list[str] | None:
        if not there:
            return None
        if fields == FACTS:
            return ["NVIDIA H200", "570.1", "1900", "1980", "45"]
        if fields == COUNTERS:
            return ["10", "[N/A]", "30", "0"] if counts else None
        return None if old and "event" in fields[0] else ["0x0000000000000020"]

    return ask


def test_a_gpu_reports_its_name_clock_and_what_slows_it() -> None:
    assert GpuState.now("0", tool()) == H200


def test_an_older_driver_reports_less() -> None:
    assert GpuState.now("0", tool(counts=False, old=True)) == replace(H200, slowed_us=None)


def test_a_gpu_is_queried_only_where_one_runs() -> None:
    assert GpuState.of(SessionConfig(), tool()) is None
    assert GpuState.of(SessionConfig(provider=CUDA), tool()) == H200
    unknown = GpuState.of(SessionConfig(provider=CUDA), tool(there=False))
    assert unknown == GpuState("unknown GPU", "unknown")


def test_a_missing_tool_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.runtime_bench.machine.gpu.TOOL", "no-such-tool-here")
    assert nvidia_smi(FACTS, "0") is None


def test_the_tool_is_queried_and_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "smi"
    script.write_text("#!/bin/sh\necho 'NVIDIA H200, 570.1, 1900, 1980, 45'\n")
    script.chmod(0o755)
    monkeypatch.setattr("trimtab.runtime_bench.machine.gpu.TOOL", str(script))
    assert nvidia_smi(FACTS, "0") == ["NVIDIA H200", "570.1", "1900", "1980", "45"]
    assert nvidia_smi(COUNTERS, "0") is None


def test_the_device_that_cuda_counts_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert smi_device("1") == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-12ab")
    assert [smi_device("0"), smi_device("1"), smi_device("2")] == ["3", "GPU-12ab", "2"]


def test_each_combination_has_a_folder_of_its_own(tmp_path: Path) -> None:
    def folder(gpu: GpuState = H200, **changes: str) -> Path:
        key = {"tensorrt": "10.3", "onnxruntime": "1.32", "digest": "abc"} | changes
        return engine_cache.cache_folder(tmp_path, gpu, **key)

    assert folder() == folder()
    assert folder().parent.name == "NVIDIA-H200-driver-570.1-trt-10.3-ort-1.32"
    others = [
        folder(digest="abd"),
        folder(tensorrt="10.4"),
        folder(onnxruntime="1.33"),
        folder(replace(H200, driver="571")),
        folder(replace(H200, name="NVIDIA L4")),
    ]
    assert len({folder(), *others}) == 6


def test_tensorrt_keeps_engines_where_the_variable_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from graphs import model_of

    model = model_of("(float[2,3] x) => (float[2,3] y) { y = Relu(x) }")
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(engine_cache, "available_providers", lambda: (TENSORRT,))
    options = engine_cache.cache_options(SessionConfig(provider=TENSORRT), model)
    folder = Path(options["trt_engine_cache_path"])
    assert folder.is_dir()
    assert folder.is_relative_to(tmp_path / "cache")
    assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "1"
    assert engine_cache.cache_options(SessionConfig(provider=CUDA), model) == {}
