"""Text and JSON of a diagnosis."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from trimtab.core.ort.int8_share import INT8_OPS
from trimtab.core.text import counted, shortened, table

from .diagnose import Diagnosis
from .findings import Finding, GraphFacts
from .profile import Profile

#: Most groups of nodes that are listed.
LISTED = 12
#: Names of a group that are listed, and characters of a name; --json has all.
NAMES, NAME = 6, 60
#: Characters of a line that is not broken, and of those that are.
LONGEST, WIDTH = 160, 100
#: Most operators in the table.
TOP = 10


def lines(diagnosis: Diagnosis) -> list[str]:
    """Format a diagnosis for the terminal."""
    facts = diagnosis.facts
    found = [*_head(facts), ""]
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in diagnosis.findings:
        groups.setdefault((finding.kind, finding.why), []).append(finding)
    for (kind, why), findings in groups.items():
        found += _group(kind, why, findings)
    if diagnosis.healthy:
        found += [
            "Nothing wrong was found: no float island, no needless conversion or change of layout."
        ]
        found.append("")
    return found + (_operators(facts) if facts.times else [])


def _head(facts: GraphFacts) -> list[str]:
    share = facts.share
    head = (
        f"{facts.model.name}: {share.int8_share:.1%} of the multiply-accumulates in int8 "
        f"({counted(share.int8_ops, 'int8 node')}, {share.float_ops} float), "
        f"{counted(share.leftover_qdq, 'conversion')} between int8 and float"
    )
    if facts.times is None:
        return [head]
    part = int8_time_share(facts.times)
    return [head, f"{part:.1%} of the profiled time in int8 kernels"]


def int8_time_share(profile: Profile) -> float:
    """Return the share of int8 kernels in the profiled time."""
    return profile.share(
        n for n in profile.nodes if n.op_type in INT8_OPS or n.op_type.startswith("QLinear")
    )


def _group(kind: str, why: str, findings: Sequence[Finding]) -> list[str]:
    shares = [f.time_share for f in findings if f.time_share is not None]
    cost = f", {sum(shares):.1%} of the time" if shares else ""
    count = f"{len(findings)} x " if len(findings) > 1 else ""
    mark = "note" if findings[0].severity == "note" else "!"
    found = wrapped(f"{mark} {count}{kind}{cost}: {why}", "  ")
    for finding in findings[:LISTED]:
        if finding.nodes:
            names = [shortened(name, NAME) for name in finding.nodes[:NAMES]]
            more = " ..." if len(finding.nodes) > NAMES else ""
            found += wrapped(f"    {', '.join(names)}{more}", "    ")
    if len(findings) > LISTED:
        found.append(f"    and {len(findings) - LISTED} more; --json names them all")
    fixes = dict.fromkeys(f.fix for f in findings)
    return [*found, *(line for fix in fixes for line in wrapped(f"  fix: {fix}", "    ")), ""]


def wrapped(text: str, indent: str) -> list[str]:
    """Return a text that is longer than a line of a terminal in several, else as it is."""
    if len(text) <= LONGEST:
        return [text]
    return textwrap.wrap(
        text,
        WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )


def _operators(facts: GraphFacts) -> list[str]:
    assert facts.times is not None
    mine = facts.times.by_op()
    if facts.baseline is None:
        rows = [[op, str(count), f"{share:.1%}"] for op, (count, share) in mine.items()]
        return table(["operator", "nodes", "time"], rows[:TOP])
    theirs = facts.baseline.by_op()
    scale = facts.times.total_ns / facts.baseline.total_ns if facts.baseline.total_ns else 0.0
    names = sorted(
        {*mine, *theirs}, key=lambda op: -max(mine.get(op, (0, 0))[1], theirs.get(op, (0, 0))[1])
    )
    rows = []
    for op in names[:TOP]:
        (before, old), (after, new) = theirs.get(op, (0, 0.0)), mine.get(op, (0, 0.0))
        rows.append([op, str(before), f"{old:.1%}", str(after), f"{new:.1%}"])
    header = ["operator", "nodes before", "time before", "nodes now", "time now"]
    note = (
        f"The profiled time is {scale:.2f} of the baseline's; profiling distorts it, "
        "`trimtab bench` measures it."
    )
    return [*table(header, rows), note]


def document(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return a diagnosis as JSON values."""
    facts = diagnosis.facts
    return {
        "schema": 1,
        "kind": "doctor",
        "model": facts.model.name,
        "healthy": diagnosis.healthy,
        "share": facts.share.to_json(),
        "int8_time_share": None if facts.times is None else int8_time_share(facts.times),
        "target": facts.target.to_json(),
        "findings": [finding.to_json() for finding in diagnosis.findings],
        "operators": _ops_json(facts.times),
        "baseline_operators": _ops_json(facts.baseline),
    }


def _ops_json(profile: Profile | None) -> dict[str, Any] | None:
    if profile is None:
        return None
    return {op: {"nodes": n, "time_share": share} for op, (n, share) in profile.by_op().items()}
