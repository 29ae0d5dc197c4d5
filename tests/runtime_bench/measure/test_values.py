"""Measurements and comparisons as text: one line, not every sample."""

from __future__ import annotations

from gate_facts import comparison, measurement


def test_a_comparison_prints_as_one_line() -> None:
    found = comparison(2.0, noise=0.0)
    assert str(found) == "m.onnx against base.onnx: 2.00x [1.94, 2.06], inconclusive"


def test_a_measurement_prints_its_median() -> None:
    assert str(measurement()) == "m.onnx: median 1.000 ms of 300 runs"
    assert str(measurement(())) == "m.onnx: no run of 0 runs"
