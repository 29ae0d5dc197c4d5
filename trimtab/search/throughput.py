"""Throughput as the goal: the load of the measurements, and the table of settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from trimtab.core.errors import TrimtabError
from trimtab.core.ort.session import SessionConfig
from trimtab.core.progress import Silent
from trimtab.core.target import thread_counts
from trimtab.runtime_bench.bench.bench import Bench, Timing
from trimtab.runtime_bench.measure.text import SWEEP_HEADER, SweepRow, sweep_cells

from .evaluator import Evaluator
from .result import Constraints, Result
from .run import Search
from .speed.timing import Load

#: Seconds of each setting of the table.
SECONDS_EACH = 3.0


def load_of(constraints: Constraints, evaluator: Evaluator, bench: Bench) -> Load | None:
    """Return the load of a search whose goal is throughput; None for any other.

    Raises:
        OptionError: the model or the data do not have so many rows.
    """
    if constraints.goal != "throughput":
        return None
    callers = constraints.callers or bench.environment().cpus
    return Load(evaluator.feeds(constraints.batch or 1), callers)


def load_text(search: Search) -> str:
    """Say under which load the times of a search were taken."""
    rows, callers = search.constraints.batch or 1, search.timer.callers
    threads = search.ctx.target.threads
    return (
        f"Goal throughput: times are those of a run of {rows} rows under load, a second over the "
        f"runs a second of {callers} callers at once, with --threads {threads}."
    )


def sweep(search: Search, chosen: Result | None) -> dict[str, Any] | None:
    """Measure original and winner with 1, 2, 4 ... and all threads, one caller and all.

    The medians of short runs, one after the other, as `bench --threads each` takes them; what time
    does not allow is left out.
    """
    timer, found = search.timer, list[SweepRow]()
    if timer.load is None or chosen is None or chosen.model is None or timer.measure is not None:
        return None
    models, names = [timer.original, chosen.subject], ["original", chosen.name]
    rows = search.constraints.batch or 1
    search.log.note("evidence", "latency and throughput with 1, 2, 4 ... and all threads")
    for threads in thread_counts(timer.bench.environment().cpus):
        for callers in sorted({1, timer.callers}):
            if search.spent.evidence_s < 2 * SECONDS_EACH:  # processes start as well
                break
            how = Timing(SessionConfig(threads=threads), SECONDS_EACH, concurrency=callers)
            try:
                taken = timer.bench.measure(models, timer.load.feeds, how, Silent())
            except TrimtabError as error:
                search.log.note("evidence", f"threads {threads}, callers {callers}: {error}")
                continue
            named = [replace(m, model=name) for m, name in zip(taken, names, strict=True)]
            found += [SweepRow(m, threads, rows, callers) for m in named]
    cells, note = sweep_cells(found)
    return {"header": SWEEP_HEADER, "rows": cells, "note": note} if found else None
