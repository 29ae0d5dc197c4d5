"""Notes of a pass in short lines for people; --json and the lineage have the whole of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trimtab.core.text import bytes_text, counted, shortened, table

#: Notes that other lines tell, and those for programs.
_ELSEWHERE = frozenset({"as_written", "bytes", "data", "declined", "float_nodes", "promise"})
#: Notes that become one line on what runs in int8.
_INT8 = ("int8_ops", "float_ops", "leftover_qdq", "int8_share")
_TYPES = ("activation", "weight", "reduce_range")
#: Characters of a list, of a name in it, of a text, and of the longest line, as of a wide table.
LINE, NAME, TEXT, LONGEST = 100, 60, 160, 240
#: Names shown of a list, and rows of a table.
FEW, ROWS = 3, 12
#: What stands for a note's key where that alone says little.
_TITLES = {
    "forms": "rewritten for int8 kernels",
    "half": "operators in float16",
    "casts": "conversions to and from float16",
    "float32_weights": "share of the weights left float32",
    "relative_rms_error": "relative RMS error",
    "relative_rms_error_without_islands": "relative RMS error with all in float16",
    "islands": "left float32",
    "held_out": "samples held out",
    "samples": "samples calibrated on",
    "macs": "multiply-accumulates",
    "oracle": "difference from the same model with those channels masked",
    "repaired": "layers refitted",
    "overflow": "16-bit sums that saturate on x64 without VNNI",
    "over": "largest sum, of what fits",
    "lost": "lost by that",
    "share_of_all": "share of all weights",
    "gzip_bytes": "compressed by gzip",
    "peak_bytes": "memory at its peak while loading",
    "weight_bytes": "weights",
    "latency_ms": "latency in ms",
    "ops": "operators",
    "products": "matrix products",
    "corrected": "biases corrected",
    "items": "items to train on, and to judge on",
    "validation": "loss on the items to judge on",
}
#: Pairs that are no value before and after.
_PAIRS = frozenset({"items"})


def note_lines(notes: Mapping[str, Any]) -> list[str]:
    """Return the notes of a step of the lineage in lines that a person reads."""
    notes = _joined(notes)
    lines: list[str] = []
    for key, value in notes.items():
        nothing = value in ({}, [], (), None, "") or (_is_count(value) and value == 0)
        if key in _ELSEWHERE or key in _TYPES or (nothing and key not in _INT8):
            continue
        if key == "int8_share":
            lines += _int8(notes)
        elif key == "mixed" and isinstance(value, Mapping) and "metric" in value:
            lines += _mixed(value)
        elif key not in _INT8:
            lines += _note(key, value)
    return [shortened(line, LONGEST) for line in (*lines, *left_alone_lines(notes))]


def _joined(notes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the notes without those that repeat another, and with a size's two ends in one."""
    joined = dict(notes)
    if "weight_bytes_before" in joined and "weight_bytes" in joined:
        joined["weight_bytes"] = [joined.pop("weight_bytes_before"), joined["weight_bytes"]]
    if isinstance(joined.get("tried"), Mapping):  # which has their reasons, with figures
        told = joined["tried"]
        joined["declined"] = [d for d in joined.get("declined", ()) if d[0] not in told]
    if "steps" in joined:  # whose last row tells it
        joined.pop("squared_relative_error", None)
    if isinstance(joined.get("curve"), list) and len(joined["curve"]) == 1:  # nothing was tried
        joined.pop("curve")
        joined.pop("relative_rms_error_without_islands", None)
    return joined


def _int8(notes: Mapping[str, Any]) -> list[str]:
    """Return how much runs in int8, and the types of it."""
    counts = [notes.get(key, 0) for key in _INT8]
    inside, outside, conversions, share = counts
    told = f"in int8: {inside} of {counted(inside + outside, 'operator')}, {share:.1%} of the "
    told += f"multiply-accumulates; {counted(conversions, 'conversion')} to and from float"
    lines = [told]
    if "activation" in notes and "weight" in notes:
        bits = " of 7 bits" if notes.get("reduce_range") else ""
        lines.append(f"types: activations {notes['activation']}, weights {notes['weight']}{bits}")
    return lines


def _mixed(mixed: Mapping[str, Any]) -> list[str]:
    """Return how many layers stay float or take 16 bits, and what the metric loses with that."""
    layers = mixed.get("nodes", len(mixed.get("ranking", ())))
    wide, slower = mixed.get("wide", ()), len(mixed.get("slower", ()))
    what = f"{len(mixed.get('float', ()))} of {counted(layers, 'layer')} stay float"
    what += f", {slower} as int8 makes them slower" if slower else ""
    if wide:
        what = f"{counted(len(wide), 'tensor')} in 16 bits"
    tried, drop = counted(len(mixed.get("curve", ())), "mixture"), mixed.get("drop", 0.0)
    return [f"mixed precision: {what}; {mixed.get('metric')} falls by {drop:.4g} ({tried} tried)"]


def left_alone_lines(notes: Mapping[str, Any]) -> list[str]:
    """Return what a pass left alone, by reason, the most frequent first, with some of the names."""
    found = {str(node): str(reason) for node, reason in notes.get("declined", ())}
    for node, reason in notes.get("float_nodes", ()):
        found.setdefault(str(node), str(reason))
    if not found:
        return []
    by_reason: dict[str, list[str]] = {}
    for node, reason in found.items():
        by_reason.setdefault(reason, []).append(node)
    groups = sorted(by_reason.items(), key=lambda group: -len(group[1]))
    lines = [f"left alone ({len(found)}):"]
    for reason, nodes in groups[:ROWS]:
        why = shortened(reason, TEXT)
        if len(nodes) == 1:
            lines.append(f"  {shortened(nodes[0], NAME)}: {why}")
        else:
            lines += [f"  {len(nodes)}: {why}", f"    {_few(nodes)}"]
    more = sum(len(nodes) for _, nodes in groups[ROWS:])
    return [*lines, *([f"  and {more} more"] if more else [])]


def _note(key: str, value: Any) -> list[str]:
    title = shortened(_TITLES.get(key, key.replace("_", " ")), NAME)
    rows = _rows(key, value)
    if rows is None:
        return [f"{title}: {_text(key, value)}"]
    shown = [f"  {row}" for row in rows]
    return [f"{title}:", *shown]


def _rows(key: str, value: Any) -> list[str] | None:
    """Return a line for each entry of a note that does not fit on one; None where it does."""
    if isinstance(value, Mapping):
        if any(isinstance(each, Mapping) for each in value.values()):
            named = [
                {"name": k, **(v if isinstance(v, Mapping) else {"value": v})}
                for k, v in value.items()
            ]
            return _table(named)
        texts = [f"{shortened(str(k), NAME)}: {_text(key, v)}" for k, v in value.items()]
        if all(_is_count(v) for v in value.values()) and len(", ".join(texts)) < LINE:
            return None
        return _first(texts)
    if isinstance(value, Sequence) and not isinstance(value, str):
        if any(value) and all(isinstance(each, Mapping) for each in value):
            return _table(value)
        if any(" " in each for each in value if isinstance(each, str)):  # sentences
            return _first([_text(key, each) for each in value])
    return None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _first(rows: Sequence[str]) -> list[str]:
    more = len(rows) - ROWS
    return [*rows[:ROWS], *([f"and {more} more"] if more > 0 else [])]


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = sorted(dict.fromkeys(key for row in rows for key in row), key="why".__eq__)
    cells = [[_text(k, row[k]) if k in row else "" for k in keys] for row in rows[:ROWS]]
    heads = [shortened(_TITLES.get(k, str(k).replace("_", " ")), NAME) for k in keys]
    lines = table(heads, [[shortened(c, LINE if " " in c else NAME) for c in r] for r in cells])
    more = len(rows) - ROWS
    return [*lines, *([f"and {more} more"] if more > 0 else [])]


def _text(key: str, value: Any) -> str:
    """Return a note's value, or a part of it, on one line."""
    if isinstance(value, Mapping):
        return shortened(", ".join(f"{k} {_text(k, v)}" for k, v in value.items()), TEXT)
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) == 2 and all(isinstance(each, int | float) for each in value):
            return (", " if key in _PAIRS else " -> ").join(_number(key, each) for each in value)
        return _few([_text(key, each) for each in value])
    if isinstance(value, int | float):
        return _number(key, value)
    return "-" if value is None else shortened(str(value), TEXT)


def _few(texts: Sequence[str]) -> str:
    """Return the first of the texts that fit on a line, and how many more there are."""
    shown = [shortened(text, NAME) for text in texts[:FEW]]
    while len(shown) > 1 and len(", ".join(shown)) > LINE - 20:
        shown.pop()
    more = len(texts) - len(shown)
    return f"{', '.join(shown)}{f' and {more} more' if more else ''}"


def _number(key: str, value: float) -> str:
    """Write a number in the unit that the name of its note ends with."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    units: tuple[tuple[str, Callable[[float], str]], ...] = (
        ("bytes", bytes_text),
        ("share", "{:.1%}".format),
        ("share_of_all", "{:.1%}".format),
        ("sparsity", "{:.1%}".format),
    )
    for end, write in units:
        if key.endswith(end):
            return write(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
