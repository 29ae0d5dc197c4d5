"""Outputs with what is kept of each, and the examples that changed most, as sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .markup import Html, joined, table, tag
from .view import View

OUTPUT_HEADER = ("output", "what it is", "kept")
#: Beginning of the only pictures that a page shows: those that it holds itself.
_INLINE = "data:image/"


def output_rows(view: View) -> list[list[str]]:
    """Return the cells of a table of the outputs under `OUTPUT_HEADER`."""
    found = _found(view).get("outputs") or ()
    return [[str(o["name"]), str(o["kind"]), f"{float(o['value']):.4f}"] for o in found]


def outputs(view: View) -> Html:
    """List what is kept of each output of the original."""
    rows, found = output_rows(view), _found(view)
    if not rows:
        missing = view.evidence.get("missing", {}).get("examples", "Nothing was compared.")
        return tag("p", str(missing), class_="none")
    caption = f"On {found.get('items', '?')} items that nothing was calibrated on; 1 is all"
    return table(OUTPUT_HEADER, rows, caption=caption, numeric=range(2, 3))


def examples(view: View) -> list[Html]:
    """Draw the answers of both models to the items that changed most."""
    found = _found(view)
    listed = found.get("examples") or ()
    if not listed:
        return [tag("p", "No item was looked at.", class_="none")]
    text = f"Of {found.get('items', '?')} items those that changed most, the worst first."
    notes = [tag("p", note, class_="note") for note in (text, found.get("note")) if note]
    return [*notes, *map(_example, listed)]


def _found(view: View) -> Mapping[str, Any]:
    known: Mapping[str, Any] = view.evidence.get("examples") or {}
    return known


def _example(example: Mapping[str, Any]) -> Html:
    name, kept = str(example["name"]), float(example["kept"])
    title = tag("h3", name, tag("small", f" {example['output']}: {kept:.4f} kept"))
    sides = [
        _side(example["float"], "original"),
        _side(example["ours"], "chosen"),
    ]
    return tag("div", title, tag("div", *sides, class_="pair"), class_="example")


def _side(side: Mapping[str, Any], label: str) -> Html:
    text, source = str(side["text"]), str(side.get("image", ""))
    inline = source.startswith(_INLINE)
    image = tag("img", src=source, alt=f"{label}: {text}", loading="lazy") if inline else None
    caption = tag("figcaption", joined([tag("strong", label), f": {text}"]))
    return tag("figure", image, caption)
