"""Power of the gate against 5% more work: a network of 21 equal layers against one of 20.

Each gate is `no_slower_than` the smaller network, at most 30 s, in fresh processes, as `trimtab
gate` runs it. FAIL is the right verdict. An interrupted run continues where it was.

    python benchmarks/gate/power.py [--gates 100] [--max-time 30] [--results FILE]
"""

from __future__ import annotations

from collections import Counter
from statistics import median

import trials
from common.journal import done, note


def main() -> None:
    args = trials.options(__doc__, 100, "out/gate_power.jsonl")
    base = trials.network(trials.LAYERS)
    more = trials.network(trials.LAYERS + trials.LAYERS // 20)
    extra = trials.products(more) / trials.products(base) - 1
    assert abs(extra - 0.05) < 1e-9, f"the copy holds {extra:.3%} more work, not 5%"
    for seed in range(len(done(args.results)), args.gates):
        note(args.results, trials.one_gate(more, base, seconds=args.max_time, seed=seed))
    found = done(args.results)
    counts = Counter(e["verdict"] for e in found)
    decided = [e["seconds"] for e in found if e["verdict"] == "fail"]
    print(
        f"FIGURE gates={len(found)} extra_work={extra:.4f} fails={counts['fail']} "
        f"power={counts['fail'] / max(1, len(found)):.3f} passes={counts['pass']} "
        f"inconclusive={counts['inconclusive']} "
        f"median_seconds_to_fail={median(decided) if decided else float('nan'):.1f} "
        f"median_slowdown={1 / median(e['ratio'] for e in found) - 1:.4f}"
    )


if __name__ == "__main__":
    main()
