"""Peak memory of candidates, in fresh processes, where a constraint asks for it."""

from __future__ import annotations

from dataclasses import replace

from trimtab.core.context import Context
from trimtab.core.errors import TrimtabError
from trimtab.core.ort.session import Feeds, SessionConfig
from trimtab.runtime_bench.bench.bench import Bench, Timing
from trimtab.runtime_bench.multi_device import machine_classes

from ..result import Result
from ..store import ResultStore, key_of, key_of_feeds

#: Fresh processes that are run; the largest peak counts.
PROCESSES = 3


def with_memory(
    result: Result, feeds: Feeds, ctx: Context, store: ResultStore, bench: Bench
) -> Result:
    """Return the result with the largest peak of three processes, or with their failure."""
    if result.model is None:
        return result
    subject, config = result.subject, SessionConfig.of(ctx.target)
    parts = {"model": result.model.digest, "inputs": key_of_feeds(feeds)}
    parts |= {"config": config.to_json()} | ({"engine": result.engine} if result.engine else {})
    key = key_of("memory", **parts, machine=machine_classes(bench))

    def peak_bytes() -> float:
        found, _ = bench.startup_costs(subject, feeds, Timing(config), PROCESSES, arena=False)
        return float(max(found.peak_bytes))

    try:
        peak = store.value(key, peak_bytes)
    except TrimtabError as error:
        return replace(result, failure=str(error))
    return replace(result, rss_bytes=peak)
