"""Text and JSON of what a provider takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .check import NodeSupport, Support

#: Most groups of nodes, and most names of a group, that are listed.
LISTED, NAMES = 20, 6


def lines(found: Support) -> list[str]:
    """Format what a provider takes for the terminal."""
    table = found.table
    sizes = ", ".join(f"{name} {'x'.join(map(str, size))}" for name, size in found.sizes.items())
    how = (
        f"{found.answer.package} was asked here"
        if found.answer
        else f"by a table of {table.version}, read {table.read}"
    )
    head = [f"{found.model} on {table.name}, {table.title}: {how}, for {sizes}", _counts(found)]
    text = [*head, "", *_whole(found)]
    for state in ("falls back", "not known"):
        text += _groups([node for node in found.nodes if node.state == state], state)
    if found.not_asked:
        text.append(f"note: {found.not_asked}; the table stands in for it")
    if found.differ:
        many, names = len(found.differ), ", ".join(found.differ[:NAMES])
        text.append(f"note: the table says otherwise of {many} nodes: {names}")
    text += [f"note: {note.says} [{table.sources[note.source]}]" for note in table.notes]
    return [*text, *(f"int8: {note.says} [{table.sources[note.source]}]" for note in table.int8)]


def _counts(found: Support) -> str:
    there, every = found.count("runs there"), len(found.nodes)
    share = (
        f", {found.macs_share:.1%} of the multiply-accumulates"
        if found.macs_share is not None
        else ""
    )
    pieces = f" in {found.parts} part{'s' if found.parts != 1 else ''}" if there else ""
    text = (
        f"{there} of {every} nodes run there{share}{pieces}; {found.count('falls back')} fall back"
    )
    unsure = found.count("not known")
    text += " to the CPU" + (f", {unsure} are not known" if unsure else "")
    if found.inside:
        text += f". {found.inside} nodes stand inside of branches or loops, which count as one each"
    return text


def _whole(found: Support) -> list[str]:
    table = found.table
    if not (found.free and table.fixed_shapes):
        return []
    return [
        f"! the file has free dimensions ({'; '.join(found.free)}), and {table.name} takes "
        "fixed ones alone: as it is, all of it falls back",
        "  fix: give it fixed sizes: `python -m onnxruntime.tools.make_dynamic_shape_fixed`",
        f"  source: {table.sources[table.fixed_shapes]}",
        "",
    ]


def _groups(nodes: Sequence[NodeSupport], state: str) -> list[str]:
    groups: dict[tuple[str, str, str], list[str]] = {}
    for node in nodes:
        groups.setdefault((node.op, node.why, node.source), []).append(node.name)
    text = []
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    for (op, why, source), names in ordered[:LISTED]:
        text.append(f"! {len(names)} x {op} {state}: {why}")
        text.append("    " + ", ".join(names[:NAMES]) + (" ..." if len(names) > NAMES else ""))
        text += [f"  source: {source}"] if source else []
    if len(ordered) > LISTED:
        text.append(f"  and {len(ordered) - LISTED} more kinds; --json names them all")
    return [*text, ""] if text else []


def document(found: Support) -> dict[str, Any]:
    """Return what a provider takes as JSON values."""
    table = found.table
    return {
        "schema": 1,
        "kind": "support",
        "model": found.model,
        "target": table.name,
        "provider": table.provider,
        "version": table.version,
        "read": table.read,
        "asked": found.answer.package if found.answer else None,
        "not_asked": found.not_asked,
        "sizes": {name: list(size) for name, size in found.sizes.items()},
        "free": list(found.free),
        "refuses_free": bool(found.free and table.fixed_shapes),
        "inside": found.inside,
        "parts": found.parts,
        "macs_share": found.macs_share,
        "nodes": [node.to_json() for node in found.nodes],
        "differ": list(found.differ),
    }
