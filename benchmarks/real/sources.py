"""Third-party files, rows of theirs, and what is left of the job of a model made from one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common.data import MEASURE, real

FILES = (
    "yolox_nano",
    "ppocr_rec",
    "ppocr_det",
    "ppocr_cls",
    "magika",
    "basic_pitch",
    "silero_vad",
    "dtln_1",
    "keypoint",
    "prisma",
    "melspectrogram",
)
#: Files with states: their rows come from a function instead of an .npz.
STREAMS = ("silero_vad", "dtln_1")
#: Rows that the other tool calibrates on: it keeps every activation of all of them in memory.
PEER_ROWS = 16
#: Longest time of the judge in seconds.
JUDGE_SECONDS = 300
Cell = dict[str, Any]


def data_of(file: str, out: Path) -> dict[str, str]:
    """Return where the calibration and evaluation rows of a file are, made if they are not."""
    if file in STREAMS:
        rows = f"real:{file}_rows"
        return {"calib": rows, "eval": rows}
    made = out / "rows" / file
    if not (made / "eval.npz").exists():
        subprocess.run([sys.executable, MEASURE, "make", file, made], check=True)
    return {"calib": str(made / "calib.npz"), "eval": str(made / "eval.npz")}


def run(command: list[Any], limit: float) -> tuple[int, str, str]:
    """Run a command with a time limit; exit code, output and errors, 124 where it took longer."""
    paths = [str(MEASURE.parent), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p), "NO_COLOR": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, env=env, check=False
        )
    except subprocess.TimeoutExpired:
        return 124, "", f"took longer than {limit:.0f} s"
    return done.returncode, done.stdout, done.stderr


def kept(file: str, candidate: Path) -> float | None:
    """Return the share of the float model's job that a candidate still does."""
    _, said, _ = run([sys.executable, MEASURE, "judge", file, candidate], JUDGE_SECONDS)
    found = re.search(r"KEPT \S+ ([0-9.]+)", said)
    return float(found[1]) if found else None


def peer_rows(source: Path, file: str, rows: Path, most: int = PEER_ROWS) -> list[dict[str, Any]]:
    """Return rows by input name, spread over the data."""
    import onnxruntime as ort

    if file in STREAMS:
        return list(real().rows_of(file))[:most]
    names = [i.name for i in ort.InferenceSession(source).get_inputs()]
    arrays = np.load(rows / "rows" / file / "calib.npz")
    arrays = {name: arrays[name] for name in names}
    count = len(arrays[names[0]])
    places = np.linspace(0, count - 1, min(most, count)).astype(int)
    return [{n: a[i : i + 1] for n, a in arrays.items()} for i in places]


def machine() -> dict[str, Any]:
    """Return what the cells were run with: CPU, versions."""
    from importlib.metadata import version

    from trimtab.runtime_bench.machine.environment import Environment

    here = Environment.here()
    packages = ("onnxruntime", "onnx", "onnxsim", "numpy")
    return {
        "cpu": here.cpu,
        "cpus": here.cpus,
        "versions": {name: version(name) for name in packages},
    }
