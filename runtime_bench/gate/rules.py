"""The gate: from measured facts to a verdict on each budget. Pure functions, nothing runs here.

    ratio   the e-process of `stats.e_process`: broken once "slower than the limit" is proved, held
            once "within the resolution of the limit" is; see `Gate.resolution`.
    tail    the exact binomial test of the runs over the limit (`stats.percentiles`).
    start   the same test at the median, over fresh processes.

An absolute latency measures the machine as well: such a budget can be held on any machine, but
broken only on a quiet one; elsewhere the verdict is inconclusive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from trimtab.core.errors import BudgetError, InconclusiveError, UnfitMachineError
from trimtab.core.metric import Quality
from trimtab.core.ort.int8_share import FLOAT_OPS, INT8_OPS
from trimtab.core.text import counted

from ..bench.budgets import Budget, Gate, ratio_verdict, slowest_allowed
from ..machine.noise_check import NoiseCheck
from ..stats.e_process import PairedTest
from ..stats.percentiles import PercentileTest, fewest_runs, percentile_test
from ..stats.verdict import LimitVerdict
from .verdicts import BudgetVerdict, GateFacts

OnInconclusive = Literal["report", "fail", "pass"]
#: Bound on the probability that any statistical budget of a run gets a wrong verdict.
ALPHA = 0.01


def judge(gate: Gate, facts: GateFacts, *, alpha: float) -> list[BudgetVerdict]:
    """Return the verdict on each budget of a gate.

    The alpha of each statistical budget is the error rate of the run, divided by their number.
    """
    verdicts = [_verdict_on(budget, gate, facts, alpha) for budget in gate.budgets]
    cut = {"inconclusive": " (interrupted)"} if facts.interrupted else {}
    return [replace(r, evidence=r.evidence + cut.get(r.verdict, "")) for r in verdicts]


def _verdict_on(budget: Budget, gate: Gate, facts: GateFacts, alpha: float) -> BudgetVerdict:
    if facts.broken and budget.kind not in {"size", "share"}:
        return BudgetVerdict(budget, "fail", f"the {gate.subject} cannot be run: {facts.broken}")
    if budget.kind in facts.failures:
        return BudgetVerdict(budget, "inconclusive", f"not measured: {facts.failures[budget.kind]}")
    return _RULES[budget.kind](budget, gate, facts, alpha)


def _ratio(budget: Budget, gate: Gate, facts: GateFacts, alpha: float) -> BudgetVerdict:
    found = facts.comparisons.get(budget.against)
    if found is None:
        return _unmeasured(budget)
    if found.error is not None:
        return BudgetVerdict(budget, "inconclusive", f"{found.error}")
    verdict = ratio_verdict(PairedTest.of(found.log_ratios), budget, alpha, gate.resolution)
    least = math.exp(slowest_allowed(budget))
    name = Path(budget.against).name if gate.subject == "model" else budget.against
    estimate = "no estimate" if math.isnan(found.ratio) else f"{found.ratio:.3f}x"
    high = "inf" if math.isinf(found.high) else f"{found.high:.3f}"
    blocks = counted(found.blocks, "block")
    speed = f"{estimate} [{found.low:.3f}, {high}] of {name}'s speed in {blocks}"
    proved = {
        "fail": f"proved below {least:.3g}x",
        "pass": f"proved above {least / (1 + gate.resolution):.3g}x, "
        f"{least:.3g}x less the resolution of {gate.resolution:.0%}",
        "inconclusive": f"{least:.3g}x can neither be proved nor refuted yet; "
        "give more --max-time or a quieter machine",
    }[verdict]
    value = None if math.isnan(found.ratio) else found.ratio
    evidence = f"{speed}: {proved}"
    return BudgetVerdict(budget, verdict, evidence, value, found.low, found.high)


def _percentile(budget: Budget, gate: Gate, facts: GateFacts, alpha: float) -> BudgetVerdict:  # noqa: ARG001
    solo = facts.solo
    if solo is None:
        return _unmeasured(budget)
    samples = solo.quiet_ns if budget.quiet else solo.samples_ns
    test = percentile_test(samples, budget.limit, quantile=budget.quantile, alpha=alpha)
    value = solo.median_ns if budget.quantile == 0.5 else None
    if not budget.quiet and budget.quantile != 0.5:
        value = solo.percentile_ns(budget.quantile)
    estimate = "" if value is None else f"{budget.value_text(value)}; "
    over = f"{test.over} of {test.runs} runs over {budget.text}"
    allowed = f"{1 - budget.quantile:.2g} of them may be"
    evidence = f"{estimate}{over}, {allowed}"
    return _timed(budget, test, alpha, evidence=evidence, noise_check=solo.noise_check, value=value)


def _start(budget: Budget, gate: Gate, facts: GateFacts, alpha: float) -> BudgetVerdict:  # noqa: ARG001
    if facts.startup_costs is None:
        return _unmeasured(budget)
    load = budget.name == "load"
    samples = facts.startup_costs.load_ns if load else facts.startup_costs.first_ns
    value = facts.startup_costs.median_load_ns if load else facts.startup_costs.median_first_ns
    test = percentile_test(samples, budget.limit, quantile=0.5, alpha=alpha)
    counted = f"{test.over} of {test.runs} fresh processes over {budget.text}"
    evidence = f"median {budget.value_text(value)}; {counted}"
    noise_check = facts.startup_noise_check
    return _timed(budget, test, alpha, evidence=evidence, noise_check=noise_check, value=value)


def _timed(
    budget: Budget,
    test: PercentileTest,
    alpha: float,
    *,
    evidence: str,
    noise_check: NoiseCheck,
    value: float | None,
) -> BudgetVerdict:
    """Return the verdict on an absolute time: broken only where the machine was quiet."""
    if test.verdict == "pass":
        return BudgetVerdict(budget, "pass", evidence, value)
    if test.verdict == "fail" and noise_check.fit:
        return BudgetVerdict(budget, "fail", evidence, value)
    needed = fewest_runs(budget.quantile, alpha)
    if test.runs < needed:
        why = f"{evidence}; {needed} runs are needed, give more --max-time"
        return BudgetVerdict(budget, "inconclusive", why, value)
    if not noise_check.fit:
        why = f"{evidence}; proves nothing here: {'; '.join(noise_check.reasons)}"
        return BudgetVerdict(budget, "inconclusive", why, value, unfit=True)
    return BudgetVerdict(budget, "inconclusive", f"{evidence}; too close to tell yet", value)


def _memory(budget: Budget, gate: Gate, facts: GateFacts, alpha: float) -> BudgetVerdict:  # noqa: ARG001
    if facts.startup_costs is None:
        return _unmeasured(budget)
    peaks = facts.startup_costs.peak_bytes
    low, high = float(min(peaks)), float(max(peaks))
    span = f"{budget.value_text(low)} to {budget.value_text(high)} in {len(peaks)} fresh processes"
    verdict: LimitVerdict = (
        "pass" if high <= budget.limit else "fail" if low > budget.limit else "inconclusive"
    )
    evidence, median = f"peak {span} above the runtime's own", facts.startup_costs.median_peak_bytes
    return BudgetVerdict(budget, verdict, evidence, median, low, high)


def _size(budget: Budget, gate: Gate, facts: GateFacts, alpha: float) -> BudgetVerdict:  # noqa: ARG001
    if facts.size_bytes is None:
        return _unmeasured(budget)
    held = facts.size_bytes <= budget.limit
    shown = budget.value_text(facts.size_bytes)
    evidence = f"{shown} ({facts.size_bytes} bytes), external data included"
    return BudgetVerdict(budget, "pass" if held else "fail", evidence, float(facts.size_bytes))


def _quality(budget: Budget, gate: Gate, facts: GateFacts, alpha: float) -> BudgetVerdict:  # noqa: ARG001
    if facts.quality is None:
        return _unmeasured(budget)
    mine, base = _of_metric(budget, *facts.quality)
    drop, _ = mine.drop_from(base)
    evidence = (
        f"{mine.metric} {mine.value:.4f} against {base.value:.4f}: "
        f"{mine.drop_text(base)} on {counted(mine.count, 'item')}"
    )
    # Sums of many scores differ in the last bits with their order.
    held = drop <= budget.limit + 1e-12
    return BudgetVerdict(budget, "pass" if held else "fail", evidence, drop)


def _of_metric(budget: Budget, mine: Quality, base: Quality) -> tuple[Quality, Quality]:
    """Return both qualities by the metric that the budget names."""
    pairs = zip((mine, *mine.others), (base, *base.others), strict=True)
    named = [(a, b) for a, b in pairs if budget.metric in {a.spec, a.metric}]
    return named[0] if named else (mine, base)


def _share(budget: Budget, gate: Gate, facts: GateFacts, alpha: float) -> BudgetVerdict:  # noqa: ARG001
    share = facts.share
    if share is None:
        return _unmeasured(budget)
    names = ", ".join(share.float_nodes[:4]) + (" ..." if len(share.float_nodes) > 4 else "")
    rest = f"; float: {names}; see `trimtab doctor {gate.model}`" if share.float_nodes else ""
    evidence = (
        f"{share.int8_share:.1%} of the multiply-accumulates in {share.int8_ops} int8 nodes, "
        f"{counted(share.leftover_qdq, 'conversion')} left{rest}"
    )
    held = share.int8_share >= budget.limit
    return BudgetVerdict(budget, "pass" if held else "fail", evidence, share.int8_share)


def _provider(budget: Budget, gate: Gate, facts: GateFacts, alpha: float) -> BudgetVerdict:  # noqa: ARG001
    """Require matrix products and convolutions there; shape arithmetic belongs on the CPU."""
    if facts.providers is None:
        return _unmeasured(budget)
    if not facts.providers:
        why = facts.failures.get("tail") or f"{budget.against} is not installed here"
        return BudgetVerdict(budget, "fail", why, 0.0)
    products = FLOAT_OPS | INT8_OPS
    counted = {
        name: (sum(n for op, n in ops.items() if op in products), sum(ops.values()))
        for name, ops in facts.providers.items()
    }
    column = 0 if any(made for made, _ in counted.values()) else 1
    here = counted.get(budget.against, (0, 0))[column]
    total = sum(pair[column] for pair in counted.values())
    nodes = ", ".join(
        f"{name} {made} of {every}" for name, (made, every) in sorted(counted.items())
    )
    held = total > 0 and here == total
    evidence = f"products among nodes, by provider: {nodes}"
    return BudgetVerdict(budget, "pass" if held else "fail", evidence, here / max(1, total))


def _unmeasured(budget: Budget) -> BudgetVerdict:
    return BudgetVerdict(budget, "inconclusive", "was not measured")


_RULES: dict[str, Callable[[Budget, Gate, GateFacts, float], BudgetVerdict]] = {
    "ratio": _ratio,
    "tail": _percentile,
    "start": _start,
    "memory": _memory,
    "size": _size,
    "quality": _quality,
    "share": _share,
    "provider": _provider,
}


def exit_code(verdicts: Sequence[BudgetVerdict], on_inconclusive: OnInconclusive = "report") -> int:
    """Return 0 if all held, 1 if any is broken, 3 if undecided, 4 if only the machine is why."""
    if any(r.verdict == "fail" for r in verdicts):
        return BudgetError.exit_code
    undecided = [r for r in verdicts if r.verdict == "inconclusive"]
    if not undecided or on_inconclusive == "pass":
        return 0
    if on_inconclusive == "fail":
        return BudgetError.exit_code
    unfit = all(r.unfit for r in undecided)
    return UnfitMachineError.exit_code if unfit else InconclusiveError.exit_code


def overall(verdicts: Sequence[BudgetVerdict]) -> LimitVerdict:
    """Return the worst of the verdicts."""
    order: tuple[LimitVerdict, ...] = ("pass", "inconclusive", "fail")
    return max((r.verdict for r in verdicts), key=order.index, default="pass")
