"""Fuzz the commands and print the faults: `python tests/fuzz/run.py --mutants 2000`."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from fuzz.judge import COMMANDS, judge, warm
from fuzz.seeds import SEEDS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--each", type=int, default=0, help="commands a mutant, in turn (0: all)")
    args = parser.parse_args()
    warm()
    names, faults, runs, start = args.commands.split(","), [], 0, time.monotonic()
    for number in range(args.first, args.first + args.mutants):
        turn = number // len(SEEDS)  # so that each seed meets each command
        wanted = [names[(turn + k * 3) % len(names)] for k in range(args.each)] or names
        runs += len(wanted)
        for fault in judge(number, list(dict.fromkeys(wanted))):
            faults.append(fault)
            print(fault, flush=True)
        if number % 100 == 99:
            print(f"{number + 1} mutants, {time.monotonic() - start:.0f} s", flush=True)
    counts = Counter(f.what.split()[0] for f in faults)
    print(f"{args.mutants} mutants, {runs} runs, {len(faults)} faults {dict(counts)}")
    print(f"FIGURE faults={len(faults)}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
