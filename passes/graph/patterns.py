"""Nodes and tensors that a user selects, by name or glob pattern."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import onnx_ir as ir

from trimtab.core.errors import OptionError, nearest
from trimtab.core.target import Target


def matching(names: Sequence[str], pattern: str) -> list[str]:
    """Return the names that a glob pattern matches; a name that is the pattern counts as well.

    Names of files have brackets in them, which are a set of letters in a pattern.
    """
    return [name for name in names if name == pattern or fnmatch.fnmatchcase(name, pattern)]


def match_nodes(patterns: Sequence[str], graph: ir.Graph) -> list[str]:
    """Return the names of the nodes that any of the glob patterns matches.

    Raises:
        OptionError: a pattern matches nothing; the nearest name is suggested.
    """
    names = [node.name or "" for node in graph.all_nodes()]
    return _matches(patterns, names, "node", where="exclude")


def match_tensors(patterns: Sequence[str], tensors: Sequence[str], target: Target) -> list[str]:
    """Return the names of the activations that get 16 bits.

    Raises:
        OptionError: the target has no kernels for them, or a pattern matches nothing.
    """
    if patterns and not target.int16_activations:
        raise OptionError(
            f"target {target.name} has no kernels for 16-bit activations",
            where=f"wide={','.join(patterns)}",
            hint="They would run in float there: leave the layers float with exclude or max_drop",
        )
    return _matches(patterns, tensors, "quantized activation", where="wide")


def _matches(patterns: Sequence[str], names: Sequence[str], what: str, *, where: str) -> list[str]:
    found: dict[str, None] = {}
    for pattern in patterns:
        hits = matching(names, pattern)
        if not hits:
            raise OptionError(
                f"matches no {what}: {pattern!r}", where=where, hint=nearest(pattern, names)
            )
        found.update(dict.fromkeys(hits))
    return list(found)
