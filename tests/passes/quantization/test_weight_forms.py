"""Choice of the forms of weights: the fewest bits that keep enough."""

from __future__ import annotations

from dataclasses import dataclass

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

    def of(self, model: Model, batches: int | None = None) -> Verdict:
        lost = {n: float(np.square(a - weights(model)[n]).sum()) for n, a in self.before.items()}
        return Verdict(0.5 if lost[self.weight] else 1.0, lost["a"] + lost["b"])


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
