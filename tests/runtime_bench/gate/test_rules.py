from __future__ import annotations

import numpy as np
import pytest
from gate_facts import NOISY, comparison, gate, measurement, startup_costs
from int8_graphs import chain, graph

from trimtab.core.errors import InputError
from trimtab.core.metric import Quality
from trimtab.core.ort.int8_share import Int8Share
from trimtab.runtime_bench.bench.bench import percentiles_decided
from trimtab.runtime_bench.bench.budgets import Budget
from trimtab.runtime_bench.gate.collect import Collector
from trimtab.runtime_bench.gate.rules import exit_code, judge
from trimtab.runtime_bench.gate.verdicts import BudgetVerdict, GateFacts
from trimtab.runtime_bench.stats.percentiles import fewest_runs

SPEEDUP = Budget("speedup", 1.5, "1.5", "base.onnx")
NO_SLOWER = Budget("no_slower_than", text="base.onnx", against="base.onnx")
P95 = Budget("p95", 5e6, "5ms")


def verdict_on(budget: Budget, facts: GateFacts, alpha: float = 0.01) -> BudgetVerdict:
    (found,) = judge(gate(budget), facts, alpha=alpha)
    return found


def against(found) -> GateFacts:
    return GateFacts(comparisons={"base.onnx": found})


@pytest.mark.parametrize(
    ("true", "verdict"), [(2.0, "pass"), (1.5, "pass"), (1.3, "fail"), (0.9, "fail")]
)
def test_a_speed_up_is_judged_at_its_own_limit(true, verdict):
    assert verdict_on(SPEEDUP, against(comparison(true, blocks=300))).verdict == verdict


@pytest.mark.parametrize(
    ("true", "tolerance", "verdict"),
    [(1.0, 0.0, "pass"), (0.9, 0.0, "fail"), (0.97, 0.05, "pass"), (0.9, 0.05, "fail")],
)
def test_no_slower_than_allows_its_tolerance(true, tolerance, verdict):
    budget = Budget("no_slower_than", text="b", against="base.onnx", tolerance=tolerance)
    assert verdict_on(budget, against(comparison(true, blocks=300))).verdict == verdict


def test_few_blocks_decide_nothing_and_say_what_to_do():
    found = verdict_on(SPEEDUP, against(comparison(1.5, blocks=12)))
    assert found.verdict == "inconclusive"
    assert "--max-time" in found.evidence


def test_a_model_against_itself_is_hardly_ever_broken():
    failed = [
        verdict_on(NO_SLOWER, against(comparison(1.0, noise=0.1, blocks=200, seed=s))).verdict
        == "fail"
        for s in range(60)
    ]
    assert sum(failed) <= 2


def test_more_budgets_share_the_error_rate():
    close = against(comparison(0.95, blocks=30))
    assert verdict_on(NO_SLOWER, close, alpha=0.1).verdict == "fail"
    assert verdict_on(NO_SLOWER, close, alpha=1e-6).verdict == "inconclusive"


def test_an_absolute_latency_is_held_on_any_machine():
    assert verdict_on(P95, GateFacts(solo=measurement(noise_check=NOISY))).verdict == "pass"


def test_an_absolute_latency_is_broken_on_a_quiet_machine_only():
    slow = (9_000_000,) * 300
    assert verdict_on(P95, GateFacts(solo=measurement(slow))).verdict == "fail"
    noisy = verdict_on(P95, GateFacts(solo=measurement(slow, noise_check=NOISY)))
    assert (noisy.verdict, noisy.unfit) == ("inconclusive", True)
    assert "hypervisor" in noisy.evidence


def test_too_few_runs_are_not_the_machine_s_fault():
    found = verdict_on(P95, GateFacts(solo=measurement((9_000_000,) * 20, noise_check=NOISY)))
    assert (found.verdict, found.unfit) == ("inconclusive", False)
    assert f"{fewest_runs(0.95, 0.01)} runs are needed" in found.evidence


def test_a_quiet_percentile_leaves_interrupted_runs_out():
    samples, switches = (1_000_000, 9_000_000) * 300, (0, 1) * 300
    facts = GateFacts(solo=measurement(samples, switches=switches))
    assert verdict_on(Budget("p95_quiet", 5e6, "5ms"), facts).verdict == "pass"
    assert verdict_on(P95, facts).verdict == "fail"


def test_start_up_is_judged_over_fresh_processes():
    load = Budget("load", 30e6, "30ms")
    assert verdict_on(load, GateFacts(startup_costs=startup_costs(load_ms=20))).verdict == "pass"
    assert verdict_on(load, GateFacts(startup_costs=startup_costs(load_ms=90))).verdict == "fail"
    assert verdict_on(
        load, GateFacts(startup_costs=startup_costs(load_ms=90), startup_noise_check=NOISY)
    ).unfit
    assert (
        verdict_on(load, GateFacts(startup_costs=startup_costs(load_ms=90, processes=3))).verdict
        == "inconclusive"
    )


@pytest.mark.parametrize(
    ("limit", "verdict"), [(60e6, "pass"), (51e6, "inconclusive"), (40e6, "fail")]
)
def test_memory_is_judged_over_all_processes(limit, verdict):
    assert (
        verdict_on(Budget("rss", limit, "x"), GateFacts(startup_costs=startup_costs())).verdict
        == verdict
    )


def test_size_is_a_fact():
    assert verdict_on(Budget("size", 100, "100"), GateFacts(size_bytes=100)).verdict == "pass"
    assert verdict_on(Budget("size", 99, "99"), GateFacts(size_bytes=100)).verdict == "fail"


def test_a_drop_is_reported_with_its_paired_error():
    base = Quality("top1", 0.9, np.array([1.0] * 9 + [0.0]), 10)
    mine = Quality("top1", 0.8, np.array([1.0] * 8 + [0.0] * 2), 10)
    found = verdict_on(Budget("drop", 0.05, "0.05"), GateFacts(quality=(mine, base)))
    assert found.verdict == "fail"
    assert "paired" in found.evidence
    assert verdict_on(Budget("drop", 0.1, "0.1"), GateFacts(quality=(mine, base))).verdict == "pass"


def test_an_int8_share_names_the_float_nodes():
    share = Int8Share(3, 1, 4, 0.6, ("head",))
    found = verdict_on(Budget("int8_share", 0.9, "90%"), GateFacts(share=share))
    assert found.verdict == "fail"
    assert "head" in found.evidence
    assert "trimtab doctor" in found.evidence


def test_a_provider_must_have_every_product():
    budget = Budget("provider", text="CUDA", against="CUDA")
    shapes = {"CUDA": {"Conv": 5, "Relu": 5}, "CPU": {"Shape": 2}}
    assert verdict_on(budget, GateFacts(providers=shapes)).verdict == "pass"
    fallback = {"CUDA": {"Conv": 4}, "CPU": {"Conv": 1}}
    assert verdict_on(budget, GateFacts(providers=fallback)).verdict == "fail"
    assert verdict_on(budget, GateFacts(providers={})).verdict == "fail"


def test_a_model_that_crashes_breaks_the_budgets_that_need_a_run():
    facts = GateFacts(broken="m.onnx: died of signal 11", size_bytes=10)
    assert verdict_on(P95, facts).verdict == "fail"
    assert verdict_on(Budget("size", 99, "99"), facts).verdict == "pass"


def test_a_reference_that_crashes_proves_nothing():
    assert (
        verdict_on(SPEEDUP, against(comparison(2, error="base crashed"))).verdict == "inconclusive"
    )


def test_an_interrupted_budget_is_undecided():
    found = verdict_on(P95, GateFacts(interrupted=True))
    assert found.verdict == "inconclusive"
    assert "interrupted" in found.evidence


PASS, FAIL = BudgetVerdict(P95, "pass", ""), BudgetVerdict(P95, "fail", "")
OPEN, UNFIT = (
    BudgetVerdict(P95, "inconclusive", ""),
    BudgetVerdict(P95, "inconclusive", "", unfit=True),
)


@pytest.mark.parametrize(
    ("verdicts", "how", "code"),
    [
        ([PASS], "report", 0),
        ([PASS, FAIL, OPEN], "pass", 1),
        ([PASS, OPEN], "report", 3),
        ([PASS, UNFIT], "report", 4),
        ([UNFIT, OPEN], "report", 3),
        ([OPEN], "fail", 1),
        ([UNFIT], "pass", 0),
    ],
)
def test_exit_codes(verdicts, how, code):
    assert exit_code(verdicts, how) == code


def test_percentiles_are_looked_at_again_only_when_runs_have_grown():
    decided = percentiles_decided([P95], 0.01)
    assert not decided([[9_000_000] * 50])
    assert not decided([[9_000_000] * 54])  # below a tenth more: not even looked at
    assert decided([[9_000_000] * 400])


def test_facts_come_from_real_sessions():
    wide = graph(
        """g (float[N, 8, 24, 24] x) => (float[N, 8, 24, 24] y) {
          a = Conv <pads = [1, 1, 1, 1]> (x, w1)
          y = Conv <pads = [1, 1, 1, 1]> (a, w2)
        }""",
        w1=(64, 8, 3, 3),
        w2=(8, 64, 3, 3),
    )
    models = {"m.onnx": graph(CONV, w1=(8, 8, 3, 3)), "base.onnx": wide}
    asked = gate(
        Budget("p50", 1e9, "1s"),
        Budget("speedup", 1.0, "1", "base.onnx"),
        Budget("size", 1e6, "1MB"),
        Budget("int8_share", 0.0, "0"),
        Budget("provider", text="CPUExecutionProvider", against="CPUExecutionProvider"),
        threads=1,
    )
    collector = Collector(asked, 0.005, seconds=1.0, open_model=models.__getitem__, in_process=True)
    verdicts = judge(asked, collector.collect(), alpha=0.005)
    assert [r.verdict for r in verdicts if r.budget.name != "speedup"] == ["pass"] * 4
    assert {r.budget.name: r.value for r in verdicts}["speedup"] is not None


CONV = """g (float[N, 8, 24, 24] x) => (float[N, 8, 24, 24] y) {
  y = Conv <pads = [1, 1, 1, 1]> (x, w1)
}"""


def test_a_provider_that_is_not_installed_breaks_its_budget_alone():
    name = "CUDAExecutionProvider"
    asked = gate(
        Budget("provider", text=name, against=name),
        P95,
        Budget("size", 1e6, "1MB"),
        provider=name,
    )
    facts = Collector(asked, 0.01, open_model=lambda _: chain()).collect()
    verdicts = [r.verdict for r in judge(asked, facts, alpha=0.01)]
    assert verdicts == ["fail", "inconclusive", "pass"]


def test_a_dynamic_axis_without_a_size_is_asked_for():
    model = graph(
        "g (float[N, length] x) => (float[N, length] y) { y = Relu (x) }",
    )
    collector = Collector(gate(P95), 0.01, open_model=lambda _: model)
    with pytest.raises(InputError, match=r"shape: \{NAME"):
        collector.collect()


@pytest.mark.slow
def test_the_command_judges_a_real_model(tmp_path, capsys):
    from trimtab.cli import main

    graph(CONV, w1=(8, 8, 3, 3)).save(tmp_path / "m.onnx")
    (tmp_path / "budgets.yaml").write_text(
        "model: m.onnx\nthreads: 1\n"
        "budgets: {p50: 1s, size: 1kB, rss: 2GB, load: 20s, no_slower_than: m.onnx}\n"
    )
    code = main(
        [
            "gate",
            str(tmp_path / "budgets.yaml"),
            "--max-time=8s",
            f"--json={tmp_path / 'g.json'}",
            f"--history={tmp_path / 'h.db'}",
        ]
    )
    assert code == 1  # the size
    assert "size" in capsys.readouterr().out
    assert (tmp_path / "g.json").exists()
