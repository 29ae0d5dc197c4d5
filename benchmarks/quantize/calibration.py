"""Calibration of resnet56: seconds and peak memory, ours against onnxruntime's calibrators.

    python benchmarks/quantize/calibration.py [--samples 64 256 1024] [--repeats 3]
        [--network resnet56]

Each run is a separate process, to measure its peak memory. Ours collects statistics for all five
range methods in one pass, and its time includes the search for the ranges. A run of the network
alone on the same images is the lower bound. CPU seconds are reported beside those of the clock,
which other load increases.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common.data import cifar, network
from common.peers import reader

WAYS = ("ours", "onnxruntime-percentile", "onnxruntime-entropy", "onnxruntime-minmax", "inference")


def ours(model, data) -> None:
    from trimtab.core.context import Context
    from trimtab.core.target import Target
    from trimtab.passes.calibration.collector import calibrate
    from trimtab.passes.calibration.range_estimator import METHODS, find_range
    from trimtab.passes.quantization.qdq.int8_operators import int8_operators
    from trimtab.passes.quantization.qdq.int8_rewrites import apply_int8_rewrites
    from trimtab.passes.quantization.qdq.prepare import prepare
    from trimtab.passes.quantization.qdq.writer import Scheme, observed_tensors

    model = model.clone()
    target = Target.named("x64-avx512-vnni")
    prepare(model)
    apply_int8_rewrites(model)
    scheme = Scheme(
        activation=target.activation,
        weight=target.weight,
        per_channel=True,
        reduce_range=False,
        symmetric=False,
        ops=int8_operators(target, model.graph),
    )
    seen = calibrate(model, observed_tensors(model, scheme), data, Context(target=target))
    for method in METHODS:
        for statistic in seen.values():
            find_range(statistic, method)


def onnxruntimes(model, data, method: str) -> None:
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    with tempfile.TemporaryDirectory() as folder:
        calibrator = create_calibrator(
            str(model.save(Path(folder) / "float.onnx")),
            ["Conv", "Gemm", "Add", "GlobalAveragePool", "MaxPool"],
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=CalibrationMethod[method],
        )
        calibrator.collect_data(reader(dict(batch.feeds) for batch in data.sized(1)))
        calibrator.compute_data()


def inference(model, data) -> None:
    from trimtab.core.ort.session import SessionConfig, build_session, run
    from trimtab.core.target import usable_cpus

    session = build_session(model, SessionConfig(threads=usable_cpus()))
    for batch in data.sized(16):
        run(session, batch.feeds)


def run_once(way: str, samples: int, name: str) -> None:
    """Read the data, then measure, in this process."""
    data, model = cifar("train", samples), network(name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    if way == "ours":
        ours(model, data)
    elif way == "inference":
        inference(model, data)
    else:
        methods = {"percentile": "Percentile", "entropy": "Entropy", "minmax": "MinMax"}
        onnxruntimes(model, data, methods[way.split("-")[1]])
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    measured = {"seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak, "before_mb": before / 1024}
    print(json.dumps(measured))


def run_in_process(way: str, samples: int, name: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--way", way, "--samples", str(samples), "--network", name]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise RuntimeError(f"{way}, {samples} samples: {last[0]}")
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--network", default="resnet56")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--way", choices=WAYS, help="measure this alone, in this process")
    args = parser.parse_args()
    if args.way:
        run_once(args.way, args.samples[0], args.network)
        return
    figures: dict[tuple[str, int], dict[str, float]] = {}
    for samples in args.samples:
        for way in args.ways:
            try:
                runs = [run_in_process(way, samples, args.network) for _ in range(args.repeats)]
            except RuntimeError as error:
                print(f"failed: {error}", flush=True)
                continue
            middle = {name: statistics.median(r[name] for r in runs) for name in runs[0]}
            figures[way, samples] = middle
            print(
                f"FIGURE calibration.{args.network}.{way}.{samples} "
                f"seconds={middle['seconds']:.2f} cpu_seconds={middle['cpu_seconds']:.2f} "
                f"peak_mb={middle['peak_mb']:.0f} runs={args.repeats}",
                flush=True,
            )
    summary(figures, args)


def summary(figures: dict[tuple[str, int], dict[str, float]], args: argparse.Namespace) -> None:
    first, last = min(args.samples), max(args.samples)
    if ("ours", last) not in figures:
        return
    mine = figures["ours", last]
    for way in args.ways:
        if way != "ours" and (way, last) in figures:
            theirs = figures[way, last]
            times, cpu = (theirs[name] / mine[name] for name in ("seconds", "cpu_seconds"))
            name = f"calibration.{args.network}.times_faster_than.{way}"
            print(f"FIGURE {name} clock={times:.1f} processor={cpu:.1f} samples={last}")
    if ("ours", first) in figures:
        growth = mine["peak_mb"] / figures["ours", first]["peak_mb"]
        print(f"FIGURE calibration.{args.network}.memory_growth {growth:.3f} ({first} to {last})")


if __name__ == "__main__":
    main()
