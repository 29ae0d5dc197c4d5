"""False verdicts and power of the gate on programs: commands, and functions with a network in them.

Each A/A trial is `no_slower_than` the same program; a FAIL is a false verdict, at most 1% of which
are promised. In a power trial the program takes 5% longer, for a command with the start of its
process counted, for at most 60 s; FAIL is right. Commands are processes of about 50 ms, functions
of about 2 ms. An interrupted run continues where it was.

    python benchmarks/gate/commands_aa.py [--aa 300] [--power 100] [--kinds command,callable]
        [--max-time 30] [--results FILE] [--save docs/commands-aa.json]
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from common.journal import done, note

from trimtab.runtime_bench.bench.budgets import SUBJECT_KINDS, Budget, Gate, SubjectKind
from trimtab.runtime_bench.gate.collect import Collector
from trimtab.runtime_bench.gate.rules import ALPHA, judge

#: Steps of work of each kind.
STEPS = {"command": 2500, "callable": 200}
SLOWDOWN = 0.05
WORK = "def work(steps):\n    for _ in range(steps):\n        sum(range(1000))\n\n"
POWER_SECONDS = 60.0


@functools.cache
def slower_steps(kind: SubjectKind) -> int:
    """Return the steps with which a program takes 5% longer."""
    return round(STEPS[kind] * (1 + SLOWDOWN) + (SLOWDOWN * starting_steps()) * (kind == "command"))


def starting_steps() -> float:
    """Return the steps that take as long as the start of a process: medians of CPU seconds."""
    seconds = [[process_seconds(steps) for _ in range(15)] for steps in (0, STEPS["command"])]
    start, whole = (statistics.median(taken) for taken in seconds)
    return STEPS["command"] * start / (whole - start)


def process_seconds(steps: int) -> float:
    """Return the CPU seconds of a process that works so many steps."""
    before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    subprocess.run([sys.executable, "-S", "-c", f"{WORK}work({steps})"], check=True)
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before


def programs(folder: Path, kind: SubjectKind) -> tuple[str, str]:
    """Write the program and one that takes 5% longer; return their texts."""
    texts = []
    for name, steps in (("base", STEPS[kind]), ("more", slower_steps(kind))):
        module = f"{name}_{kind}"
        run = f"def run():\n    work({steps})\n"
        end = run if kind == "callable" else f"work({steps})\n"
        (folder / f"{module}.py").write_text(WORK + end)
        script = f"{sys.executable} -S {module}.py"
        texts.append(f"{module}:run" if kind == "callable" else script)
    return texts[0], texts[1]


def trial(kind: SubjectKind, *, slower: bool, seconds: float, seed: int) -> dict[str, Any]:
    """Gate one program against the base."""
    with tempfile.TemporaryDirectory(prefix="trimtab-programs-") as folder:
        base, more = programs(Path(folder), kind)
        budget = Budget("no_slower_than", text=base, against=base)
        gate = Gate("trial", more if slower else base, (budget,), subject=kind, folder=folder)
        start = time.monotonic()
        facts = Collector(gate, ALPHA, seconds, seed).collect()
        (judged,) = judge(gate, facts, alpha=ALPHA)
    if facts.interrupted:
        raise KeyboardInterrupt
    found = facts.comparisons[base]
    return {
        "kind": kind,
        "slower": slower,
        "seed": seed,
        "verdict": judged.verdict,
        "seconds": round(time.monotonic() - start, 2),
        "ratio": found.ratio,
        "blocks": found.blocks,
        "load": os.getloadavg()[0],
    }


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--aa", type=int, default=300)
    options.add_argument("--power", type=int, default=100)
    options.add_argument("--kinds", default="command,callable")
    options.add_argument("--max-time", type=float, default=30.0, help="seconds of an A/A trial")
    options.add_argument("--results", type=Path, default=Path("out/commands_aa.jsonl"))
    options.add_argument("--save", type=Path, help="write a JSON document of the counts")
    args = options.parse_args()
    kinds = [kind for kind in SUBJECT_KINDS if kind in args.kinds.split(",")]
    wanted = [(False, i, kind) for i in range(args.aa // len(kinds)) for kind in kinds]
    wanted += [(True, i, kind) for i in range(args.power // len(kinds)) for kind in kinds]
    finished = {(e["slower"], e["seed"], e["kind"]) for e in done(args.results)}
    for slower, seed, kind in wanted:
        if (slower, seed, kind) in finished:
            continue
        seconds = POWER_SECONDS if slower else args.max_time
        entry = trial(kind, slower=slower, seconds=seconds, seed=seed)
        note(args.results, entry)
    report(done(args.results), args.save)


def report(found: list[dict[str, Any]], save: Path | None) -> None:
    """Print and write how often each kind got each verdict."""
    counts = {
        f"{kind} {'5% slower' if slower else 'against itself'}": dict(
            Counter(e["verdict"] for e in found if e["kind"] == kind and e["slower"] == slower)
        )
        for kind in STEPS
        for slower in (False, True)
    }
    if save:
        save.write_text(json.dumps({"verdicts": counts, "trials": found}, indent=1) + "\n")
    same = [e for e in found if not e["slower"]]
    slow = [e for e in found if e["slower"]]
    print(counts)
    print(
        f"FIGURE aa={len(same)} false_verdicts={sum(e['verdict'] == 'fail' for e in same)} "
        f"slower={len(slow)} seen={sum(e['verdict'] == 'fail' for e in slow)}"
    )


if __name__ == "__main__":
    main()
