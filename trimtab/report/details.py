"""The end of the report: reproduction, environment, lineage, and course of the search."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from .markup import Html, joined, section, table, tag
from .view import View


def details(view: View) -> Html:
    """Draw the sections on reproduction, environment and lineage."""
    sections = [
        section("again", "How to make it again", *_again(view)),
        section("environment", "Environment", _environment(view)),
        section("lineage", "Lineage", _lineage(view)),
        section("search", "How the search went", *_search(view)),
    ]
    return joined(sections)


def recipe_text(view: View) -> str:
    """Return the winner's recipe as YAML; empty where there is no winner."""
    if view.recipe is None:
        return ""
    return str(yaml.safe_dump(dict(view.recipe), sort_keys=False, width=100))


def _again(view: View) -> list[Html]:
    if view.recipe is None:
        return [tag("p", "Nothing was chosen.", class_="none")]
    run = tag("code", "trimtab run recipe.yaml -o again")
    gate = tag("code", "trimtab gate budgets.yaml")
    kept = " keeps its figures where that file was written."
    text = tag("p", run, " makes the same bytes; ", gate, kept)
    return [text, _code(recipe_text(view), "The recipe")]


def _code(text: str, label: str) -> Html:
    return tag("pre", tag("code", text), tabindex="0", role="region", aria_label=label)


def _environment(view: View) -> Html:
    rows = [[key.replace("_", " "), _plain(value)] for key, value in view.environment.items()]
    rows += [[f"{name} data", _plain(part)] for name, part in view.data.items()]
    rows += [[f"digest of the {k}", v] for k, v in view.evidence.get("digests", {}).items()]
    if not rows:
        return tag("p", "Nothing is known.", class_="none")
    return table(["fact", "value"], rows, caption="Machine, software and data", numeric=())


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_plain(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return "-" if value in (None, "") else str(value)


def _lineage(view: View) -> Html:
    steps = view.evidence.get("lineage") or ()
    if not steps:
        return tag("p", "Nothing was recorded.", class_="none")
    return tag("ol", joined(_step(step) for step in steps), class_="lineage")


def _step(step: Mapping[str, Any]) -> Html:
    params, notes = dict(step.get("params", {})), dict(step.get("notes", {}))
    declined = notes.pop("declined", [])
    inside = [
        _code(json.dumps(part, indent=1, default=str), f"{title} of {step['pass']}")
        for title, part in (("parameters", params), ("notes", notes))
        if part
    ]
    if declined:
        rows = [[str(node), str(reason)] for node, reason in declined]
        inside.append(table(["node", "reason"], rows, caption="Left alone", numeric=()))
    name = tag("strong", step["pass"])
    source = tag("span", f" from {str(step['input'])[:12]}", class_="note")
    if not inside:
        return tag("li", name, source)
    return tag("li", tag("details", tag("summary", name, source), *inside))


def _search(view: View) -> list[Html]:
    effort, decisions = view.document.get("effort") or {}, view.document.get("decisions") or ()
    found = []
    if effort:
        rows = [[str(k).replace("_", " "), _plain(v)] for k, v in effort.items()]
        found.append(table(["figure", "value"], rows, caption="Effort"))
    if decisions:
        keys = list(dict.fromkeys(key for d in decisions for key in d))
        rows = [[_plain(d.get(key)) for key in keys] for d in decisions]
        shown = table(keys, rows, caption="What was decided on which evidence", numeric=())
        found.append(tag("details", tag("summary", f"{len(rows)} decisions"), shown))
    looks = int(view.document.get("looks", 1))
    verb = "candidate was" if looks == 1 else "candidates were"
    found.append(tag("p", f"{looks} {verb} confirmed on the test split."))
    return found
