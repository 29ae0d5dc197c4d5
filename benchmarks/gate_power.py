"""Power of the gate against 5% more work: a network of 21 equal layers against one of 20.

Each gate is `no_slower_than` the smaller network, at most 30 s, in fresh processes, as `trimtab
gate` runs it. FAIL is the right verdict. An interrupted run continues where it was.

    python benchmarks/gate_power.py [--gates 100] [--max-time 30] [--results FILE]
"""

from __future__ import annotations

from collections import Counter
from statistics import median

import gate_trials


def main() -> None:
    args = gate_trials.options(__doc__, 100, "out/gate_power.jsonl")
    base = gate_trials.network(gate_trials.LAYERS)
    more = gate_trials.network(gate_trials.LAYERS + gate_trials.LAYERS // 20)
    extra = gate_trials.macs(more) / gate_trials.macs(base) - 1
    assert abs(extra - 0.05) < 1e-9, f"the copy holds {extra:.3%} more work, not 5%"
    for seed in range(len(gate_trials.done(args.results)), args.gates):
        entry = gate_trials.one_gate(more, base, seconds=args.max_time, seed=seed)
        gate_trials.note(args.results, entry)
        print(f"{seed + 1}/{args.gates}: {entry}", flush=True)
    found = gate_trials.done(args.results)
    counts = Counter(e["verdict"] for e in found)
    decided = [e["seconds"] for e in found if e["verdict"] == "fail"]
    print(
        f"FIGURE gates={len(found)} extra_macs={extra:.4f} fails={counts['fail']} "
        f"power={counts['fail'] / max(1, len(found)):.3f} passes={counts['pass']} "
        f"inconclusive={counts['inconclusive']} "
        f"median_seconds_to_fail={median(decided) if decided else float('nan'):.1f} "
        f"median_slowdown={1 / median(e['ratio'] for e in found) - 1:.4f}"
    )


if __name__ == "__main__":
    main()
