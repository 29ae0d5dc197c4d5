from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest
from gate_facts import comparison, gate, measurement, startup_costs

from trimtab.runtime_bench.bench.budgets import Budget
from trimtab.runtime_bench.gate import reporters as outputs
from trimtab.runtime_bench.gate.reporters import GateOutcome
from trimtab.runtime_bench.gate.rules import judge
from trimtab.runtime_bench.gate.verdicts import GateFacts
from trimtab.runtime_bench.measure.values import load, save


@pytest.fixture
def outcomes() -> list[GateOutcome]:
    made = gate(
        Budget("p95", 0.5e6, "500us", line=7),
        Budget("p50", 5e6, "5ms", line=6),
        Budget("speedup", 1.5, "1.5", "base.onnx", line=8),
        Budget("rss", 51e6, "51MB", line=9),
        Budget("size", 2000, "2kB", line=10),
    )
    facts = GateFacts(
        comparisons={"base.onnx": comparison(2.0)},
        solo=measurement(),
        startup_costs=startup_costs(),
        size_bytes=1000,
        digest="abc",
    )
    return [GateOutcome(made, facts, judge(made, facts, alpha=0.002))]


def test_lines_show_verdict_and_evidence_of_each_budget(outcomes):
    text = "\n".join(outputs.lines(outcomes))
    assert "BROKEN" in text
    assert "undecided" in text
    assert "300 of 300 runs over 500us" in text
    assert text.endswith("3 of 5 budgets held, 1 broken, 1 undecided")


def test_the_document_holds_every_sample_and_is_plain_json(outcomes, tmp_path):
    made = outputs.document(outcomes, alpha=0.002, on_inconclusive="report")
    save(tmp_path / "g.json", made)
    read = load(tmp_path / "g.json")
    assert (read["verdict"], read["exit_code"], read["schema"]) == ("fail", 1, 1)
    assert len(read["gates"][0]["solo"]["samples_ns"]) == 300


def test_junit_counts_broken_and_undecided_budgets(outcomes):
    suite = ET.fromstring(outputs.junit(outcomes))[0]
    counts = {k: suite.get(k) for k in ("tests", "failures", "skipped")}
    assert counts == {"tests": "5", "failures": "1", "skipped": "1"}
    assert "runs over" in (suite.find("testcase/failure").get("message") or "")


def test_junit_replaces_characters_that_xml_forbids(outcomes):
    bad = GateOutcome(gate(name := Budget("size", 1, "\x01<&\"'")), GateFacts(size_bytes=5), [])
    made = judge(bad.gate, bad.facts, alpha=0.01)
    assert made[0].budget is name
    ET.fromstring(outputs.junit([GateOutcome(bad.gate, bad.facts, made)]))


def test_markdown_is_one_table_a_gate_and_escapes_cells(outcomes):
    text = outputs.markdown(outcomes)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 5
    piped = GateOutcome(gate(Budget("size", 1, "a|b")), GateFacts(size_bytes=5), ())
    verdicts = judge(piped.gate, piped.facts, alpha=0.01)
    assert r"a\|b" in outputs.markdown([GateOutcome(piped.gate, piped.facts, verdicts)])


def test_workflow_commands_point_at_the_line_and_escape(outcomes):
    commands = outputs.workflow_commands(outcomes, "ci/b,1.yaml")
    assert len(commands) == 2
    assert commands[0].startswith("::error file=ci/b%2C1.yaml,line=7,title=m%3A p95%3A 500us::")
    assert commands[1].startswith("::warning ")
    assert not any("\n" in c for c in commands)


def test_bencher_has_a_benchmark_for_each_time(outcomes):
    made = outputs.bencher(outcomes)
    assert made["m p50"]["latency"]["value"] == 1_000_000
    assert set(made["m"]) == {"speedup", "memory", "file-size"}
    assert made["m"]["speedup"]["lower_value"] < 2 < made["m"]["speedup"]["upper_value"]
    json.dumps(made, allow_nan=False)


def test_benchmark_action_holds_only_what_shrinks_when_better(outcomes):
    made = {e["name"]: e for e in outputs.benchmark_action(outcomes)}
    assert made["m: speedup"]["value"] == pytest.approx(0.5, rel=0.05)
    assert made["m: speedup"]["unit"] == "x the time"
    assert made["m: rss"]["unit"] == "bytes"
