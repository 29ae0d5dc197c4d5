"""Quality of candidates: a sequential test on the selection split, then the test split."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trimtab.core.batches import in_runs
from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import LostError, OptionError, TrimtabError
from trimtab.core.metric import Metric, Quality, bootstrap_values, evaluate
from trimtab.core.metrics.metric import OutputQuality
from trimtab.core.model import Model
from trimtab.core.ort.engines import Engine
from trimtab.core.ort.inventory import package_of
from trimtab.core.ort.session import Feeds, SessionConfig, available_providers
from trimtab.core.runner import OnEngineBeside, Remembering, Runner
from trimtab.core.target import usable_cpus

from .result import Constraints, Result
from .sequential_test import clearly_above, loses
from .splits import Splits
from .store import ResultStore, key_of, source_of

#: Probability that any candidate is dropped although its loss is within the allowed drop.
ALPHA = 0.01
#: Candidates that share this error rate.
CANDIDATES = 40
#: Shares of the selection split after which a candidate is tested.
LOOKS = (0.1, 0.25, 0.5, 1.0)
#: Fewer items than this are evaluated at once: a look would save nothing.
FEWEST = 200
#: Largest difference of two scores of an item, by metric.
SPREADS = {"exact": 1.0, "top1": 1.0, "top5": 1.0, "agreement": 1.0, "cosine": 2.0}
#: Resamples of a metric that is not a mean over items.
RESAMPLES = 60


@dataclass(frozen=True, eq=False)
class Evaluator:
    """Evaluator of candidates on the selection split, and of survivors on the test split.

    Attributes:
        original: the float model that drops are measured against.
        splits: splits of the data.
        metric: metric of quality; higher is better.
        constraints: limits, with the allowed drop.
        ctx: target, seed, progress.
        store: qualities evaluated so far.
        engine: engine of the candidates; None for the target's own, which the original has.
    """

    original: Model
    splits: Splits
    metric: Metric
    constraints: Constraints
    ctx: Context
    store: ResultStore
    engine: Engine | None = None

    def on(self, result: Result) -> Evaluator:
        """Return the evaluator of a candidate, which runs where the candidate does."""
        if result.engine is None or self.engine is not None:
            return self
        return replace(self, engine=Engine.of(result.engine))

    @functools.cached_property
    def base(self) -> Quality:
        """Quality of the original on the selection split.

        Raises:
            TrimtabError: it cannot be evaluated, which only the user can fix.
        """
        return self._stored(self.original, self.splits.selection, "base", self._all_looks)

    def evaluated(self, result: Result) -> Result:
        """Return a result with its quality on the selection split, or the share that sufficed."""
        if result.model is None:
            return result
        if (there := self.on(result)) is not self:
            return there.evaluated(result)
        model, base = result.model, self.base
        try:
            if self.is_exact(result) and self._same_scores(model, base):
                return replace(result, selection=base)
            found, why = self._tested(model, base)
        except LostError:
            raise  # the candidate is not to blame, and the next one would fail too
        except TrimtabError as error:
            return replace(result, failure=str(error))
        return replace(result, selection=found, dropped=why)

    def confirmed(self, result: Result) -> Result:
        """Return a result with its quality on the test split."""
        if result.model is None or result.failure or result.test is not None:
            return result
        if (there := self.on(result)) is not self:
            return there.confirmed(result)
        return replace(result, test=self._stored(result.model, self.splits.test, "test"))

    def quality(self, model: Model, data: Dataset) -> Quality:
        """Compute the metric of a model on some data, on all CPUs: a metric depends on no time."""
        target = self.ctx.target
        config = SessionConfig.for_evaluation(target, usable_cpus())
        if target.isa == "gpu" and target.provider in available_providers():
            config = SessionConfig(provider=target.provider, threads=usable_cpus())
        return evaluate(
            model,
            data,
            self.metric,
            reference=self.original,
            config=config,
            progress=self.ctx.progress,
            runner=self.runner,
        )

    @functools.cached_property
    def runner(self) -> Runner:
        """Runner of candidates, and of the original, which runs once on each data."""
        once = Remembering(self.original, self.ctx.runner)
        return once if self.engine is None else OnEngineBeside(self.original, self.engine, once)

    def feeds(self, rows: int = 1) -> Feeds:
        """Return rows from the middle of the selection split, as a deployed model gets them.

        Raises:
            OptionError: the model does not take so many at once, or there are fewer.
        """
        part = self.splits.selection
        start = max(0, min(len(part) // 2, len(part) - rows))
        middle = part.select(part.positions[start:][:rows], "one item")
        batch = middle.sized(rows).bind(self.original)
        found = next(iter(in_runs(self.original, batch, rows)))
        if rows > 1 and found.size != rows:
            raise OptionError(
                f"a run takes {found.size} rows of the {len(part)} that choose",
                where=f"--batch {rows}",
                hint="Give more data, or export the model with a dynamic batch",
            )
        return found.feeds

    def chunks(self) -> list[Dataset]:
        """Return the selection split in random order, cut at the looks."""
        part = self.splits.selection
        if len(part) < FEWEST and not part.source.batched:
            return [part]
        order = np.random.default_rng(self.ctx.seed).permutation(part.positions)
        ends = sorted({max(1, round(share * len(order))) for share in LOOKS})
        cuts = zip([0, *ends[:-1]], ends, strict=True)
        return [part.select(np.sort(order[a:b]), part.part) for a, b in cuts]

    def _all_looks(self, model: Model) -> Quality:
        if not self._by_item:
            return self.quality(model, self.splits.selection)
        return self._joined([self.quality(model, chunk) for chunk in self.chunks()])

    def _joined(self, qualities: Sequence[Quality]) -> Quality:
        """Join items in the order of the looks, the same for all models: they stay pairs."""
        items = np.concatenate([q.items for q in qualities if q.items is not None])
        count = sum(q.count for q in qualities)
        mean = float(items.mean())
        return replace(qualities[0], value=mean, items=items, count=count, outputs=())

    def is_exact(self, result: Result) -> bool:
        """Return whether every pass that made a result keeps the numbers exactly or is checked.

        Another engine computes otherwise, whatever made the file.
        """
        passes = result.recipe.passes if result.recipe is not None and not result.engine else ()
        return bool(passes) and None not in {p.tolerance for p in passes}

    def _same_scores(self, model: Model, base: Quality) -> bool:
        """Return whether the first look finds the original's score on every item."""
        if not self._by_item or base.items is None:
            return False
        chunk = self.chunks()[0]
        first = self._stored(model, chunk, "look").items
        return first is not None and np.array_equal(first, base.items[: len(first)])

    def _tested(self, model: Model, base: Quality) -> tuple[Quality, str | None]:
        key = self._key(model, self.splits.selection, "race")
        key["max_drop"] = self.constraints.max_drop
        test = self._test_items if self._by_item else self._test_whole
        found = self.store.value(key_of("race", **key), lambda: test(model, base))
        return _quality(found), found["dropped"]

    def _test_items(self, model: Model, base: Quality) -> dict[str, Any]:
        """Look at growing shares; stop as soon as too large a loss is proved."""
        chunks, seen, spread = self.chunks(), list[Quality](), SPREADS.get(self.metric.name)
        limit, alpha = self.constraints.max_drop, ALPHA / CANDIDATES
        for number, chunk in enumerate(chunks, 1):
            seen.append(self.quality(model, chunk))
            joined = self._joined(seen)
            assert joined.items is not None
            assert base.items is not None
            drops = self._sign * (base.items[: len(joined.items)] - joined.items)
            if spread is not None and number < len(chunks) and loses(drops, limit, alpha, spread):
                why = _too_much(float(drops.mean()), len(drops), len(base.items), limit)
                return _plain(joined) | {"dropped": why}
        return _plain(joined) | {"dropped": None}

    def _test_whole(self, model: Model, base: Quality) -> dict[str, Any]:
        """Look at a quarter of the data, by resampling, before all of it."""
        first, limit = self._look, self.constraints.max_drop
        if first is not None:
            drops = self._sign * (self._base_values - self._values(model))
            if clearly_above(drops, limit, ALPHA / CANDIDATES):
                lower = base.value - self._sign * drops[0]
                value = replace(base, value=lower, items=None, count=len(first), outputs=())
                count = len(self.splits.selection)
                return _plain(value) | {"dropped": _too_much(drops[0], len(first), count, limit)}
        return _plain(self.quality(model, self.splits.selection)) | {"dropped": None}

    @property
    def _by_item(self) -> bool:
        """True where scores of items can be joined: one metric alone, a mean over items."""
        return self.metric.itemwise and not self.metric.others

    @property
    def _sign(self) -> int:
        return -1 if self.metric.lower_is_better else 1

    @functools.cached_property
    def _look(self) -> Dataset | None:
        """Part of the selection split that is resampled; None where a look would save nothing."""
        chunks = self.chunks()
        if len(chunks) < 3:
            return None
        rows = np.sort(np.concatenate([c.positions for c in chunks[:2]]))
        return self.splits.selection.select(rows, self.splits.selection.part)

    @functools.cached_property
    def _base_values(self) -> Any:
        return self._values(self.original)

    def _values(self, model: Model) -> Any:
        """Return the metric on the part that is resampled, and on its resamples."""
        assert self._look is not None
        seed = self.ctx.seed
        return bootstrap_values(model, self._look, self.metric, RESAMPLES, seed, self.runner)

    def _stored(
        self, model: Model, data: Dataset, role: str, make: Callable[[Model], Quality] | None = None
    ) -> Quality:
        key = key_of("quality", **self._key(model, data, role))
        make = make or (lambda made: self.quality(made, data))
        return _quality(self.store.value(key, lambda: _plain(make(model))))

    def _key(self, model: Model, data: Dataset, role: str) -> dict[str, Any]:
        where = {"runner": str(self.ctx.runner)} if self.ctx.runner else {}
        if self.engine is not None and model is not self.original:
            where["engine"] = f"{self.engine}, {package_of(self.engine.provider)}"
        return {
            "model": model.digest,
            "original": self.original.digest,
            "data": data.digest,
            "metric": self.metric.text,
            **({"others": [m.text for m in self.metric.others]} if self.metric.others else {}),
            "score": source_of(self.metric.score),
            "provider": self.ctx.target.provider,
            "role": role,
            "seed": self.ctx.seed,
        } | where


def _too_much(drop: float, seen: int, count: int, limit: float) -> str:
    return f"loses {drop:.4f} on {seen} of {count} items, {limit:g} is allowed"


def _plain(quality: Quality) -> dict[str, Any]:
    items = None if quality.items is None else [float(v) for v in quality.items]
    outputs = [output.to_json() for output in quality.outputs]
    others = [_plain(other) for other in quality.others]
    return {**quality.__dict__, "items": items, "outputs": outputs, "others": others}


def _quality(value: Mapping[str, Any]) -> Quality:
    items = None if value["items"] is None else np.asarray(value["items"], np.float64)
    outputs = tuple(OutputQuality(**output) for output in value.get("outputs", ()))
    others = tuple(_quality(other) for other in value.get("others", ()))
    plain = {k: v for k, v in value.items() if k != "dropped"}
    return Quality(**{**plain, "items": items, "outputs": outputs, "others": others})
