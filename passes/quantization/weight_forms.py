"""Choice of the form in which each weight is stored: the fewest bits that keep the answers.

Each weight has forms of rising size. All begin in their smallest. Where too little of the float
model's answers is kept, weights take their next form, those first whose rounding costs most for the
bytes that it takes: groups are rounded alone and halved (`group_ranking`), and bisection finds how
many suffice. Of those that were raised the largest are tried in fewer bits again. A network of any
number of weights costs about forty short runs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import onnx_ir as ir

from trimtab.core.context import Context
from trimtab.core.model import Model

from ..graph.edit import assign_float32
from ..graph.stored.stored_weights import Form
from .group_ranking import halved
from .judge import MARGIN_OF_PROMISE, Judge, Verdict

#: Held-out samples that rank groups of weights.
RANKING_SAMPLES = 16
#: Large weights that are tried in fewer bits again, each with this share of the bytes or more.
GIVEN_BACK, LARGE = 12, 0.015

#: Forms of a weight from small to large; None is the float weight.
Ladder = Sequence[Form | None]
Chosen = Mapping[ir.Value, Form | None]


def choose_forms(
    model: Model, ladders: Mapping[ir.Value, Ladder], judge: Judge, promised: float, ctx: Context
) -> tuple[Chosen, Verdict]:
    """Return a form for each weight, the smallest that keep so much, and what they keep.

    Args:
        model: float model, which is not changed.
        ladders: forms of each weight from small to large.
        judge: judge with the float model's answers.
        promised: fidelity to keep, 0 to 1; where weights are chosen by the judge, some more.
        ctx: progress.
    """
    search = _FormSearch(model, ladders, judge, promised, ctx)
    kept = search.kept()
    while kept < promised and (order := search.order()):
        kept = search.climb(order)
    if kept < promised:
        search.kept(fully=True)
    return {value: search.form(value) for value in ladders}, search.verdict


class _FormSearch:
    """Weights and the steps of their ladders that are taken."""

    def __init__(
        self,
        model: Model,
        ladders: Mapping[ir.Value, Ladder],
        judge: Judge,
        promised: float,
        ctx: Context,
    ) -> None:
        self.model, self.ladders, self.judge, self.ctx = model, ladders, judge, ctx
        self.promised = promised
        self.steps = dict.fromkeys(ladders, 0)
        self.verdict = Verdict(0.0, float("inf"))

    def form(self, value: ir.Value, step: int | None = None) -> Form | None:
        """Return the form of a weight at its step, or at another."""
        return self.ladders[value][self.steps[value] if step is None else step]

    def kept(self, *, fully: bool = False) -> float:
        """Judge the steps that are taken; only until too little is kept unless `fully`."""
        with stored_as(self.model, {v: self.form(v) for v in self.ladders}):
            self.verdict = self.judge.of(
                self.model, matters=lambda first: fully or first.kept >= self.promised
            )
        raised = sum(step > 0 for step in self.steps.values())
        text = f"{raised} of {len(self.steps)} weights in more bits keep {self.verdict.kept:.3f}"
        self.ctx.progress.say(text)
        return self.verdict.kept

    def climb(self, order: Sequence[ir.Value]) -> float:
        """Take the next step with the first weights that suffice, or with all.

        Returns what is kept. What the judge chose keeps less on other samples: so it has to keep
        more here, or to have so small a loss that few decisions can turn.
        """
        promised = self.promised
        before, bottom = dict(self.steps), self.verdict
        verdicts: dict[int, Verdict] = {}

        def raise_first(count: int) -> Verdict:
            self.steps = before | {v: before[v] + 1 for v in order[:count]}
            if count not in verdicts:
                self.kept()
                verdicts[count] = self.verdict
            self.verdict = verdicts[count]
            return self.verdict

        low, high = 0, len(order)
        most = raise_first(high).kept
        if most < promised:
            return most
        wanted = min(most, promised + MARGIN_OF_PROMISE * (1 - promised))

        def suffices(verdict: Verdict) -> bool:
            by_loss = min(verdict.kept, _expected(verdict, bottom))
            return verdict.kept >= wanted or by_loss >= promised

        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if suffices(raise_first(middle)) else (middle, high)
        raise_first(high)
        self._give_back(order[:high], suffices)
        return self.verdict.kept

    def _give_back(self, raised: Sequence[ir.Value], suffices: Callable[[Verdict], bool]) -> None:
        """Lower large weights again that can do without their last step, the largest first.

        Weights are ranked in groups: one of many bytes may have been raised for its neighbours.
        """
        added = {
            v: self._bytes(v, self.steps[v]) - self._bytes(v, self.steps[v] - 1) for v in raised
        }
        least = LARGE * sum(self._bytes(v, step) for v, step in self.steps.items())
        large = sorted((v for v in raised if added[v] >= least), key=lambda v: -added[v])
        for value in large[:GIVEN_BACK]:
            best = self.verdict
            self.steps[value] -= 1
            self.kept()
            if not suffices(self.verdict):
                self.steps[value] += 1
                self.verdict = best

    def order(self) -> list[ir.Value]:
        """Return the weights that have a next step, those first that cost most for its bytes."""
        open_ = [v for v, ladder in self.ladders.items() if self.steps[v] + 1 < len(ladder)]
        batches = self._ranking_batches()

        def cost_of(start: int, stop: int) -> float:
            with stored_as(self.model, {v: self.form(v) for v in open_[start:stop]}):
                # Of few samples one decision would outweigh all losses.
                return self.judge.of(self.model, batches).loss

        if len(open_) < 2:
            return open_
        parts = halved(len(open_), cost_of, self.ctx.progress, "measuring weights")
        steps = self.steps
        added = [self._bytes(v, steps[v] + 1) - self._bytes(v, steps[v]) for v in open_]
        parts.sort(key=lambda p: (-p.cost / max(sum(added[p.start : p.stop]), 1), p.start))
        return [open_[number] for p in parts for number in range(p.start, p.stop)]

    def _bytes(self, value: ir.Value, step: int) -> int:
        """Return the bytes of a weight in one of its forms."""
        form = self.form(value, step)
        assert value.const_value is not None
        return value.const_value.nbytes if form is None else form.nbytes()

    def _ranking_batches(self) -> int:
        rows = count = 0
        for batch in self.judge.batches:
            if rows >= RANKING_SAMPLES:
                break
            rows, count = rows + batch.size, count + 1
        return count


def _expected(verdict: Verdict, bottom: Verdict) -> float:
    """Return what is kept, as far as the loss tells, by what a larger loss kept.

    Decisions turn where an error exceeds their margin, so about as many as the error is large.
    """
    ratio = verdict.loss / bottom.loss if bottom.loss > 0 else 1.0
    return 1 - (1 - bottom.kept) * math.sqrt(min(ratio, 1.0))


@contextmanager
def stored_as(model: Model, forms: Chosen) -> Iterator[Model]:
    """Give weights of a model the values of their forms for a while."""
    before = {value: value.const_value for value in forms}
    try:
        for value, form in forms.items():
            if form is not None:
                assign_float32(value, form.array())
        yield dataclasses.replace(model)
    finally:
        for value, tensor in before.items():
            value.const_value = tensor
