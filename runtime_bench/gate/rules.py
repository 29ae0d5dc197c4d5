"""The gate: from measured facts to a ruling on each budget. Pure functions, nothing is run here.

    ratio   the e-process of `statistics`: broken once "slower than the limit" is proved, held once
            "within the resolution of the limit" is; see `Gate.resolution`.
    tail    the exact binomial law of the runs over the limit (`tails`).
    start   the same law at the median, over fresh processes.

A latency in milliseconds measures the machine as well: such a budget can be held anywhere, but
broken only on a machine that was quiet enough, else the ruling is inconclusive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from trimtab.core.errors import BudgetError, InconclusiveError, UnfitMachineError
from trimtab.core.ort.int8_share import FLOAT_OPS, INT8_OPS

from ..bench.budgets import Budget, Gate
from ..machine.noise_check import Fitness
from ..stats.e_process import PairedTest
from ..stats.percentiles import TailTest, tail_test
from .verdicts import Facts, Ruled, Ruling

OnInconclusive = Literal["report", "fail", "pass"]
#: Bound on the probability that any statistical budget of a run is ruled wrongly.
ALPHA = 0.01


def judge(gate: Gate, facts: Facts, *, alpha: float) -> list[Ruling]:
    """The ruling on each budget of a gate.

    Args:
        gate: the budgets.
        facts: what was measured.
        alpha: error rate of each statistical budget, the run's divided by their number.
    """
    rulings = [_rule(budget, gate, facts, alpha) for budget in gate.budgets]
    if not facts.interrupted:
        return rulings
    cut = " (interrupted)"
    return [
        replace(r, evidence=r.evidence + cut) if r.verdict == "inconclusive" else r for r in rulings
    ]


def _rule(budget: Budget, gate: Gate, facts: Facts, alpha: float) -> Ruling:
    if facts.broken and budget.kind not in {"size", "share"}:
        return Ruling(budget, "fail", f"the model cannot be run: {facts.broken}")
    if budget.kind in facts.failures:
        return Ruling(budget, "inconclusive", f"not measured: {facts.failures[budget.kind]}")
    return _JUDGES[budget.kind](budget, gate, facts, alpha)


def slowest_allowed(budget: Budget) -> float:
    """ln(reference / model) at the limit: ln 1.5 for `speedup: 1.5`, -ln 1.02 for 2% tolerance."""
    return math.log(budget.limit) if budget.name == "speedup" else -math.log1p(budget.tolerance)


def ratio_verdict(test: PairedTest, budget: Budget, alpha: float, resolution: float) -> Ruled:
    """Whether the blocks prove the budget broken, or held within the resolution, or neither."""
    limit, boundary = math.log(1 / alpha), slowest_allowed(budget)
    if test.evidence_below(boundary) >= limit:
        return "fail"
    if test.evidence_above(boundary - math.log1p(resolution)) >= limit:
        return "pass"
    return "inconclusive"


def _ratio(budget: Budget, gate: Gate, facts: Facts, alpha: float) -> Ruling:
    found = facts.comparisons.get(budget.against)
    if found is None:
        return _unmeasured(budget)
    if found.error is not None:
        return Ruling(budget, "inconclusive", f"{found.error}")
    verdict = ratio_verdict(PairedTest.of(found.log_ratios), budget, alpha, gate.resolution)
    least = math.exp(slowest_allowed(budget))
    name = Path(budget.against).name
    told = "no estimate" if math.isnan(found.ratio) else f"{found.ratio:.3f}x"
    high = "inf" if math.isinf(found.high) else f"{found.high:.3f}"
    shown = f"{told} [{found.low:.3f}, {high}] of {name}'s speed in {found.blocks} blocks"
    proved = {
        "fail": f"proved below {least:.3g}x",
        "pass": f"proved above {least / (1 + gate.resolution):.3g}x, "
        f"{least:.3g}x less the resolution of {gate.resolution:.0%}",
        "inconclusive": f"{least:.3g}x can neither be proved nor refuted yet; "
        "give more --max-time or a quieter machine",
    }[verdict]
    value = None if math.isnan(found.ratio) else found.ratio
    evidence = f"{shown}: {proved}"
    return Ruling(budget, verdict, evidence, value, found.low, found.high)


def _tail(budget: Budget, gate: Gate, facts: Facts, alpha: float) -> Ruling:  # noqa: ARG001
    solo = facts.solo
    if solo is None:
        return _unmeasured(budget)
    samples = solo.quiet_ns if budget.quiet else solo.samples_ns
    test = tail_test(samples, budget.limit, quantile=budget.quantile, alpha=alpha)
    value = solo.median_ns if budget.quantile == 0.5 else None
    if not budget.quiet and budget.quantile != 0.5:
        value = solo.percentile_ns(budget.quantile)
    estimate = "" if value is None else f"{budget.told(value)}; "
    over = f"{test.over} of {test.runs} runs over {budget.text}"
    allowed = f"{1 - budget.quantile:.2g} of them may be"
    evidence = f"{estimate}{over}, {allowed}"
    return _timed(budget, test, alpha, evidence=evidence, fitness=solo.fitness, value=value)


def _start(budget: Budget, gate: Gate, facts: Facts, alpha: float) -> Ruling:  # noqa: ARG001
    if facts.card is None:
        return _unmeasured(budget)
    load = budget.name == "load"
    samples = facts.card.load_ns if load else facts.card.first_ns
    value = facts.card.median_load_ns if load else facts.card.median_first_ns
    test = tail_test(samples, budget.limit, quantile=0.5, alpha=alpha)
    counted = f"{test.over} of {test.runs} fresh processes over {budget.text}"
    evidence = f"median {budget.told(value)}; {counted}"
    fitness = facts.start_fitness
    return _timed(budget, test, alpha, evidence=evidence, fitness=fitness, value=value)


def _timed(
    budget: Budget,
    test: TailTest,
    alpha: float,
    *,
    evidence: str,
    fitness: Fitness,
    value: float | None,
) -> Ruling:
    """An absolute time: held anywhere, broken only on a machine found quiet enough."""
    if test.verdict == "pass":
        return Ruling(budget, "pass", evidence, value)
    if test.verdict == "fail" and fitness.fit:
        return Ruling(budget, "fail", evidence, value)
    needed = fewest_runs(budget.quantile, alpha)
    if test.runs < needed:
        why = f"{evidence}; {needed} runs are needed, give more --max-time"
        return Ruling(budget, "inconclusive", why, value)
    if not fitness.fit:
        why = f"{evidence}; proves nothing here: {'; '.join(fitness.reasons)}"
        return Ruling(budget, "inconclusive", why, value, unfit=True)
    return Ruling(budget, "inconclusive", f"{evidence}; too close to tell yet", value)


def fewest_runs(quantile: float, alpha: float) -> int:
    """Runs before which no decision is possible: the first look of `tail_test`, q^n <= alpha/2."""
    return math.ceil(math.log(alpha / 2) / math.log(quantile))


def _memory(budget: Budget, gate: Gate, facts: Facts, alpha: float) -> Ruling:  # noqa: ARG001
    if facts.card is None:
        return _unmeasured(budget)
    peaks = facts.card.peak_bytes
    low, high = float(min(peaks)), float(max(peaks))
    span = f"{budget.told(low)} to {budget.told(high)} in {len(peaks)} fresh processes"
    verdict: Ruled = (
        "pass" if high <= budget.limit else "fail" if low > budget.limit else "inconclusive"
    )
    return Ruling(
        budget,
        verdict,
        f"peak {span} above the runtime's own",
        facts.card.median_peak_bytes,
        low,
        high,
    )


def _size(budget: Budget, gate: Gate, facts: Facts, alpha: float) -> Ruling:  # noqa: ARG001
    if facts.size_bytes is None:
        return _unmeasured(budget)
    held = facts.size_bytes <= budget.limit
    evidence = f"{budget.told(facts.size_bytes)} ({facts.size_bytes} bytes), external data included"
    return Ruling(budget, "pass" if held else "fail", evidence, float(facts.size_bytes))


def _quality(budget: Budget, gate: Gate, facts: Facts, alpha: float) -> Ruling:  # noqa: ARG001
    if facts.quality is None:
        return _unmeasured(budget)
    mine, base = facts.quality
    drop, error = mine.drop_from(base)
    spread = "" if error is None else f" +- {error:.4f} (paired)"
    evidence = (
        f"{mine.metric} {mine.value:.4f} against {base.value:.4f}: "
        f"drop {drop:+.4f}{spread} on {mine.count} items"
    )
    # Sums of many scores differ in the last bits with their order.
    held = drop <= budget.limit + 1e-12
    return Ruling(budget, "pass" if held else "fail", evidence, drop)


def _share(budget: Budget, gate: Gate, facts: Facts, alpha: float) -> Ruling:  # noqa: ARG001
    share = facts.share
    if share is None:
        return _unmeasured(budget)
    names = ", ".join(share.float_nodes[:4]) + (" ..." if len(share.float_nodes) > 4 else "")
    rest = f"; float: {names}; see `trimtab doctor {gate.model}`" if share.float_nodes else ""
    evidence = (
        f"{share.int8_share:.1%} of the multiply-accumulates in {share.int8_ops} int8 nodes, "
        f"{share.leftover_qdq} conversions left{rest}"
    )
    held = share.int8_share >= budget.limit
    return Ruling(budget, "pass" if held else "fail", evidence, share.int8_share)


def _provider(budget: Budget, gate: Gate, facts: Facts, alpha: float) -> Ruling:  # noqa: ARG001
    """Held where every product runs there: of the rest, sizes and shapes belong on the CPU."""
    if facts.providers is None:
        return _unmeasured(budget)
    if not facts.providers:
        why = facts.failures.get("tail") or f"{budget.against} is not installed here"
        return Ruling(budget, "fail", why, 0.0)
    products = FLOAT_OPS | INT8_OPS
    counted = {
        name: (sum(n for op, n in ops.items() if op in products), sum(ops.values()))
        for name, ops in facts.providers.items()
    }
    column = 0 if any(made for made, _ in counted.values()) else 1
    here = counted.get(budget.against, (0, 0))[column]
    total = sum(pair[column] for pair in counted.values())
    told = ", ".join(f"{name} {made} of {nodes}" for name, (made, nodes) in sorted(counted.items()))
    held = total > 0 and here == total
    evidence = f"products among nodes, by provider: {told}"
    return Ruling(budget, "pass" if held else "fail", evidence, here / max(1, total))


def _unmeasured(budget: Budget) -> Ruling:
    return Ruling(budget, "inconclusive", "was not measured")


_JUDGES: dict[str, Callable[[Budget, Gate, Facts, float], Ruling]] = {
    "ratio": _ratio,
    "tail": _tail,
    "start": _start,
    "memory": _memory,
    "size": _size,
    "quality": _quality,
    "share": _share,
    "provider": _provider,
}


def exit_code(rulings: Sequence[Ruling], on_inconclusive: OnInconclusive = "report") -> int:
    """0 all held, 1 one broken, 3 undecided, 4 undecided because of the machine alone."""
    if any(r.verdict == "fail" for r in rulings):
        return BudgetError.exit_code
    undecided = [r for r in rulings if r.verdict == "inconclusive"]
    if not undecided or on_inconclusive == "pass":
        return 0
    if on_inconclusive == "fail":
        return BudgetError.exit_code
    unfit = all(r.unfit for r in undecided)
    return UnfitMachineError.exit_code if unfit else InconclusiveError.exit_code


def overall(rulings: Sequence[Ruling]) -> Ruled:
    """The worst of the rulings."""
    for verdict in ("fail", "inconclusive"):
        if any(r.verdict == verdict for r in rulings):
            return verdict
    return "pass"
