"""The composite action: its scripts run here as a runner would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from int8_graphs import chain

ROOT = Path(__file__).parents[3]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS = ACTION["runs"]["steps"]


def test_inputs_reach_scripts_only_through_the_environment():
    assert [s for s in STEPS if "${{" in s.get("run", "")] == []


def test_every_input_that_is_used_exists():
    used = set(re.findall(r"inputs\.([a-z-]+)", (ROOT / "action.yml").read_text()))
    assert used == set(ACTION["inputs"])


def test_documented_inputs_and_outputs_are_those_of_the_action():
    text = (ROOT / "docs" / "ci.md").read_text()
    table = text.split("| input | default | |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `([a-z-]+)`", table, re.M)) == set(ACTION["inputs"])
    assert all(f"`{name}`" in text for name in ACTION["outputs"])


def test_documented_budgets_are_read(tmp_path):
    from trimtab.runtime_bench.gate.budget_file import parse_gates

    text = (ROOT / "docs" / "ci.md").read_text()
    (gate,) = parse_gates(text.split("```yaml\n")[1].split("```")[0])
    assert len(gate.budgets) == 9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("budget", "verdict", "code"), [("{size: 1MB}", "pass", 0), ("{size: 1}", "fail", 1)]
)
def test_the_gate_s_script_writes_its_outputs(tmp_path, budget, verdict, code):
    chain().save(tmp_path / "m.onnx")
    (tmp_path / "budgets.yaml").write_text(f"model: m.onnx\nbudgets: {budget}\n")
    outputs = run_gate(tmp_path)
    assert (outputs["verdict"], outputs["exit-code"]) == (verdict, str(code))
    assert Path(outputs["json"]).exists()
    assert "trimtab gate" in (tmp_path / "summary").read_text()


@pytest.mark.slow
def test_bad_input_is_an_error_with_code_2(tmp_path):
    outputs = run_gate(tmp_path)
    assert (outputs["verdict"], outputs["exit-code"]) == ("error", "2")


def run_gate(folder: Path) -> dict[str, str]:
    script = next(s["run"] for s in STEPS if s.get("id") == "gate")
    environment = os.environ | {
        "RUNNER_TEMP": str(folder),
        "TRIMTAB_BIN": str(Path(sys.executable).parent),
        "GITHUB_OUTPUT": str(folder / "output"),
        "GITHUB_STEP_SUMMARY": str(folder / "summary"),
        "BUDGETS": str(folder / "budgets.yaml"),
        "MAX_TIME": "2s",
        "ON_INCONCLUSIVE": "report",
    }
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    lines = (folder / "output").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)
