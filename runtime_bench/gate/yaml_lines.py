"""YAML in which every value knows its line, and no key is duplicated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import yaml

from trimtab.core.documents import check_yaml
from trimtab.core.errors import InputError

#: Deepest nesting, deeper than any gate; an alias of YAML may even contain itself.
DEEPEST = 8


@dataclass(frozen=True)
class Entry:
    """Value of the file with its line; a list of entries, entries by key, or a scalar."""

    value: Any
    line: int


def documents(text: str, where: str) -> list[Entry]:
    """Return the documents of a text that are not empty.

    Raises:
        InputError: the text is not valid YAML, nested too deeply, or repeats a key; with its line.
    """
    found = []
    loader = None
    try:
        check_yaml(text, where)
        loader = yaml.SafeLoader(text)
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                found.append(_entry(loader, node, where, 0))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise InputError(f"is not valid YAML ({problem})", where=f"{where}{line}") from error
    finally:
        if loader is not None:
            loader.dispose()
    return [entry for entry in found if entry.value is not None]


def _entry(loader: Any, node: yaml.Node, where: str, depth: int) -> Entry:
    line = node.start_mark.line + 1
    if depth > DEEPEST:
        raise InputError("is nested too deeply", where=f"{where}, line {line}")
    if isinstance(node, yaml.SequenceNode):
        return Entry([_entry(loader, item, where, depth + 1) for item in node.value], line)
    if not isinstance(node, yaml.MappingNode):
        return Entry(loader.construct_object(node), line)
    found: dict[str, Entry] = {}
    _refuse_duplicates(node, where)
    loader.flatten_mapping(node)  # `<<: *defaults`
    for key, value in node.value:
        name = str(key.value)
        found[name] = replace(_entry(loader, value, where, depth + 1), line=key.start_mark.line + 1)
    return Entry(found, line)


def _refuse_duplicates(node: yaml.MappingNode, where: str) -> None:
    """Refuse duplicate keys, of which YAML would silently keep the last, and so drop a budget."""
    seen: set[str] = set()
    for key, _ in node.value:
        if str(key.value) in seen:
            raise InputError(
                f"{key.value!r} appears twice",
                where=f"{where}, line {key.start_mark.line + 1}",
                hint="Keep one of them",
            )
        seen.add(str(key.value))
