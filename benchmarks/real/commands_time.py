"""Time and memory of commands on third-party files, against the times that users are promised.

    python benchmarks/real/commands_time.py [--files yolox_nano,...] [--rounds 5]
        [--commands load,simplify,doctor,prune,optimize] [--out docs/commands-time.json]

Takes the files of quantize_time.py and the two with states. Each command is a whole process: `load`
is `import trimtab; trimtab.load(FILE)`, promised in 0.5 s; `simplify` runs by turns with onnxsim's
own in an order drawn for each round, promised in at most 1.3 times its time (geometric mean, 95%
interval of Student's t); `doctor --baseline --data` of int8 in all layers by MinMax, in 120 s;
`prune --channels 0.3 --data` in 90 s; `optimize --data` of the detector and the reader of text in 6
minutes, to an answer. Seconds on the wall, CPU seconds and peak memory are those of the process.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from common.data import REAL
from quantize_time import FILES, interval, rows_of, run

#: Seconds that each command may take.
PROMISED = {"load": 0.5, "doctor": 120.0, "prune": 90.0, "optimize": 360.0}
#: Times of onnxsim that simplify may take.
SIMPLIFY = 1.3
#: Files that are searched.
SEARCHED = ("yolox_nano", "ppocr_rec")
ONNXSIM = (
    "import onnx, onnxsim, sys; m, _ = onnxsim.simplify(sys.argv[1]); onnx.save(m, sys.argv[2])"
)
LOAD = "import sys, trimtab; trimtab.load(sys.argv[1])"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", default=",".join((*FILES, "silero_vad")))
    parser.add_argument("--commands", default="load,simplify,doctor,prune,optimize")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=float, default=16.0, help="address space in GB")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="trimtab-") as scratch:
        for name in args.files.split(","):
            for command in args.commands.split(","):
                if command == "optimize" and name not in SEARCHED:
                    continue
                entry = timed(name, command, Path(scratch), args)
                found.setdefault(name, {})[command] = entry
                print(name, command, json.dumps(entry), flush=True)
                if args.out:
                    said = {"cpus": os.cpu_count(), "rounds": args.rounds, "files": found}
                    args.out.write_text(json.dumps(said, indent=1) + "\n")
    missed = [f"{n}/{c}" for n, entries in found.items() for c, e in entries.items() if e["missed"]]
    print(f"FIGURE missed={len(missed)} {' '.join(missed)}")


def timed(name: str, command: str, scratch: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return what a command took on a file, and whether that is more than promised."""
    model, data = str(REAL / f"{name}.onnx"), rows_of(name, scratch, sys.maxsize)
    made, int8, memory = str(scratch / "made"), str(scratch / "int8.onnx"), int(args.memory * 1e9)
    face = ["-m", "trimtab"]
    lines = {
        "load": ["-c", LOAD, model],
        "doctor": [*face, "doctor", int8, "--baseline", model, "--data", data],
        "prune": [*face, "prune", model, "--channels", "0.3", "--data", data, "-o", f"{made}.onnx"],
        "optimize": [*face, "optimize", model, "--data", data, "-o", made, "--time", "6m"],
    }
    for_all = ["--force", "--quiet"]
    if command == "simplify":
        ours = [*face, "simplify", model, "-o", f"{made}.onnx", *for_all]
        return beside(ours, ["-c", ONNXSIM, model, f"{made}.onnx"], scratch, args)
    line = lines[command] + (for_all if command in {"prune", "optimize"} else [])
    if command == "doctor" and not int8_of(model, data, int8, scratch, memory):
        return {"failed": "nothing was quantized", "missed": False}
    taken = run(line, scratch, memory, codes={0, 1})
    if taken is None:
        return {"failed": True, "missed": True}
    return {**rounded(taken), "missed": taken["wall"] > PROMISED[command]}


def int8_of(model: str, data: str, out: str, scratch: Path, memory: int) -> bool:
    """Write int8 of all layers by MinMax, wrong as it may be; return whether any was quantized."""
    line = ["-m", "trimtab", "quantize-static", model, "--data", data, "-o", out, "--force"]
    line += ["--quiet", "--ranges", "minmax"]
    return run(line, scratch, memory, codes={0, 1}) is not None


def beside(ours: list[str], theirs: list[str], scratch: Path, args: argparse.Namespace) -> Any:
    """Return the ratio of two commands that run by turns."""
    rng, logs, last = random.Random(0), [], {}
    for _ in range(args.rounds):
        order = [("ours", ours), ("theirs", theirs)]
        rng.shuffle(order)
        for side, line in order:
            one = run(line, scratch, int(args.memory * 1e9))
            if one is None:
                return {"failed": side, "missed": side == "ours"}
            last[side] = one
        logs.append(math.log(last["ours"]["wall"] / last["theirs"]["wall"]))
    ratio = interval(logs)
    sides = {side: rounded(one) for side, one in last.items()}
    return {**sides, **ratio, "missed": ratio["ratio"] > SIMPLIFY}


def rounded(taken: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 2) for key, value in taken.items()}


if __name__ == "__main__":
    main()
