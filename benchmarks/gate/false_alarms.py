"""False alarms of the gate: a model against itself, on real sessions.

Each gate is `no_slower_than` the same file, in fresh processes, as `trimtab gate` runs it; in every
third one a noisy neighbour process takes a CPU in bursts. A FAIL is a false alarm; at most 1% is
promised. An interrupted run continues where it was.

    python benchmarks/gate/false_alarms.py [--gates 300] [--max-time 30] [--results FILE]
"""

from __future__ import annotations

import contextlib
from collections import Counter
from statistics import median

import trials
from common.journal import done, note


def main() -> None:
    args = trials.options(__doc__, 300, "out/gate_false_alarms.jsonl")
    model = trials.network(trials.LAYERS)
    for seed in range(len(done(args.results)), args.gates):
        noisy = seed % 3 == 2
        with trials.neighbour(seed) if noisy else contextlib.nullcontext():
            entry = trials.one_gate(model, model, seconds=args.max_time, seed=seed)
        note(args.results, entry | {"noisy": noisy})
    found = done(args.results)
    for name, part in (
        ("quiet", [e for e in found if not e["noisy"]]),
        ("noisy neighbour", [e for e in found if e["noisy"]]),
    ):
        print(f"{name}: {len(part)} gates, {dict(Counter(e['verdict'] for e in part))}")
    counts = Counter(e["verdict"] for e in found)
    print(
        f"FIGURE gates={len(found)} false_fails={counts['fail']} "
        f"false_fail_rate={counts['fail'] / max(1, len(found)):.4f} "
        f"passes={counts['pass']} inconclusive={counts['inconclusive']} "
        f"median_seconds={median(e['seconds'] for e in found):.1f}"
    )


if __name__ == "__main__":
    main()
