"""Advice at the end of a search: what to do for a better answer, in one sentence."""

from __future__ import annotations

from trimtab.core.context import Ratio
from trimtab.core.text import seconds_text

from .loss import items_needed
from .ranking import speedup
from .result import Result
from .run import Search

#: Speed-up where none is known.
NONE = Ratio(1.0, 1.0, 1.0)
#: Times as long as before, where time was short.
LONGER = 2.0


def advice(search: Search, chosen: Result | None) -> str:
    """Return what would give a better answer: of several ways the one that matters most."""
    ways = [*_of_speed(search, chosen), *_of_data(search, chosen), *_of_time(search)]
    if not ways and search.spent.budget.train_seconds is None and chosen is not None:
        ways = ["train what pruning cuts: --train 10m"]
    return f"For a better answer: {ways[0]}." if ways else "Nothing is left open."


def _of_speed(search: Search, chosen: Result | None) -> list[str]:
    doubtful = [r for r in search.results if r.standing == "open"]
    if not doubtful:
        return []
    names = ", ".join(r.name for r in doubtful)
    known = "faster in the search, not settled in the confirmation"
    proved = chosen in doubtful and chosen is not None and (speedup(chosen) or NONE).faster
    what = f"{names} is {known}" if proved else f"the speed of {names} is not settled"
    return [f"{what}: give {_more_time(search)}, or measure on a quiet machine (--quiet-for 5m)"]


def _of_data(search: Search, chosen: Result | None) -> list[str]:
    limit = search.constraints.max_drop
    splits, needed = search.evaluator.splits, items_needed(limit)
    refused = [r for r in search.results if r.loss is not None and r is not chosen]
    doubted = any(r.loss is not None and r.loss.verdict == "not settled" for r in refused)
    unsure = chosen is not None and chosen.loss is not None and chosen.loss.verdict != "held"
    items = len(splits.selection) + len(splits.test)
    if not (doubted or unsure):
        return []
    if needed > items:
        return [f"give {needed} items of evaluation data ({items} now): a drop of {limit:g} shows"]
    return ["give more evaluation data: the loss is within its error of the limit"]


def _of_time(search: Search) -> list[str]:
    if not search.cut_short:
        return []
    names = list(dict.fromkeys(search.cut_short))
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return [f"give {_more_time(search)}: none was left for {', '.join(names[:2])}{more}"]


def _more_time(search: Search) -> str:
    seconds = LONGER * (search.spent.budget.seconds or search.spent.gone_s)
    return f"--time {seconds_text(seconds).removesuffix('in').replace(' ', '')}"
