"""`trimtab gate` and `trimtab bench` on commands and functions, from the command line."""

from __future__ import annotations

import json
import sqlite3
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from trimtab.cli import main
from trimtab.core.errors import InputError
from trimtab.runtime_bench.gate.budget_file import load_gates, parse_gates

PIPELINE = """
def run(): sum(range(20_000))
def raises(): raise ValueError("bad input")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    (tmp_path / "ci").mkdir()
    (tmp_path / "ci" / "pipe_of_ci.py").write_text(PIPELINE)
    (tmp_path / "ci" / "work.sh").write_text("exit 0")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_programs_run_in_the_folder_of_the_file_and_are_reported_as_models_are(folder, capsys):
    (folder / "ci" / "budgets.yaml").write_text(
        "gates:\n"
        "- {command: sh work.sh, name: script, budgets: {p50: 20s, no_slower_than: sleep 0.02}}\n"
        "- {callable: 'pipe_of_ci:run', budgets: {p50: 20s}}\n"
    )
    out = {name: str(folder / f"g.{name}") for name in ("json", "junit", "history", "markdown")}
    options = [part for name, path in out.items() for part in (f"--{name}", path)]
    assert main(["gate", "ci/budgets.yaml", "--max-time", "2s", *options]) in {0, 3}
    assert capsys.readouterr().out.count("0 of ") == 2
    document = json.loads(Path(out["json"]).read_text())
    assert [g["subject"] for g in document["gates"]] == ["command", "callable"]
    assert document["gates"][0]["comparisons"]["sleep 0.02"]["blocks"] > 0
    suites = [suite.get("name") for suite in ET.parse(out["junit"]).getroot()]
    assert suites == ["script", "pipe_of_ci:run"]
    with sqlite3.connect(out["history"]) as db:
        runs = db.execute("SELECT gate, provider, length(digest) FROM runs").fetchall()
    assert runs == [("script", "command", 64), ("pipe_of_ci:run", "callable", 64)]


def test_a_program_that_fails_breaks_its_budgets(folder, capsys):
    (folder / "ci" / "b.yaml").write_text("callable: pipe_of_ci:raises\nbudgets: {p50: 1s}\n")
    assert main(["gate", "ci/b.yaml", "--max-time", "2s"]) == 1
    assert "the callable cannot be run: pipe_of_ci:raises: raises ValueError" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("command: 'true'\nmodel: m.onnx\nbudgets: {p50: 1s}", "line 1: has both `model:`"),
        ("command: 'true'\nbudgets: {size: 1MB}", "line 2: budget 'size' is about models"),
        ("command: 'true'\nthreads: 2\nbudgets: {p50: 1s}", "line 2: `threads:` is about models"),
        ("command: 'true'\nbudgets: {speedup: 2}", "needs `baseline:`"),
    ],
)
def test_what_only_models_have_is_refused(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_gates(text)


def test_a_program_that_cannot_be_started_is_refused_before_anything_runs(tmp_path):
    file = tmp_path / "b.yaml"
    file.write_text("command: 'true'\nbudgets: {no_slower_than: no-such-program}\n")
    with pytest.raises(InputError, match=r"line 1: .*there is no program"):
        load_gates(file)


@pytest.mark.slow
def test_bench_compares_programs(folder, capsys):
    programs = ["--callable", "pipe_of_ci:run", "--command", "sleep 0.02"]
    (folder / "pipe_of_ci.py").write_text(PIPELINE)
    assert main(["bench", *programs, "--max-time", "2s", "--json", "b.json"]) == 0
    assert "whole runs of programs" in capsys.readouterr().out
    document = json.loads((folder / "b.json").read_text())
    assert document["cards"] == []
    assert document["runs"][0]["comparisons"][0]["candidate"]["model"] == "sleep 0.02"
    assert main(["bench", *programs, "--max-time", "2s", "--dry-run"]) == 0
    assert "the whole takes about" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "there is nothing to measure"),
        (["m.onnx", "--command", "true"], "programs are measured against programs"),
        (["--command", "true", "--threads", "2"], "--threads: is about models"),
        (["--command", "true", "--on", "pi5"], "--on: is about models"),
        (["--command", "no-such-program"], "there is no program"),
        (["--callable", "pipe.py:run"], "Did you mean 'pipe:run'?"),
        (["--command", "true", "--command", "false"], "ends with exit code 1"),
    ],
)
def test_bad_programs_are_one_message_and_exit_code_2(folder, capsys, arguments, says):
    assert main(["bench", *arguments, "--max-time", "1s"]) == 2
    error = capsys.readouterr().err
    assert says in error.splitlines()[-1]
