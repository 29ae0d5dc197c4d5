"""Choice of the forms of weights: the fewest bits that keep enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from graphs import model_of

from trimtab.core.context import Context
from trimtab.core.model import Model
from trimtab.passes.graph.stored.stored_weights import rounded
from trimtab.passes.quantization.judge import Verdict
from trimtab.passes.quantization.weight_forms import choose_forms

TEXT = """(float[n,64] x) => (float[n,64] y) <float[64,64] a, float[64,64] b, float[64,64] c> {
    h = MatMul (x, a)  k = MatMul (h, b)  y = MatMul (k, c)
}"""


@dataclass
class OneWeightMatters:
    """A judge for which one weight alone must be exact, though another's rounding costs as much."""

    before: dict[str, np.ndarray]
    weight: str
    batches: tuple[()] = ()
    further: float = 1.0
    asked: list[bool] = field(default_factory=list)

    def of(
        self,
        model: Model,
        batches: int | None = None,
        matters: Callable[[Verdict], bool] = lambda _: True,
    ) -> Verdict:
        lost = {n: float(np.square(a - weights(model)[n]).sum()) for n, a in self.before.items()}
        kept = 0.5 if lost[self.weight] else 1.0
        verdict = Verdict(kept, lost["a"] + lost["b"])
        self.asked.append(matters(verdict))
        return Verdict(min(kept, self.further), verdict.loss) if self.asked[-1] else verdict


def weights(model: Model) -> dict[str, np.ndarray]:
    return {n: v.const_value.numpy() for n, v in model.graph.initializers.items()}


def test_a_weight_that_was_raised_with_others_is_tried_in_fewer_bits_again():
    for matters in ("a", "b"):
        model = model_of(TEXT)
        values = model.graph.initializers
        ladders = {v: [rounded(v.const_value.numpy(), 8), None] for v in values.values()}
        judge = OneWeightMatters({n: a.copy() for n, a in weights(model).items()}, matters)
        forms, verdict = choose_forms(model, ladders, judge, 0.98, Context())
        assert {v.name for v, form in forms.items() if form is None} == {matters}
        assert verdict.kept == 1.0


def test_further_samples_are_run_only_where_those_held_out_keep_enough():
    model = model_of(TEXT)
    values = model.graph.initializers.values()
    before = {n: a.copy() for n, a in weights(model).items()}
    kept_by = {}
    for last in (None, rounded(weights(model)["b"], 4)):
        ladders = {v: [rounded(v.const_value.numpy(), 8)] for v in values}
        ladders = {v: [*ladder, last] if v.name == "b" else ladder for v, ladder in ladders.items()}
        judge = OneWeightMatters(before, "b", further=0.4)
        kept_by[last is None] = choose_forms(model, ladders, judge, 0.98, Context())[1].kept
        assert not judge.asked[0]
        assert judge.asked[-1]  # what is told of a promise that is not kept is of all samples
    assert kept_by == {True: 0.4, False: 0.4}
