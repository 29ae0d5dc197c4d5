"""Kill a search with SIGKILL at random moments and let it go on: same answer, no step made twice.

    python benchmarks/optimize/kill.py [--network resnet20] [--kills 10] [--seed 0]

The reference is a search on a cache of its own that nobody disturbs. Then a second cache is filled
by searches that are killed; the last one runs to its end. Compared are the chosen recipe, the bytes
of its model, and the cache: an entry that a killed search had finished must never be written again,
and nothing half-written may lie in cache or output folder.

Data: the folder that TRIMTAB_SHARED names, else `shared` beside the checkout.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common.data import cifar
from common.data import folder as shared

from trimtab.core.model import Model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=256, help="to calibrate on")
    parser.add_argument("--eval", type=int, default=1000)
    parser.add_argument(
        "--passes", default="simplify,quantize-static,apply-rewrites,prune-channels"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trimtab-kill-") as name:
        folder = Path(name)
        command = prepared(folder, args)
        start = time.monotonic()
        run_to_end([*command, "--cache", str(folder / "whole"), "-o", str(folder / "expected")])
        whole_s = time.monotonic() - start
        killed, rewritten = kill_and_go_on(command, folder, whole_s, args)
        told = compared(folder)
    print(
        f"FIGURE kills={killed} same_recipe={told['recipe']} same_bytes={told['bytes']} "
        f"rewritten_entries={rewritten} broken_files={told['broken']} seconds={whole_s:.0f}"
    )


def prepared(folder: Path, args: argparse.Namespace) -> list[str]:
    """Write the data; return the command without cache and output."""
    for part, split, count in (("calib", "train", args.images), ("eval", "eval", args.eval)):
        batches = list(cifar(split, count))
        name = next(iter(batches[0].feeds))
        rows = np.concatenate([b.feeds[name] for b in batches])
        labels = np.concatenate([b.labels for b in batches if b.labels is not None])
        np.savez(folder / f"{part}.npz", **{name: rows, "labels": labels})
    model = shared() / f"{args.network}.onnx"
    return [
        *(sys.executable, "-m", "trimtab.cli", "optimize", str(model)),
        *("--data", str(folder / "calib.npz"), "--eval", str(folder / "eval.npz")),
        *("--max-drop", "0.01", "--threads", "1", "--passes", args.passes),
    ]


def run_to_end(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def kill_and_go_on(
    command: list[str], folder: Path, whole_s: float, args: argparse.Namespace
) -> tuple[int, int]:
    """Kill searches at random moments, then run one to its end; count entries written twice."""
    rng = random.Random(args.seed)
    full = [*command, "--cache", str(folder / "cache"), "-o", str(folder / "found")]
    killed = rewritten = 0
    for _ in range(args.kills):
        before = entries(folder / "cache")
        process = subprocess.Popen(full, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(rng.uniform(0.05, 0.6) * whole_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
        after = entries(folder / "cache")
        rewritten += sum(after.get(path) != stamp for path, stamp in before.items())
    before = entries(folder / "cache")
    run_to_end(full)
    after = entries(folder / "cache")
    return killed, rewritten + sum(after.get(path) != stamp for path, stamp in before.items())


def entries(cache: Path) -> dict[str, tuple[int, int]]:
    """Return the finished entries of a cache, with a value that changes when one is rewritten."""
    found = {}
    for path in cache.glob("search/*/*/*"):
        if not path.name.startswith(".new-"):
            stat = path.stat()
            found[str(path)] = (stat.st_ino, stat.st_mtime_ns)
    return found


def compared(folder: Path) -> dict[str, object]:
    """Return whether both searches end alike, and the number of unreadable files."""
    expected, found = folder / "expected", folder / "found"
    digests = [hashlib.sha256((f / "model.onnx").read_bytes()).digest() for f in (expected, found)]
    recipes = [(f / "recipe.yaml").read_text() for f in (expected, found)]
    return {
        "recipe": recipes[0] == recipes[1],
        "bytes": digests[0] == digests[1],
        "broken": broken(folder / "cache") + len(list(found.glob(".trimtab-*"))),
    }


def broken(cache: Path) -> int:
    """Count the entries that cannot be read."""
    count = 0
    for path in cache.glob("search/*/*/*"):
        if path.name.startswith(".new-"):
            continue
        try:
            if (path / "value.json").exists():
                json.loads((path / "value.json").read_text())
            else:
                Model.load(path / "model.onnx")
        except (OSError, ValueError):
            count += 1
    return count


if __name__ == "__main__":
    main()
