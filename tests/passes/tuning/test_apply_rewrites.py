"""Named rewrite rules at all their sites, without a clock."""

from __future__ import annotations

import pytest
from graphs import cnn, model_of, ops

from trimtab.core.context import Context
from trimtab.core.errors import OptionError
from trimtab.core.target import Target
from trimtab.passes import find

X64 = Context(target=Target.named("x64-avx2"))
RESIDUAL = """
(float[batch,4,8] x) => (float[batch,4,8] y)
<float[8, 8] w, float[8] scale, float[8] bias> {
  h = MatMul (x, w)
  s = Add (h, x)
  y = LayerNormalization <axis = -1> (s, scale, bias)
}
"""


def test_the_residual_before_a_norm_becomes_a_sum() -> None:
    made = find("apply-rewrites")()(model_of(RESIDUAL), X64)
    assert ops(made) == ["MatMul", "Sum", "LayerNormalization"]
    assert made.lineage[-1].notes["sites"] == {"sum-before-norm": 1}


def test_where_nothing_was_measured_it_writes_nothing_and_says_so() -> None:
    gpu = Context(target=Target.named("cuda"))
    model = model_of(RESIDUAL)
    made = find("apply-rewrites")()(model, gpu)
    assert ops(made) == ops(model)
    assert "nothing was measured on such a machine" in made.lineage[-1].notes["declined"][0][1]
    named = find("apply-rewrites").from_json({"rules": ["sum-before-norm"]})(model, gpu)
    assert "Sum" in ops(named)


def test_without_a_site_the_model_stays_the_same() -> None:
    model = cnn()
    assert find("apply-rewrites")()(model, X64).digest == model.digest


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(OptionError, match="Did you mean 'sum-before-norm'"):
        find("apply-rewrites").from_json({"rules": ["sum-before-norms"]})
