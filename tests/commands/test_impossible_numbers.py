"""Numbers that cannot be, wherever one is asked for: exit code 2, one message with the option."""

from __future__ import annotations

from pathlib import Path

import graphs
import numpy as np
import pytest

from trimtab.cli import main

#: Commands with what each needs, and options with numbers that none of them can take.
COMMANDS = {
    "bench": ("bench MODEL --max-time 1s --no-card --in-process", {
        "shape": ["x=0x8", "x=-1x8", "x=1x0"], "batch": ["0", "-1", "1.5"],
        "threads": ["0", "-1", "1.5"], "max-time": ["0", "-1s", "nan", "soon"],
        "resolution": ["0", "-1", "1", "nan", "200%"], "alpha": ["0", "-1", "1", "nan"],
        "seed": ["-1", "1.5"], "concurrency": ["0", "-1"],
    }),
    "quantize": ("quantize MODEL -o OUT --data DATA", {
        "shape": ["x=0x8"], "samples": ["0", "-1"], "fidelity": ["-1", "2"],
        "max-drop": ["-1", "nan"], "row-cache": ["0", "-1"], "threads": ["0"], "seed": ["-1"],
    }),
    "eval": ("eval MODEL --reference MODEL --data DATA", {
        "threads": ["0", "-1"], "batch": ["0", "-1", "1.5"], "row-cache": ["0"],
    }),
    "optimize": ("optimize MODEL -o OUT --data DATA --dry-run --goal throughput", {
        "min-speedup": ["0", "-1", "nan"], "max-latency": ["p0=5ms", "p95=0", "p101=5ms"],
        "max-size": ["0", "-1MB"], "max-rss": ["0"], "batch": ["0", "-1"],
        "concurrency": ["0"], "train": ["0"], "time": ["0", "-1"], "trials": ["0", "-1"],
        "threads": ["0"], "split": ["0/0/0", "-1/2/3"], "quiet-for": ["0"], "seed": ["-1"],
    }),
    "tune": ("tune MODEL -o OUT --no-session", {
        "time": ["0", "-1"], "shape": ["x=0x8"], "threads": ["0"], "seed": ["-1"],
    }),
    "doctor": ("doctor MODEL", {
        "threads": ["0", "-1"], "shape": ["x=0x8", "x=1x0"], "samples": ["0"], "time": ["0"],
    }),
    "package": ("package MODEL -o OUT --for server", {"threads": ["0"], "shape": ["x=0x8"]}),
    "fleet": ("fleet up", {"local": ["0", "-1", "1.5"], "port": ["0", "-1", "99999"]}),
    "cluster-weights": ("cluster-weights MODEL -o OUT", {
        "clusters": ["0", "1"], "iterations": ["0"], "min-size": ["-1"],
    }),
}  # fmt: skip
CASES = [
    (line, option, value)
    for line, options in COMMANDS.values()
    for option, values in options.items()
    for value in values
]


@pytest.mark.parametrize(("line", "option", "value"), CASES)
def test_a_number_that_cannot_be_is_refused_in_one_line_with_its_option(
    line: str, option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = graphs.model_of("(float[n,m] x) => (float[n,m] y) { y = Relu (x) }")
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(9, 8)).astype(np.float32))
    places = {"MODEL": str(model.save(tmp_path / "m.onnx")), "DATA": str(tmp_path / "d.npz")}
    places["OUT"] = str(tmp_path / "out")
    argv = [places.get(word, word) for word in line.split()]
    assert main([*argv, f"--{option}={value}"]) == 2
    error = capsys.readouterr().err.splitlines()
    assert "bug" not in error[-1]
    assert option in error[-1].replace("_", "-").replace("callers", "concurrency")
    assert sum(e.startswith("trimtab") for e in error) == 1
