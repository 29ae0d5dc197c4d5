"""Text of measurements: tables, and a small plot of the distributions for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from trimtab.core.ort.session import SessionConfig
from trimtab.core.text import bytes_text, duration_text, known_duration, table

from ..machine.environment import Environment
from ..stats.percentiles import runs_needed
from .startup import StartupCosts
from .values import Comparison, Measurement

PERCENTILES = (0.5, 0.9, 0.95, 0.99)
SHOWN_NODES = 5
BARS = " ▁▂▃▄▅▆▇█"
MEANING = {"better": "faster", "worse": "slower", "same": "same", "inconclusive": "inconclusive"}


def comparison_lines(comparisons: Sequence[Comparison], *, per_second: bool = False) -> list[str]:
    """Format base and candidates with percentiles, speed-up, interval, verdict, and notes.

    Args:
        comparisons: comparisons of one run, against one base.
        per_second: samples are inverse throughput: show inferences per second.
    """
    first = comparisons[0]
    # Each comparison has the base's runs of its own blocks; the row shows all of them.
    pooled = tuple(ns for c in comparisons for ns in c.base.samples_ns)
    base = replace(first.base, samples_ns=pooled, switches=())
    rows = [[*_cells(base, per_second=per_second), "", "base"]]
    for c in comparisons:
        verdict = "failed" if c.error else MEANING[c.verdict]
        rows.append([*_cells(c.candidate, per_second=per_second), speedup_text(c), verdict])
    header = _header(first.base, per_second=per_second)
    lines = table([*header, "speed-up", "verdict"], rows)
    notes = [f"{c.candidate.model}: {c.error}" for c in comparisons if c.error]
    if first.interrupted:
        notes.append("interrupted: this is what was measured until then")
    if not first.renewed:
        notes.append(
            f"{'sessions' if base.config else 'processes'} take too long to start anew for each "
            f"block: differences within {first.resolution:.1%} may come from where their memory "
            "lies; a longer --max-time averages it"
        )
    notes += [text for c in comparisons if (text := witness_text(c))]
    blocks = ", ".join(str(c.blocks) for c in comparisons)
    level = 1 - first.alpha * len(comparisons)
    notes.append(
        f"{blocks} blocks; all intervals hold together at {level:.2%}; "
        f"same means within {first.resolution:.1%}"
    )
    return [*lines, *notes, *_environment_lines([first.base, *(c.candidate for c in comparisons)])]


def witness_text(comparison: Comparison) -> str:
    """Return what a run costs the processor relative to the base; "" where the clock decides.

    Waiting for a processor costs none, so this stands where other work blurs the times. It decides
    nothing: fewer instructions may take longer.
    """
    base, candidate = comparison.base, comparison.candidate
    quiet = base.noise_check.fit and candidate.noise_check.fit
    if comparison.verdict != "inconclusive" and quiet:
        return ""
    costs = [
        f"{mine / other:.2f} of the {name}"
        for name, mine, other in (
            ("CPU time", candidate.cpu_ns, base.cpu_ns),
            ("instructions", candidate.instructions, base.instructions),
        )
        if mine and other
    ]
    if not costs:
        return ""
    return (
        f"second witness: a run of {candidate.model} takes {' and '.join(costs)} of one of the base"
    )


def measurement_lines(found: Sequence[Measurement], *, per_second: bool = False) -> list[str]:
    """Format models side by side, without a verdict."""
    header = _header(found[0], per_second=per_second)
    lines = table(header, [_cells(m, per_second=per_second) for m in found])
    if any(m.interrupted for m in found):
        lines.append("interrupted: this is what was measured until then")
    return [*lines, *_environment_lines(found)]


@dataclass(frozen=True)
class SweepRow:
    """A measurement with its setting.

    Attributes:
        measurement: its samples are times per inference of a burst where there are `callers`.
        threads: intra-op threads of each session.
        batch: rows of a run.
        callers: callers that run at once.
    """

    measurement: Measurement
    threads: int = 1
    batch: int = 1
    callers: int = 1

    @property
    def latency_ns(self) -> float | None:
        """Median time until a caller has its answer; None with too few runs."""
        each = self.measurement.median_ns
        return None if each is None else each * self.callers

    @property
    def rows_per_second(self) -> float:
        """Rows a second of all callers together; 0 with too few runs."""
        each = self.measurement.median_ns
        return 1e9 * self.batch / each if each else 0.0


SWEEP_HEADER = ("model", "threads", "batch", "callers", "latency", "rows/s")


def sweep_lines(rows: Sequence[SweepRow]) -> list[str]:
    """Format the latency beside the throughput of all settings, and name the best of each."""
    cells, note = sweep_cells(rows)
    return [*table(SWEEP_HEADER, cells), *([note] if note else [])]


def sweep_cells(rows: Sequence[SweepRow]) -> tuple[list[list[str]], str]:
    """Return the cells of all settings under `SWEEP_HEADER`, and a sentence on the best."""
    cells = [
        [
            row.measurement.model,
            *(str(n) for n in (row.threads, row.batch, row.callers)),
            known_duration(row.latency_ns),
            f"{row.rows_per_second:.4g}" if row.rows_per_second else "-",
        ]
        for row in rows
    ]
    known = [row for row in rows if row.latency_ns is not None]
    if not known:
        return cells, ""
    quick = min(known, key=lambda row: row.latency_ns or math.inf)
    many = max(known, key=lambda row: row.rows_per_second)
    return cells, (
        f"lowest latency: {_setting(quick)}; most rows a second: {_setting(many)} "
        "(medians of separate runs, without intervals)"
    )


def _setting(row: SweepRow) -> str:
    return (
        f"{row.measurement.model} with threads {row.threads}, batch {row.batch}, "
        f"callers {row.callers}"
    )


def speedup_text(comparison: Comparison) -> str:
    """Format `1.52x [1.48, 1.56]`; `[?, ?]` while there are too few blocks for an interval."""
    if math.isnan(comparison.ratio):
        return "-"
    if not math.isfinite(comparison.high) or comparison.low == 0:
        return f"{comparison.ratio:.2f}x [?, ?]"
    digits = 3 if comparison.high - comparison.low < 0.02 else 2
    value, low, high = (
        f"{v:.{digits}f}" for v in (comparison.ratio, comparison.low, comparison.high)
    )
    return f"{value}x [{low}, {high}]"


def placement_lines(measurement: Measurement) -> list[str]:
    """Format the providers of a model's nodes, and the time of copying its tensors."""
    placement = measurement.placement
    if placement is None:
        return []
    total, on = sum(placement.nodes.values()), placement.nodes.get(placement.provider, 0)
    ran = f"{on} of {total} nodes on {placement.provider}" if total else "nodes unknown"
    graph = ", as one CUDA graph" if placement.cuda_graph else ""
    lines = [f"{measurement.model}: {ran}{graph}"]
    if placement.elsewhere:
        more = ", ..." if len(placement.elsewhere) > SHOWN_NODES else ""
        lines.append(f"  elsewhere: {', '.join(placement.elsewhere[:SHOWN_NODES])}{more}")
    to, back = placement.median_in_ns, placement.median_out_ns
    if to is None or back is None:
        lines.append("  tensors in host memory: a run holds the provider's own copies")
    else:
        lines.append(
            f"  not in the times: {bytes_text(placement.in_bytes)} in {duration_text(to)} to the "
            f"device, {bytes_text(placement.out_bytes)} in {duration_text(back)} back (medians)"
        )
    return lines


def _clock(measurement: Measurement) -> str:
    facts = measurement.noise_check.facts
    if "gpu_clock" not in facts:
        return ""
    most = f" of {facts['gpu_clock_most']:.0f}" if "gpu_clock_most" in facts else ""
    return f", at {facts['gpu_clock']:.0f}{most} MHz at the end"


def startup_lines(costs: Sequence[StartupCosts]) -> list[str]:
    """Format the startup costs of each model."""
    rows = [
        [
            c.model,
            bytes_text(c.size_bytes),
            duration_text(c.median_load_ns),
            duration_text(c.median_first_ns),
            bytes_text(c.median_peak_bytes),
            "-" if c.arena_bytes is None else bytes_text(c.arena_bytes),
        ]
        for c in costs
    ]
    runs = len(costs[0].load_ns)
    processes = f"{runs} fresh process{'' if runs == 1 else 'es'}"
    note = (
        f"medians of {processes}; memory above the runtime's own; "
        "arena: memory that a session without it saves at its peak"
    )
    return [*table(["model", "size", "load", "first run", "peak memory", "arena"], rows), note]


def plot_lines(found: Sequence[Measurement], width: int = 60) -> list[str]:
    """Draw a histogram line per model on a common logarithmic axis, p0.5 to p99.5 of all runs."""
    shown = [m for m in found if m.samples_ns]
    if not shown:
        return []
    logs = [np.log(np.maximum(1, np.asarray(m.samples_ns, float))) for m in shown]
    low, high = np.quantile(np.concatenate(logs), [0.005, 0.995])
    edges = np.linspace(low, max(high, low + 1e-3), width + 1)
    lines = []
    for values, measurement in zip(logs, shown, strict=True):
        counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
        # Square roots keep the tail visible beside the mode; every bin with a run gets a mark.
        levels = np.ceil(np.sqrt(counts / max(1, counts.max())) * (len(BARS) - 1)).astype(int)
        lines.append("".join(BARS[n] for n in levels) + f"  {measurement.model}")
    left, right = duration_text(math.exp(edges[0])), duration_text(math.exp(edges[-1]))
    return [*lines, left + right.rjust(width - len(left))]


def _header(first: Measurement, *, per_second: bool) -> list[str]:
    start = ["program"] if first.config is None else ["model", "size"]
    if per_second:
        return [*start, "inferences/s", "slowest tenth"]
    return [*start, *(f"p{q * 100:g}" for q in PERCENTILES)]


def _cells(measurement: Measurement, *, per_second: bool) -> list[str]:
    start = [measurement.model]
    if measurement.config is not None:
        start.append(bytes_text(measurement.size_bytes))
    if per_second:
        return start + [_rate(measurement.percentile_ns(q)) for q in (0.5, 0.9)]
    values = [measurement.percentile_ns(q) for q in PERCENTILES]
    return start + ["-" if ns is None else duration_text(ns) for ns in values]


def _rate(ns: float | None) -> str:
    return "-" if not ns else f"{1e9 / ns:.4g}"


def _runtime_line(env: Environment, configs: Sequence[SessionConfig | None]) -> str:
    config = configs[0]
    if config is None:
        return f"{env.cpu}, {env.cpus} CPUs; whole runs of programs, as their caller sees them"
    spin = "spin" if config.spinning else "do not spin (onnxruntime's own default: they do)"
    providers = ", ".join(dict.fromkeys(c.provider for c in configs if c is not None))
    return (
        f"{env.cpu}, {config.threads} of {env.cpus} CPUs, {providers}, "
        f"onnxruntime {env.onnxruntime}; idle threads {spin}"
    )


def _environment_lines(found: Sequence[Measurement]) -> list[str]:
    first = found[0]
    env = first.environment
    fewest = min((len(m.samples_ns) for m in found if m.samples_ns), default=0)
    unsupported = [q for q in PERCENTILES if runs_needed(q) > fewest]
    lines = []
    if unsupported:
        needs = ", ".join(f"p{q * 100:g} {runs_needed(q)}" for q in unsupported)
        lines.append(f"-: too few runs to support it ({fewest}; needed: {needs})")
    lines.append(_runtime_line(env, [m.config for m in found]))
    if env.gpu:
        lines.append(f"{env.gpu}, driver {env.driver}{_clock(first)}")
    lines += [f"input {name}: {shape}" for name, shape in first.inputs.items()]
    lines += [line for m in found for line in placement_lines(m)]
    unfit = next((m.noise_check for m in found if not m.noise_check.fit), None)
    if unfit is not None:
        lines.append("noisy machine: trust the ratios, not the absolute times")
        lines += [f"  {reason}" for reason in unfit.reasons]
    return lines
