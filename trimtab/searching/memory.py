"""Peak memory of candidates, in fresh processes, where a constraint asks for it."""

from __future__ import annotations

from dataclasses import replace

from trimtab.core.context import Context
from trimtab.core.errors import TrimtabError
from trimtab.core.session import Feeds, SessionConfig
from trimtab.result import Result

from .maker import machine_class
from .store import Store, key_of


def with_memory(result: Result, feeds: Feeds, ctx: Context, store: Store) -> Result:
    """The result with the largest peak of three processes, or with the failure to run them."""
    from trimtab.runtime_bench.card import card

    if result.model is None:
        return result
    model, config = result.model, SessionConfig.of(ctx.target)
    key = key_of(
        "memory",
        model=model.digest,
        inputs={n: [list(a.shape), str(a.dtype)] for n, a in feeds.items()},
        config=config.to_json(),
        machine=machine_class(),
    )
    try:
        peak = store.value(key, lambda: float(max(card(model, feeds, config).peak_bytes)))
    except TrimtabError as error:
        return replace(result, failure=str(error))
    return replace(result, rss_bytes=peak)
