from __future__ import annotations

import json
import sqlite3
import threading

import pytest
from gate_facts import environment, gate, measurement

from trimtab.cli import main
from trimtab.core.errors import InputError, OutputError
from trimtab.runtime_bench.bench.budgets import Budget
from trimtab.runtime_bench.gate.history import History, Series, append
from trimtab.runtime_bench.gate.reporters import GateOutcome
from trimtab.runtime_bench.gate.rules import judge
from trimtab.runtime_bench.gate.trend import lines, spark
from trimtab.runtime_bench.gate.verdicts import GateFacts


def outcome(ns: float = 1e6, digest: str = "aaaaaaaaaa") -> GateOutcome:
    asked = gate(Budget("p50", 5e6, "5ms"), Budget("drop", 0.1, "0.1"))
    facts = GateFacts(solo=measurement((ns,) * 20), digest=digest)
    return GateOutcome(asked, facts, judge(asked, facts, alpha=0.01))


def fill(path, values, **changes) -> None:
    history = History(path)
    for i, value in enumerate(values):
        digest = "a" * 10 if i < len(values) // 2 else "b" * 10
        at = f"2026-01-{i + 1:02}T00:00:00+00:00"
        history.add(outcome(value, digest), environment(**changes), at, 1)
    history.close()


def series(path) -> list[Series]:
    history = History(path, create=False)
    found = history.series()
    history.close()
    return found


def test_runs_come_back_in_order_and_unmeasured_budgets_do_not(tmp_path):
    fill(tmp_path / "h.db", [1e6, 2e6])
    (one,) = series(tmp_path / "h.db")
    assert (one.budget, [p.value for p in one.points]) == ("p50", [1e6, 2e6])


@pytest.mark.slow
def test_machine_classes_are_reported_apart(tmp_path):
    fill(tmp_path / "h.db", [1e6] * 8)
    fill(tmp_path / "h.db", [2e6] * 8, cpu="Another CPU")
    found = series(tmp_path / "h.db")
    assert len(found) == 2
    text = "\n".join(lines(found))
    assert "2 machine classes, shown apart" in text
    assert text.count("8 runs") == 2


def test_a_newer_history_is_refused(tmp_path):
    History(tmp_path / "h.db").close()
    with sqlite3.connect(tmp_path / "h.db") as db:
        db.execute("PRAGMA user_version = 2")
    with pytest.raises(InputError, match=r"version 2, this trimtab reads up to 1.*Update"):
        History(tmp_path / "h.db")


def test_another_database_is_refused_and_left_alone(tmp_path):
    with sqlite3.connect(tmp_path / "h.db") as db:
        db.execute("CREATE TABLE theirs (x)")
    with pytest.raises(InputError, match="not a history of trimtab"):
        History(tmp_path / "h.db")
    with sqlite3.connect(tmp_path / "h.db") as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]


def test_a_file_that_is_not_a_database_is_refused(tmp_path):
    (tmp_path / "h.db").write_text("model: a.onnx\n" * 100)
    with pytest.raises(InputError, match="not a history of trimtab"):
        History(tmp_path / "h.db")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(OutputError, match="cannot be used"):
        History(tmp_path)


@pytest.mark.slow
def test_many_may_append_at_once(tmp_path):
    path = tmp_path / "h.db"
    workers = [
        threading.Thread(target=lambda: [append(path, [outcome()]) for _ in range(5)])
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sum(len(s.points) for s in series(path)) == 20


def test_the_command_prints_text_and_json(tmp_path, capsys):
    fill(tmp_path / "h.db", [1e6, 1.1e6, 1e6])
    assert main(["history", str(tmp_path / "h.db")]) == 0
    assert "m: p50" in capsys.readouterr().out
    assert main(["history", str(tmp_path / "h.db"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["series"][0]["points"][1]["value"] == 1.1e6


def test_the_command_refuses_a_missing_file(tmp_path, capsys):
    assert main(["history", str(tmp_path / "none.db")]) == 2
    assert "gate --history" in capsys.readouterr().err
    assert not (tmp_path / "none.db").exists()


def test_a_long_series_is_drawn_short():
    assert len(spark(list(range(1000)))) == 40
    assert spark([1.0, 1.0]) == "▄▄"
