"""Time and memory of `trimtab quantize` beside onnxruntime's Percentile calibration.

    python benchmarks/real/quantize_time.py [--files yolox_nano,...] [--rows 16] [--rounds 3]

Takes the files of the shared data (the folder that TRIMTAB_SHARED names). Both are whole processes
from the file on disk to the int8 file, run in turn in an order drawn for each round: ours with no
option, which tries ranges, dynamic int8, stored weights and the clock; theirs `quant_pre_process`
and `quantize_static` with CalibrationMethod.Percentile, one row a run. Seconds on the wall and of
the processors, and peak memory, are those of the process; a ratio is the geometric mean over
rounds, with a 95% interval of Student's t. Address space is limited, as onnxruntime keeps every
tensor of every row. --out writes JSON beside the documents that quote it. The last line has the
median ratio and the largest.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common.data import MEASURE, REAL, ROOT, real
from common.peers import reader

FILES = (
    *("keypoint", "melspectrogram", "dtln_1", "ppocr_cls", "magika", "basic_pitch"),
    *("prisma", "yolox_nano", "ppocr_rec", "ppocr_det"),
)
#: Quantiles of Student's t at 97.5%, by the number of rounds.
T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36}


def main() -> None:
    """Run the rounds, or one side of one round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", default=",".join(FILES))
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=float, default=8.0, help="address space in GB")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--theirs", nargs=3, metavar=("MODEL", "DATA", "OUT"))
    args = parser.parse_args()
    if args.theirs:
        quantize_by_onnxruntime(*args.theirs)
        return
    found = {}
    with tempfile.TemporaryDirectory(prefix="trimtab-") as scratch:
        for name in args.files.split(","):
            found[name] = compare(name, Path(scratch), args)
            print(name, json.dumps(found[name]), flush=True)
            if args.out:
                write(args.out, found, args)
    ratios = [entry["wall"]["ratio"] for entry in found.values() if "wall" in entry]
    median, largest = (statistics.median(ratios), max(ratios)) if ratios else (math.nan, math.nan)
    print(f"FIGURE quantize_wall_ratio_median={median:.2f} largest={largest:.2f}")


def write(out: Path, found: dict[str, Any], args: argparse.Namespace) -> None:
    """Write what is known so far."""
    said = {"rows": args.rows, "rounds": args.rounds, "cpus": os.cpu_count()}
    out.write_text(json.dumps({**said, "files": found}, indent=1) + "\n")


def compare(name: str, scratch: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return seconds, memory and ratios of one file."""
    model, data = str(REAL / f"{name}.onnx"), rows_of(name, scratch, args.rows)
    ours = ["-m", "trimtab", "quantize", model, "--data", data, "-o", str(scratch / "a.onnx")]
    ours += ["--force", "--quiet"]
    theirs = [str(Path(__file__).resolve()), "--theirs", model, data, str(scratch / "b.onnx")]
    sides: dict[str, list[str]] = {"ours": ours, "theirs": theirs}
    taken: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    rng = random.Random(name)
    for _ in range(args.rounds):
        order = ["ours", "theirs"]
        rng.shuffle(order)
        for side in order:
            one = run(sides[side], scratch, int(args.memory * 1e9))
            if one is None:
                return {"failed": side, **{s: t for s, t in taken.items() if t}}
            taken[side].append(one)
    result: dict[str, Any] = {
        side: {key: round(statistics.median(t[key] for t in runs), 2) for key in runs[0]}
        for side, runs in taken.items()
    }
    for key in ("wall", "cpu"):
        pairs = zip(taken["ours"], taken["theirs"], strict=True)
        result[key] = interval([math.log(a[key] / b[key]) for a, b in pairs])
    return result


def interval(logs: Sequence[float]) -> dict[str, float]:
    """Return the geometric mean of ratios and its 95% interval."""
    mean, rounds = statistics.fmean(logs), len(logs)
    wide = T[rounds] * statistics.stdev(logs) / math.sqrt(rounds) if rounds in T else math.inf
    ends = {"ratio": mean, "low": mean - wide, "high": mean + wide}
    return {key: round(math.exp(min(value, 50.0)), 2) for key, value in ends.items()}


def run(
    command: Sequence[str], scratch: Path, memory: int, codes: Collection[int] = (0,)
) -> dict[str, float] | None:
    """Return seconds and peak memory in MB of a process; None where its exit code is another."""
    start = time.monotonic()
    process = os.fork()
    if not process:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        paths = os.pathsep.join([str(ROOT), str(MEASURE.parent)])
        log = os.open(scratch / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        environment["TRIMTAB_CACHE"] = tempfile.mkdtemp(dir=scratch)  # nothing is known before
        os.chdir(scratch)  # onnxruntime's inference of shapes leaves files where it fails
        os.execve(sys.executable, [sys.executable, *command], environment)
    _, status, used = os.wait4(process, 0)
    wall = time.monotonic() - start
    if os.waitstatus_to_exitcode(status) not in codes:
        print((scratch / "log.txt").read_text()[-400:], file=sys.stderr)
        return None
    peak = used.ru_maxrss / 1e3
    return {"wall": wall, "cpu": used.ru_utime + used.ru_stime, "system": used.ru_stime, "mb": peak}


def rows_of(name: str, scratch: Path, most: int) -> str:
    """Return the name of at most so many calibration rows; those of streams are all of them."""
    module = real()
    made = module.MAKERS[name]()
    if module.is_stream(made):
        return f"real:{name}_rows"
    path = scratch / f"{name}.npz"
    np.savez(path, **{key: array[:most] for key, array in made[0].items()})
    return str(path)


def quantize_by_onnxruntime(model: str, data: str, out: str) -> None:
    """Calibrate by percentiles and write int8, as onnxruntime's documentation says."""
    from onnxruntime.quantization import CalibrationMethod, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = f"{out}.prepared.onnx"
    try:
        quant_pre_process(model, prepared)
    except Exception:  # noqa: BLE001 - its inference of shapes fails for some files
        prepared = model
    method = CalibrationMethod.Percentile
    quantize_static(prepared, out, reader(feeds(data)), per_channel=True, calibrate_method=method)


def feeds(data: str) -> list[dict[str, Any]]:
    """Return rows of an .npz or of `real:NAME_rows`, one each."""
    if data.startswith("real:"):
        return list(getattr(real(), data.partition(":")[2])())
    with np.load(data) as file:
        arrays = {name: file[name] for name in file.files if name != "labels"}
    count = len(next(iter(arrays.values())))
    return [{name: a[row : row + 1] for name, a in arrays.items()} for row in range(count)]


if __name__ == "__main__":
    main()
