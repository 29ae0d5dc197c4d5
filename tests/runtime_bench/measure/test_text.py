"""The text of measurements."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from trimtab.core.ort.session import SessionConfig
from trimtab.runtime_bench.machine.environment import Environment
from trimtab.runtime_bench.machine.noise_check import NoiseCheck
from trimtab.runtime_bench.machine.placement import Placement
from trimtab.runtime_bench.measure.startup import StartupCosts
from trimtab.runtime_bench.measure.text import (
    SweepRow,
    comparison_lines,
    measurement_lines,
    plot_lines,
    speedup_text,
    startup_lines,
    sweep_lines,
)
from trimtab.runtime_bench.measure.values import Comparison, Measurement

HERE = Environment("A CPU", ("avx2",), 2, (0, 1), None, "", "Linux", "3.11", "1.32", "2.0")


def measured(name: str, run_ns: float, runs: int = 500) -> Measurement:
    rng = np.random.default_rng(0)
    samples = tuple(int(n) for n in run_ns * np.exp(0.05 * rng.standard_normal(runs)))
    return Measurement(name, "d", 1_090_000, samples, (), HERE, SessionConfig(threads=1))


def compared(**changed: object) -> Comparison:
    base, candidate = measured("float.onnx", 2e6), measured("int8.onnx", 1e6)
    found = Comparison(base, candidate, 2.0, 1.96, 2.04, "better", 0.01, 0.05, (0.7,) * 40)
    return replace(found, **changed)  # type: ignore[arg-type]


def test_the_table_shows_percentiles_speed_up_and_verdict() -> None:
    lines = comparison_lines([compared()])
    assert " ".join(lines[0].split()) == "model size p50 p90 p95 p99 speed-up verdict"
    assert lines[2].startswith("float.onnx  1.09 MB")
    assert "2.00x [1.96, 2.04]   faster" in lines[3]
    assert "40 blocks; all intervals hold together at 99.00%; same means within 5.0%" in lines
    assert any("A CPU, 1 of 2 CPUs" in line and "do not spin" in line for line in lines)


def test_a_percentile_without_enough_runs_is_a_dash_with_its_reason() -> None:
    few = compared(base=measured("a", 2e6, 60), candidate=measured("b", 1e6, 60))
    lines = comparison_lines([few])
    assert lines[3].split()[4:8] == ["1.1", "ms", "-", "-"] or "-" in lines[3].split()
    assert "-: too few runs to support it (60; needed: p95 90, p99 459)" in lines


def test_a_second_witness_speaks_where_the_clock_is_blurred() -> None:
    base = replace(measured("float.onnx", 2e6), cpu_ns=2e6, instructions=9e6)
    candidate = replace(measured("int8.onnx", 1e6), cpu_ns=1e6, instructions=3e6)
    said = "second witness: a run of int8.onnx takes 0.50 of the CPU time and 0.33 of the"
    open_ = compared(base=base, candidate=candidate, verdict="inconclusive")
    assert any(line.startswith(said) for line in comparison_lines([open_]))
    for other in (replace(open_, verdict="better"), compared(verdict="inconclusive")):
        assert not [line for line in comparison_lines([other]) if "witness" in line]


def test_a_failure_is_in_the_table_and_explained_below() -> None:
    dead = compared(error="int8.onnx: its process died", candidate=measured("int8.onnx", 1, 0))
    lines = comparison_lines([dead])
    assert lines[3].endswith("failed")
    assert "int8.onnx: int8.onnx: its process died" in "\n".join(lines)


def test_an_interruption_is_reported() -> None:
    assert any("interrupted" in line for line in comparison_lines([compared(interrupted=True)]))
    cut = replace(measured("a", 1e6), interrupted=True)
    assert any("interrupted" in line for line in measurement_lines([cut]))


def test_kept_sessions_are_reported() -> None:
    lines = comparison_lines([compared(renewed=False)])
    assert any("may come from where their memory lies" in line for line in lines)


def test_a_noisy_machine_is_reported_with_its_reasons() -> None:
    unfit = NoiseCheck(fit=False, reasons=("steal 9%: move",))
    lines = measurement_lines([replace(measured("a", 1e6), noise_check=unfit)])
    assert lines[-2].startswith("noisy machine: trust the ratios")
    assert lines[-1] == "  steal 9%: move"


@pytest.mark.parametrize(
    ("ratio", "low", "high", "text"),
    [
        (1.5, 1.4, 1.6, "1.50x [1.40, 1.60]"),
        (1.0, 0.996, 1.004, "1.000x [0.996, 1.004]"),
        (1.5, 0.0, math.inf, "1.50x [?, ?]"),
        (math.nan, 0.0, math.inf, "-"),
    ],
)
def test_a_speed_up_has_its_interval(ratio, low, high, text) -> None:
    assert speedup_text(compared(ratio=ratio, low=low, high=high)) == text


def test_throughput_is_shown_in_inferences_per_second() -> None:
    lines = measurement_lines([measured("a", 1e6)], per_second=True)
    assert "inferences/s" in lines[0]
    assert 900 < float(lines[2].split()[3]) < 1100


def test_startup_costs_are_shown_as_medians() -> None:
    lines = startup_lines(
        [StartupCosts("a", 10**6, (3 * 10**6, 10**6, 2 * 10**6), (1000,) * 3, (5 * 10**6,) * 3)]
    )
    assert " ".join(lines[2].split()) == "a 1 MB 2 ms 1 us 5 MB -"
    assert "3 fresh processes" in lines[-1]


def test_startup_costs_show_the_memory_of_the_arena() -> None:
    made = StartupCosts("a", 10**6, (1,), (1,), (5 * 10**6,), (3 * 10**6,))
    assert made.arena_bytes == 2e6
    assert StartupCosts.from_json(made.to_json()) == made
    assert " ".join(startup_lines([made])[2].split()).endswith("5 MB 2 MB")
    assert StartupCosts.from_json({**made.to_json(), "bare_bytes": []}).arena_bytes is None


def test_a_gpu_and_the_copies_to_it_are_shown() -> None:
    placement = Placement(
        "CUDAExecutionProvider",
        "cuda",
        {"CUDAExecutionProvider": 9, "CPUExecutionProvider": 1},
        ("NonZero 'n' on CPUExecutionProvider",),
        (10_000, 12_000, 30_000),
        (4_000,),
        602_112,
        4_000,
        cuda_graph=True,
    )
    noise_check = NoiseCheck(facts={"gpu_clock": 1900.0, "gpu_clock_most": 1980.0})
    on_gpu = replace(HERE, gpu="NVIDIA H200", driver="570.1")
    found = replace(
        measured("a", 1e6), placement=placement, environment=on_gpu, noise_check=noise_check
    )
    text = "\n".join(measurement_lines([found]))
    assert "NVIDIA H200, driver 570.1, at 1900 of 1980 MHz at the end" in text
    assert "a: 9 of 10 nodes on CUDAExecutionProvider, as one CUDA graph" in text
    assert "elsewhere: NonZero 'n' on CPUExecutionProvider" in text
    assert "not in the times: 602 kB in 12 us to the device, 4 kB in 4 us back" in text
    assert Measurement.from_json(found.to_json()) == found
    shared = replace(found, placement=Placement("OpenVINOExecutionProvider", "cpu"))
    assert "a run holds the provider's own copies" in "\n".join(measurement_lines([shared]))


def test_the_plot_has_a_line_a_model_and_an_axis() -> None:
    lines = plot_lines([measured("slow", 2e6), measured("fast", 1e6)], width=40)
    assert len(lines) == 3
    assert lines[0].endswith("  slow")
    assert lines[0].index("█") > lines[1].index("█")
    assert lines[2].endswith("ms")


def test_nothing_measured_is_nothing_to_plot() -> None:
    assert plot_lines([measured("a", 1e6, 0)]) == []
    assert len(plot_lines([replace(measured("a", 1), samples_ns=(5,))])) == 2


def test_a_sweep_shows_latency_beside_throughput() -> None:
    """Of four callers at once each waits four times the time per inference."""
    one = SweepRow(measured("a", 1e6), threads=1, batch=2)
    four = SweepRow(measured("b", 1e6), threads=2, callers=4)
    assert four.latency_ns == pytest.approx(4 * (one.latency_ns or 0), rel=0.1)
    assert one.rows_per_second == pytest.approx(2 * four.rows_per_second, rel=0.1)
    assert sweep_lines([one, four])[-1].startswith(
        "lowest latency: a with threads 1, batch 2, callers 1; most rows a second: a with threads 1"
    )
