"""A gate's verdicts as text, JSON, JUnit, Markdown, annotations, and for two dashboards."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.core.text import table

from ..bench.budgets import Gate
from .rules import OnInconclusive, exit_code, overall
from .verdicts import BudgetVerdict, GateFacts

SIGNS = {"pass": "ok", "fail": "BROKEN", "inconclusive": "undecided"}
ICONS = {"pass": "✅", "fail": "❌", "inconclusive": "❔"}
#: Measure names of Bencher, which draws each in a plot of its own.
BENCHER = {"tail": "latency", "start": "latency", "memory": "memory", "size": "file-size"}


@dataclass(frozen=True)
class GateOutcome:
    """Result of a gate."""

    gate: Gate
    facts: GateFacts
    verdicts: Sequence[BudgetVerdict]


def all_verdicts(outcomes: Sequence[GateOutcome]) -> list[BudgetVerdict]:
    """Return the verdicts of all gates."""
    return [result for outcome in outcomes for result in outcome.verdicts]


def lines(outcomes: Sequence[GateOutcome]) -> list[str]:
    """Return the text for the terminal: a table for each gate, the evidence below it."""
    found: list[str] = []
    for outcome in outcomes:
        rows = [
            [str(r.budget), SIGNS[r.verdict], _measured(r), _interval(r)] for r in outcome.verdicts
        ]
        found += [outcome.gate.name, *table(["budget", "verdict", "measured", "interval"], rows)]
        found += [f"  {r.budget.name}: {r.evidence}" for r in outcome.verdicts]
        found.append("")
    return [*found, summary(all_verdicts(outcomes))]


def summary(verdicts: Sequence[BudgetVerdict]) -> str:
    """Return one sentence about all budgets."""
    counts = {v: sum(r.verdict == v for r in verdicts) for v in SIGNS}
    parts = [f"{counts['pass']} of {len(verdicts)} budgets held"]
    parts += [f"{counts['fail']} broken"] if counts["fail"] else []
    parts += [f"{counts['inconclusive']} undecided"] if counts["inconclusive"] else []
    unfit = [r for r in verdicts if r.unfit]
    parts += [f"{len(unfit)} of them because the machine is too noisy"] if unfit else []
    return ", ".join(parts)


def document(
    outcomes: Sequence[GateOutcome], *, alpha: float, on_inconclusive: OnInconclusive
) -> dict[str, Any]:
    """Return everything, with every sample, as JSON values."""
    verdicts = all_verdicts(outcomes)
    return {
        "kind": "gate",
        "verdict": overall(verdicts),
        "exit_code": exit_code(verdicts, on_inconclusive),
        "alpha": alpha,
        "gates": [_gate_json(outcome) for outcome in outcomes],
    }


def _gate_json(outcome: GateOutcome) -> dict[str, Any]:
    gate, facts = outcome.gate, outcome.facts
    return {
        "name": gate.name,
        "model": gate.model,
        "digest": facts.digest,
        "baseline": gate.baseline,
        "subject": gate.subject,
        "provider": gate.runs_on,
        "verdict": overall(outcome.verdicts),
        "interrupted": facts.interrupted,
        "budgets": [r.to_json() for r in outcome.verdicts],
        "comparisons": {name: c.to_json() for name, c in facts.comparisons.items()},
        "solo": facts.solo and facts.solo.to_json(),
        "card": facts.startup_costs and facts.startup_costs.to_json(),
        "start_fitness": facts.startup_noise_check.to_json(),
        "quality": [q.to_json() for q in facts.quality] if facts.quality else None,
        "share": facts.share and facts.share.to_json(),
        "providers": facts.providers,
    }


def junit(outcomes: Sequence[GateOutcome]) -> str:
    """Return JUnit XML: a suite for each gate, a case for each budget, skipped if undecided."""
    root = ET.Element("testsuites", name="trimtab gate")
    for outcome in outcomes:
        verdicts, name = outcome.verdicts, _plain(outcome.gate.name)
        suite = ET.SubElement(
            root,
            "testsuite",
            name=name,
            tests=str(len(verdicts)),
            failures=str(sum(r.verdict == "fail" for r in verdicts)),
            skipped=str(sum(r.verdict == "inconclusive" for r in verdicts)),
            errors="0",
        )
        for result in verdicts:
            budget = _plain(str(result.budget))
            case = ET.SubElement(suite, "testcase", classname=name, name=budget)
            if result.verdict == "pass":
                ET.SubElement(case, "system-out").text = _plain(result.evidence)
            else:
                tag = "failure" if result.verdict == "fail" else "skipped"
                ET.SubElement(case, tag, message=_plain(result.evidence))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _plain(text: str) -> str:
    """Replace the control characters that XML 1.0 does not allow; names come from files."""
    return re.sub(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)


def markdown(outcomes: Sequence[GateOutcome]) -> str:
    """Return a Markdown table for a job summary or a comment."""
    verdicts = all_verdicts(outcomes)
    found = [f"### {ICONS[overall(verdicts)]} trimtab gate: {summary(verdicts)}", ""]
    for outcome in outcomes:
        found += [f"**{_cell(outcome.gate.name)}**", ""]
        found += ["| budget | verdict | measured | evidence |", "|---|---|---:|---|"]
        found += [
            f"| {_cell(str(r.budget))} | {ICONS[r.verdict]} {r.verdict} "
            f"| {_cell(_measured(r))} | {_cell(r.evidence)} |"
            for r in outcome.verdicts
        ]
        found.append("")
    return "\n".join(found)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;")


def workflow_commands(outcomes: Sequence[GateOutcome], file: str) -> list[str]:
    """Return GitHub workflow commands: errors for broken budgets, warnings for undecided ones."""
    found = []
    for outcome in outcomes:
        for result in outcome.verdicts:
            if result.verdict == "pass":
                continue
            level = "error" if result.verdict == "fail" else "warning"
            place = f"file={_property(file)},line={max(1, result.budget.line)}"
            title = _property(f"{outcome.gate.name}: {result.budget}")
            found.append(f"::{level} {place},title={title}::{_escaped(result.evidence)}")
    return found


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


def bencher(outcomes: Sequence[GateOutcome]) -> dict[str, dict[str, dict[str, float]]]:
    """Return Bencher Metric Format: benchmark, measure, value, bounds; times in nanoseconds."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for outcome in outcomes:
        for result in outcome.verdicts:
            if result.value is None:
                continue
            kind = result.budget.kind
            shared = kind in {"tail", "start"}
            name = f"{outcome.gate.name} {result.budget.name}" if shared else outcome.gate.name
            measure = BENCHER.get(kind, result.budget.name.replace("_", "-"))
            figures = {"value": result.value}
            ends = (("lower_value", result.low), ("upper_value", result.high))
            figures |= {k: v for k, v in ends if v is not None and abs(v) < float("inf")}
            found.setdefault(name, {})[measure] = figures
    return found


def benchmark_action(outcomes: Sequence[GateOutcome]) -> list[dict[str, Any]]:
    """Return entries for github-action-benchmark's `customSmallerIsBetter`."""
    found: list[dict[str, Any]] = []
    for outcome in outcomes:
        for result in outcome.verdicts:
            kind, value = result.budget.kind, result.value
            if value is None or kind in {"share", "provider"}:
                continue
            if kind == "ratio":  # the inverse of a speedup is the relative time
                value, unit = 1 / value, "x the time"
            else:
                unit = {"tail": "ns", "start": "ns", "quality": "drop"}.get(kind, "bytes")
            entry = {
                "name": f"{outcome.gate.name}: {result.budget.name}",
                "unit": unit,
                "value": value,
                "extra": result.evidence,
            }
            if kind == "ratio" and result.low and result.high and result.high < float("inf"):
                entry["range"] = f"{1 / result.high:.3f} - {1 / result.low:.3f}"
            found.append(entry)
    return found


def _measured(result: BudgetVerdict) -> str:
    return "-" if result.value is None else result.budget.value_text(result.value)


def _interval(result: BudgetVerdict) -> str:
    if result.low is None or result.high is None:
        return ""
    high = "inf" if result.high == float("inf") else result.budget.value_text(result.high)
    return f"[{result.budget.value_text(result.low)}, {high}]"
