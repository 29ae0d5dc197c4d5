"""Each rule: what it writes, that the numbers stay, and when it declines with which reason."""

from __future__ import annotations

import re
from pathlib import Path

import graphs
import numpy as np
import onnx
import pytest
import rewrite_cases_attention as forms_attention
import rewrite_cases_more as forms_more
from rewrite_cases import CASES as FIRST
from rewrite_cases import NORM, Case, shaped
from rewrite_cases import REFUSALS as FIRST_REFUSALS

from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig, build_session, random_feeds, run
from trimtab.passes.base import relative_error
from trimtab.passes.rewrites import find_form, forms
from trimtab.passes.rewrites.sites import apply_form, find_sites

CASES = [*FIRST, *forms_more.CASES, *forms_attention.CASES]
REFUSALS = [*FIRST_REFUSALS, *forms_more.REFUSALS, *forms_attention.REFUSALS]
#: Two orders of summation in float32 differ by this much at the sizes of these graphs.
ROUNDING = 2e-6


def rewritten(model: Model, rule: str) -> Model:
    copy = model.clone()
    assert apply_form(find_form(rule), copy.ir) > 0, find_sites(find_form(rule), model.graph)[1]
    return copy


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_writes_the_form_that_it_names(case: Case) -> None:
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
    sites, _ = find_sites(find_form(case.rule), model.graph)
    assert sites
    assert model.to_bytes() == before


@pytest.mark.parametrize(("rule", "graph", "reason"), REFUSALS, ids=lambda value: str(value)[:24])
def test_a_pattern_that_it_cannot_write_otherwise_is_declined_with_the_reason(
    rule: str, graph: str, reason: str
) -> None:
    sites, declined = find_sites(find_form(rule), shaped(graph).graph)
    assert sites == []
    assert [reason in d.reason for d in declined] == [True]


def test_every_rule_has_a_case() -> None:
    assert set(forms()) == {case.rule for case in CASES}


def test_every_rule_tells_in_one_line_what_it_does() -> None:
    assert [name for name, form in forms().items() if not form.summary.endswith(".")] == []


def test_the_documentation_names_every_rule_and_no_other() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "forms.md").read_text()
    rows = [line for line in page.partition("## The rules")[2].splitlines() if line[:1] == "|"]
    named = re.findall(r"`([a-z0-9-]+)`(\\\*)?", "\n".join(rows))
    assert {name for name, _ in named} == set(forms())
    marked = {name for name, star in named if star}
    assert marked == {name for name, form in forms().items() if form.runtime_only}


def test_a_way_back_leads_back() -> None:
    backs = {form.back for form in forms().values() if form.back}
    assert backs <= set(forms())


def test_only_named_sites_are_rewritten() -> None:
    model = graphs.transformer()
    form = find_form("sum-before-norm")
    sites, _ = find_sites(form, model.graph)
    assert len(sites) == 2
    assert apply_form(form, model.ir, {sites[0].value}) == 1
    assert graphs.ops(model).count("Sum") == 1


def test_alike_sites_have_the_same_shape_text() -> None:
    sites, _ = find_sites(find_form("sum-before-norm"), shaped(NORM % "Add").graph)
    assert {s.shape for s in sites} == {"Add float nx5x8,nx5x8"}


def test_an_operator_newer_than_the_opset_is_declined() -> None:
    case = next(c for c in CASES if c.rule == "gelu-closed")
    sites, declined = find_sites(find_form("gelu-closed"), case.model(opset=18).graph)
    assert sites == []
    assert "needs opset 20" in declined[0].reason


def test_an_unknown_rule_is_refused_with_the_nearest() -> None:
    with pytest.raises(OptionError, match="sum-before-norm"):
        find_form("sum-before-norms")


def test_the_shortcut_as_conv_is_exact_in_every_bit() -> None:
    case = next(c for c in CASES if c.rule == "shortcut-as-conv")
    model = case.model()
    feeds = random_feeds(model, batch=2)
    plain = SessionConfig(level="off")
    expected = run(build_session(model, plain), feeds)
    got = run(build_session(rewritten(model, case.rule), plain), feeds)
    for name, array in expected.items():
        np.testing.assert_array_equal(array, got[name])
