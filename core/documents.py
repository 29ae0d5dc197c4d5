"""Bounds on YAML and JSON from strangers, whose size in memory may be any power of that on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from .errors import InputError

#: Bytes of a YAML file that a person may have written.
LARGEST_BYTES = 4 << 20
#: Values that a document may have once its aliases are written out.
MOST_VALUES = 200_000
#: Deepest nesting.
DEEPEST = 64


def check_yaml(text: str, where: str) -> None:
    """Refuse a YAML text that is nested too deeply, or whose aliases multiply.

    It is read as a stream of events, of which none is kept.

    Raises:
        InputError: names the line.
        yaml.YAMLError: it is not valid YAML.
    """
    if len(text) > LARGEST_BYTES:
        raise InputError(f"is larger than {LARGEST_BYTES:,} bytes", where=where)
    counts, anchors, sizes = [0], [""], dict[str, int]()
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.CollectionStartEvent):
            counts.append(1)
            anchors.append(event.anchor or "")
            if len(counts) > DEEPEST:
                raise InputError("is nested too deeply", where=f"{where}, line {line}")
        elif isinstance(event, yaml.CollectionEndEvent):
            count = counts.pop()
            sizes[anchors.pop()] = count
            counts[-1] += count
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in anchors:
                raise InputError("an alias contains itself", where=f"{where}, line {line}")
            counts[-1] += sizes.get(event.anchor or "", 1)
        elif isinstance(event, yaml.ScalarEvent):
            counts[-1] += 1
        if sum(counts) > MOST_VALUES:
            raise InputError(
                f"has more than {MOST_VALUES:,} values once its aliases are written out",
                where=f"{where}, line {line}",
            )


def read_document(path: Path) -> str:
    """Read the text of a file that a person or a command wrote.

    Raises:
        InputError: no such file, or it cannot be read as text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError("no such file", where=str(path), hint="Check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", where=str(path)) from error


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: no such file, or it cannot be read, is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(read_document(path))
    except RecursionError:
        raise InputError("is nested too deeply", where=str(path)) from None
    except ValueError as error:
        raise InputError(f"cannot be read as JSON ({error})", where=str(path)) from error
