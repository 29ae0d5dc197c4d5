from __future__ import annotations

import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET

import pytest
from gate_facts import comparison, measurement
from int8_graphs import graph

from trimtab.core.errors import OptionError
from trimtab.runtime_bench.bench.budgets import Budget
from trimtab.runtime_bench.gate import pytest_run as plugin_run
from trimtab.runtime_bench.gate.pytest_run import LatencyRequest, gate_of, one_at_a_time, properties
from trimtab.runtime_bench.gate.verdicts import BudgetVerdict, GateFacts

pytest_plugins = ["pytester"]

TEST = """
import pytest
@pytest.mark.latency(p95="5ms", max_time=3)
def test_model(latency):
    latency.compare("m.onnx")
def test_other():
    pass
"""


@pytest.fixture
def verdict(monkeypatch):
    """Give every measurement this verdict, without measuring."""
    seen = []

    def set_to(verdict: str):
        def made(request):
            seen.append(request)
            found = BudgetVerdict(Budget("p95", 5e6, "5ms"), verdict, "7 of 9 runs over 5ms")
            return [found], {"ratio": 1.25}

        monkeypatch.setattr(plugin_run, "measure", made)
        return seen

    return set_to


def run(pytester, *options, test=TEST):
    pytester.makepyfile(test)
    # Hypothesis would be imported anew in each run, for two seconds.
    return pytester.runpytest("-p", "no:cacheprovider", "-p", "no:hypothesispytest", *options)


def test_a_held_budget_passes(pytester, verdict):
    seen = verdict("pass")
    run(pytester).assert_outcomes(passed=2)
    assert seen[0].asked == {"p95": "5ms", "max_time": 3}


def test_a_broken_budget_fails_in_the_call_phase_with_its_evidence(pytester, verdict):
    verdict("fail")
    result = run(pytester)
    result.assert_outcomes(passed=1, failed=1)  # an error would be another phase
    result.stdout.fnmatch_lines(["*latency budgets are broken", "*7 of 9 runs over 5ms*"])


@pytest.mark.parametrize(
    ("option", "outcome"),
    [
        (None, {"passed": 2, "warnings": 1}),
        ("pass", {"passed": 2, "warnings": 1}),
        ("skip", {"passed": 1, "skipped": 1}),
        ("fail", {"passed": 1, "failed": 1}),
    ],
)
def test_an_undecided_budget_passes_skips_or_fails_as_configured(
    pytester, verdict, option, outcome
):
    verdict("inconclusive")
    options = [f"--latency-inconclusive={option}"] if option else []
    run(pytester, *options).assert_outcomes(**outcome)


def test_properties_reach_junit(pytester, verdict):
    verdict("pass")
    run(pytester, "--junitxml=out.xml")
    found = ET.parse(pytester.path / "out.xml").find(".//property[@name='ratio']")
    assert found is not None
    assert found.get("value") == "1.25"


@pytest.mark.slow
def test_only_and_skip_select_the_marked_tests(pytester, verdict):
    verdict("pass")
    run(pytester, "--latency-only").assert_outcomes(passed=1, deselected=1)
    run(pytester, "--latency-skip").assert_outcomes(passed=1, skipped=1)
    assert run(pytester, "--latency-skip", "--latency-only").ret == pytest.ExitCode.USAGE_ERROR


def test_the_time_of_the_command_line_wins(pytester, verdict):
    seen = verdict("pass")
    run(pytester, "--latency-max-time=2s")
    assert seen[0].asked["max_time"] == "2s"


def test_a_wrong_time_is_refused_before_anything_runs(pytester):
    result = run(pytester, "--latency-max-time=soon")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*'soon' is not a duration*"])


@pytest.mark.parametrize(
    ("mark", "says"),
    [("p95th='5ms'", "*Did you mean 'p95'?*"), ("'5ms'", "*takes keywords only*")],
)
def test_misspelt_markers_are_refused_at_collection(pytester, mark, says):
    result = run(pytester, test=TEST.replace('p95="5ms"', mark).replace("'5ms', ", "'5ms', "))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([says])


def test_the_marker_is_known_under_strict_markers(pytester, verdict):
    verdict("pass")
    run(pytester, "--strict-markers").assert_outcomes(passed=2)


def test_a_class_s_marker_gives_defaults(pytester, verdict):
    seen = verdict("pass")
    text = """
    import pytest
    @pytest.mark.latency(p95="9ms", max_time=9)
    class TestAll:
        @pytest.mark.latency(p95="1ms")
        def test_model(self, latency):
            latency.compare("m.onnx")
    """
    run(pytester, test=text).assert_outcomes(passed=1)
    assert seen[0].asked == {"p95": "1ms", "max_time": 9}


def request(baseline=None, require_int8=None, **asked) -> LatencyRequest:
    return LatencyRequest("m", baseline, None, "CPUExecutionProvider", 1, require_int8, {}, asked)


def names(made) -> list[str]:
    return [b.name for b in gate_of(made).budgets]


def test_keywords_become_budgets():
    assert names(request(p95="5ms", p99_9="9ms", size="4MB")) == ["p95", "p99.9", "size"]
    assert names(request("b", min_speedup=1.5)) == ["speedup"]
    assert names(request("b", p95="5ms", require_int8=0.9)) == [
        "p95",
        "no_slower_than",
        "int8_share",
    ]
    assert gate_of(request("b", tolerance=0.02)).budgets[0].tolerance == 0.02


@pytest.mark.parametrize("asked", [{}, {"min_speedup": 2}, {"tolerance": 0.1}, {"p95": 5}])
def test_a_call_without_a_valid_budget_is_refused(asked):
    with pytest.raises(OptionError):
        gate_of(request(**asked))


def test_properties_hold_what_a_report_needs():
    facts = GateFacts(comparisons={"baseline": comparison(2.0)}, solo=measurement(), digest="d")
    found = properties(facts, [])
    assert {"ratio", "lo", "hi", "blocks", "p50_ns", "p95_ns", "machine_class"} <= set(found)
    assert found["p95_ns"] == 1_000_000


def test_one_measures_at_a_time(tmp_path):
    order = []

    def second():
        with one_at_a_time(tmp_path / "lock"):
            order.append("second")

    with one_at_a_time(tmp_path / "lock"):
        other = threading.Thread(target=second)
        other.start()
        time.sleep(0.05)  # gives a broken lock the chance to let it in
        order.append("first")
    other.join()
    assert order == ["first", "second"]


def test_loading_the_plugin_brings_nothing_heavy():
    code = (
        "import sys, trimtab.runtime_bench.gate.pytest_plugin;"
        "print([m for m in ('numpy', 'onnx', 'onnxruntime', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_real_model_is_measured_under_xdist(pytester):
    model = graph(
        """g (float[1, 8, 24, 24] x) => (float[1, 8, 24, 24] y) {
          y = Conv <pads = [1, 1, 1, 1]> (x, w)
        }""",
        w=(8, 8, 3, 3),
    )
    model.save(pytester.path / "m.onnx")
    text = """
    import pytest
    @pytest.mark.latency(p50="1s", max_time=2)
    @pytest.mark.parametrize("n", [1, 2])
    def test_model(latency, n):
        latency.compare("m.onnx")
    @pytest.mark.latency(p50="1us", max_time=2)
    def test_slow(latency):
        latency.compare("m.onnx")
    """
    pytester.makepyfile(text)
    result = pytester.runpytest_subprocess("-n2", "-p", "no:cacheprovider")
    outcomes = result.parseoutcomes()
    # A budget of 1 us can fail on a quiet machine only, else it is undecided.
    assert outcomes["passed"] + outcomes.get("failed", 0) == 3
    assert outcomes["passed"] >= 2
