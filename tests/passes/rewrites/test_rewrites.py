"""Rewrite rules: the operators that they write, equal numbers, and their reasons to decline."""

from __future__ import annotations

import re
from pathlib import Path

import graphs
import numpy as np
import onnx
import pytest
import rewrite_cases_attention as attention_cases
import rewrite_cases_more as more_cases
from rewrite_cases import CASES as FIRST
from rewrite_cases import NORM, Case, shaped
from rewrite_cases import REFUSALS as FIRST_REFUSALS

from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.passes import ApplyRewrites
from trimtab.passes.base import relative_error
from trimtab.passes.rewrites import find_rewrite_rule, rewrite_rules
from trimtab.passes.rewrites.sites import apply_rule, find_sites

CASES = [*FIRST, *more_cases.CASES, *attention_cases.CASES]
REFUSALS = [*FIRST_REFUSALS, *more_cases.REFUSALS, *attention_cases.REFUSALS]
#: Two orders of summation in float32 differ by this much at the sizes of these graphs.
ROUNDING = 2e-6


def rewritten(model: Model, rule: str) -> Model:
    copy = model.clone()
    assert apply_rule(find_rewrite_rule(rule), copy.ir) > 0, find_sites(
        find_rewrite_rule(rule), model.graph
    )[1]
    return copy


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_writes_the_operators_that_it_names(case: Case) -> None:
    assert sorted(graphs.ops(rewritten(case.model(), case.rule))) == sorted(case.after.split())


@pytest.mark.parametrize("level", ["off", "all"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_numbers_stay(case: Case, level: str) -> None:
    model = case.model()
    after = rewritten(model, case.rule)
    config = SessionConfig(level=level)
    old, new = build_session(model, config), build_session(after, config)
    for seed in (0, 1):
        feeds = random_feeds(model, seed=seed, batch=3)
        expected, got = run(old, feeds), run(new, feeds)
        for name, array in expected.items():
            assert got[name].dtype == array.dtype
            assert relative_error(array, got[name]) <= ROUNDING


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_result_passes_the_full_checker_with_the_same_interface(case: Case) -> None:
    model = case.model()
    after = rewritten(model, case.rule)
    full = set(after.ir.opset_imports) <= {"", "ai.onnx"}
    onnx.checker.check_model(after.to_proto(), full_check=full)
    assert (after.inputs, after.outputs) == (model.inputs, model.outputs)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_looking_for_sites_changes_nothing(case: Case) -> None:
    model = case.model()
    before = model.to_bytes()
    sites, _ = find_sites(find_rewrite_rule(case.rule), model.graph)
    assert sites
    assert model.to_bytes() == before


@pytest.mark.parametrize(("rule", "graph", "reason"), REFUSALS, ids=lambda value: str(value)[:24])
def test_a_pattern_that_it_cannot_rewrite_is_declined_with_the_reason(
    rule: str, graph: str, reason: str
) -> None:
    sites, declined = find_sites(find_rewrite_rule(rule), shaped(graph).graph)
    assert sites == []
    assert [reason in d.reason for d in declined] == [True]


def test_every_rule_has_a_case() -> None:
    assert set(rewrite_rules()) == {case.rule for case in CASES}


def test_every_rule_is_described_in_one_line() -> None:
    assert [name for name, rule in rewrite_rules().items() if not rule.summary.endswith(".")] == []


def test_the_documentation_names_every_rule_and_no_other() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "rewrites.md").read_text()
    rows = [line for line in page.partition("## The rules")[2].splitlines() if line[:1] == "|"]
    named = re.findall(r"`([a-z0-9-]+)`(\\\*)?", "\n".join(rows))
    assert {name for name, _ in named} == set(rewrite_rules())
    marked = {name for name, star in named if star}
    assert marked == {name for name, rule in rewrite_rules().items() if rule.runtime_only}


def test_old_names_and_the_old_import_path_go_on_working() -> None:
    from trimtab.passes import forms as old
    from trimtab.passes import rewrites
    from trimtab.passes.rewrites import rule

    assert (old.Form, old.form) == (rule.RewriteRule, rule.rewrite_rule)
    assert old.forms is rewrites.forms is rewrites.rewrite_rules
    assert old.find_form is rewrites.find_form is rewrites.find_rewrite_rule


def test_the_inverse_of_a_rule_exists() -> None:
    backs = {rule.back for rule in rewrite_rules().values() if rule.back}
    assert backs <= set(rewrite_rules())


def test_only_named_sites_are_rewritten() -> None:
    model = graphs.transformer()
    rule = find_rewrite_rule("sum-before-norm")
    sites, _ = find_sites(rule, model.graph)
    assert len(sites) == 2
    assert apply_rule(rule, model.ir, {sites[0].value}) == 1
    assert graphs.ops(model).count("Sum") == 1


def test_alike_sites_have_the_same_shape_text() -> None:
    sites, _ = find_sites(find_rewrite_rule("sum-before-norm"), shaped(NORM % "Add").graph)
    assert {s.shape for s in sites} == {"Add float nx5x8,nx5x8"}


@pytest.mark.parametrize(
    ("rule", "opset", "needed"), [("gelu-closed", 18, 20), ("gelu-open", 8, 9)]
)
def test_an_operator_newer_than_the_opset_is_declined(rule: str, opset: int, needed: int) -> None:
    case = next(c for c in CASES if c.rule == rule)
    sites, declined = find_sites(find_rewrite_rule(rule), case.model(opset=opset).graph)
    assert sites == []
    assert f"needs opset {needed}" in declined[0].reason


def test_an_unknown_rule_is_refused_with_the_nearest() -> None:
    with pytest.raises(OptionError, match="sum-before-norm"):
        find_rewrite_rule("sum-before-norms")


def test_the_shortcut_as_conv_is_exact_in_every_bit() -> None:
    case = next(c for c in CASES if c.rule == "shortcut-as-conv")
    model = case.model()
    feeds = random_feeds(model, batch=2)
    plain = SessionConfig(level="off")
    expected = run(build_session(model, plain), feeds)
    got = run(build_session(rewritten(model, case.rule), plain), feeds)
    for name, array in expected.items():
        np.testing.assert_array_equal(array, got[name])


def test_a_reader_inside_of_a_branch_is_not_merged_with_those_outside():
    model = graphs.model_of("""(float[n,4] x, bool f) => (float[n,4] y, float[n,4] p, float[n,4] q)
        <float[4,4] u, float[4,4] v, float[4,4] w> {
        p = MatMul (x, u) q = MatMul (x, v)
        y = If (f) <
            then_branch = yes () => (float[n,4] t) { t = MatMul (x, w) },
            else_branch = no () => (float[n,4] e) { e = Relu (x) }
        > }""")
    after = ApplyRewrites(rules=("matmuls-merged",))(model)
    assert graphs.ops(after) == ["MatMul", "Split", "If"]
    assert [n.op_type for n in after.nodes()].count("MatMul") == 2
    for flag in (True, False):
        feeds = {"x": np.eye(4, dtype=np.float32), "f": np.array(flag)}
        old, new = run(build_session(model), feeds), run(build_session(after), feeds)
        for name, array in old.items():
            np.testing.assert_allclose(new[name], array, rtol=1e-6)


def test_a_norm_that_trains_is_no_affine_map():
    model = graphs.model_of(
        """(float[n,3,6,6] x) => (float[n,3,6,6] y)
        <float[3] s, float[3] b, float[3] m, float[3] var> {
        y, c, d, e, f = BatchNormalization (x, s, b, m, var) }""",
        opset=9,
    )
    after = ApplyRewrites(rules=("batchnorm-open",))(model)
    assert graphs.ops(after) == ["BatchNormalization"]
