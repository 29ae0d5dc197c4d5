"""First lines of a search: what it will try, how long that takes, and what is in the way."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence

from trimtab.core.alike import alike
from trimtab.core.dataset import Dataset
from trimtab.core.metric import Metric, evaluate
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig
from trimtab.core.runner import Runner
from trimtab.core.target import usable_cpus
from trimtab.core.text import seconds_text
from trimtab.runtime_bench.machine.quiet import other_work

from ..loss import items_needed, predicted_error, resolves
from ..splits import Splits
from ..time_budget import TimeBudget

#: Items on which the speed of an evaluation is measured.
SAMPLE = 64
#: Metrics whose items are right or wrong, so that their error can be told beforehand.
RIGHT_OR_WRONG = frozenset({"exact", "top1", "top5", "agreement"})
#: Packages that a search can do without, and what is missing without them.
EXTRAS = (
    ("vl_convert", "report", "report.html is not written"),
    ("onnxsim", "optimize", "graphs are simplified less"),
)
#: Evaluations of both splits for which a search with a time limit keeps this share of the time.
EVALUATIONS, EVALUATING = 4, 0.4
#: Fewest items of a split that time may leave.
LEAST_ITEMS = 32


def seconds_an_item(
    model: Model, data: Dataset, metric: Metric, runner: Runner | None = None
) -> float:
    """Return the seconds of evaluating the original on one item, from a short evaluation."""
    config = SessionConfig(threads=usable_cpus())

    def timed(items: int) -> tuple[float, int]:
        start, few = time.monotonic(), data.take(items)
        found = evaluate(model, few, metric, reference=model, config=config, runner=runner)
        return time.monotonic() - start, max(1, found.count)

    (once, few), (both, more) = timed(SAMPLE // 2), timed(SAMPLE)
    if more <= few:
        return both / more
    return max(both - once, both / 10) / (more - few)


def share_in_time(splits: Splits, item_s: float, budget: TimeBudget) -> float:
    """Return the share of selection and test that a time limit leaves time to evaluate; 1 for all.

    Each split keeps at least `LEAST_ITEMS`.
    """
    items = len(splits.selection) + len(splits.test)
    if budget.seconds is None or not items:
        return 1.0
    share = EVALUATING * budget.seconds / (EVALUATIONS * items * item_s)
    least = LEAST_ITEMS / max(1, min(len(splits.selection), len(splits.test)))
    return min(1.0, max(share, least))


def data_line(splits: Splits, metric: Metric, limit: float) -> str:
    """Return what the data can resolve, in one sentence."""
    chosen, confirmed = len(splits.selection), len(splits.test)
    text = f"{chosen} items choose, {confirmed} confirm, {len(splits.calibration)} calibrate"
    if metric.name in RIGHT_OR_WRONG:
        error = predicted_error(limit, confirmed)
        text += (
            f": a drop of {limit:g} is {limit * confirmed:.1f} of those that confirm, its standard "
            f"error is about {error:.2g}"
        )
    if resolves(limit, chosen + confirmed):
        return text + "."
    needed = items_needed(limit)
    more = f" {needed} items of evaluation data would tell." if needed else ""
    return (
        f"{text}. Too few for one part to tell it from one and a half times as much, so both "
        f"decide together, and answers are compared with the float model's on all rows.{more}"
    )


def alike_lines(splits: Splits) -> list[str]:
    """Return a warning of each source of rows that are alike."""
    parts = {part.spec: part for part in (splits.test, splits.calibration)}
    return [f"Warning: {spec}: {how}." for spec, part in parts.items() if (how := alike(part))]


def plan_line(names: Sequence[str], seconds: tuple[float, float], budget: TimeBudget) -> str:
    """Return what will be tried, and how long that takes."""
    least, most = (min(s, budget.seconds or s) for s in seconds)
    limit = "" if budget.seconds is None else f", at most {seconds_text(budget.seconds)} (--time)"
    span = seconds_text(least)
    span += "" if seconds_text(most) == span else f" to {seconds_text(most)}"
    return f"Will try {', '.join(names)}; about {span}{limit}."


def obstacles(*, trains: bool, measures: bool) -> list[str]:
    """Return what is in the way of a good answer: other work, missing packages."""
    found = []
    work = other_work() if measures else ""
    if work:
        found.append(f"{work}: intervals get wide, and confirming takes longer")
    missing = [*EXTRAS, *([("torch", "torch", "nothing is trained")] if trains else [])]
    for module, extra, without in missing:
        if importlib.util.find_spec(module) is None:
            found.append(f"{without}: pip install 'trimtab[{extra}]'")
    return found
