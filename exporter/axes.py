"""Sizes at which a proof tries the named axes, and the range for which it holds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import SymInt

from .specs import Dynamic, Ranges

#: Name of an axis, and those of the two of which it is the sum, as `total` of `past` and `new`.
Sums = dict[str, tuple[str, str]]
#: Least size that torch's exporter assumes of each dynamic axis: it fixes sizes 0 and 1.
LEAST = 2


def sums_of(sizes: Mapping[str, int], batch: Collection[str]) -> Sums:
    """Return the axes that are as long as two others together, as a mask over past and new tokens.

    A sum by chance makes the proof move these axes together, which the module permits as well.
    """
    free = sorted((size, name) for name, size in sizes.items() if name not in batch)
    found: Sums = {}
    for total, name in free:
        pairs = (
            (a, b)
            for i, (first, a) in enumerate(free)
            for second, b in free[i + 1 :]
            if first + second == total and name not in {a, b}
        )
        pair = next(pairs, None)
        if pair:
            found[name] = pair
    return found


def add_up(sizes: Mapping[str, int], sums: Sums) -> dict[str, int]:
    """Return the sizes with each sum computed from its parts; `sums` are in ascending order."""
    made = dict(sizes)
    for name, (first, second) in sums.items():
        made[name] = made[first] + made[second]
    return made


def moved_sizes(
    sizes: Mapping[str, int], batch: Mapping[str, int], ranges: Ranges
) -> Iterator[dict[str, int]]:
    """Yield other sizes for all axes, the likeliest to be accepted first, the example's last.

    All move in one direction, down if possible: tables have an end. Networks with strides take
    only multiples, thus halves and doubles.

    Args:
        sizes: sizes of the example.
        batch: sizes of the axes that count items.
        ranges: sizes that the user permits.
    """
    sums = sums_of(sizes, batch)
    free = {n: s for n, s in sizes.items() if n not in batch}
    parts = [size for name, size in free.items() if name not in sums]
    step = -1 if all(size > 3 for size in parts) else 1
    choices = [{n: s + step for n, s in free.items()}]
    if all(size % 2 == 0 and size > 3 for size in parts):
        choices.append({n: s // 2 for n, s in free.items()})
    choices += [{n: s * 2 for n, s in free.items()}, {n: s + 32 for n, s in free.items()}]
    for choice in choices:
        made = add_up({**choice, **batch}, sums)
        if all(in_range(size, ranges.get(name)) for name, size in made.items()):
            yield made
    yield {**sizes, **batch}


def in_range(size: int, allowed: tuple[int, int | None] | None) -> bool:
    """Return whether a size is within a range; None permits all."""
    low, high = allowed or (1, None)
    return low <= size and (high is None or size <= high)


def nearest_size(size: int, allowed: tuple[int, int | None] | None) -> int:
    """Return the size within a range that is nearest to `size`."""
    low, high = allowed or (1, None)
    return max(low, size if high is None else min(size, high))


def captured_ranges(exported: Any, names: tuple[str, ...], dynamic: Dynamic) -> Ranges:
    """Return the range of each axis for which torch's capture is made, by its own account.

    Args:
        exported: torch's `ExportedProgram`.
        names: inputs of the graph, in order.
        dynamic: axis names by input.
    """
    values = [node.meta.get("val") for node in exported.graph.nodes if node.op == "placeholder"]
    values = values[len(values) - len(names) :]  # weights come first
    ranges: Ranges = {}
    for name, value in zip(names, values, strict=True):
        for axis, label in dynamic.get(name, {}).items():
            size = value.shape[axis]
            if isinstance(size, SymInt):
                found = exported.range_constraints.get(size.node.expr)
                if found is not None:
                    ranges[label] = _bounds(found)
    return ranges


def _bounds(found: Any) -> tuple[int, int | None]:
    # No bound is an infinity of torch's own, or one of its largest integers.
    low = int(found.lower) if found.lower.is_Integer else 0
    high = int(found.upper) if found.upper.is_Integer and found.upper < 2**31 else None
    return max(low, LEAST), high


def sizes_outside(
    sizes: Mapping[str, int], captured: Ranges, ranges: Ranges, batch: Collection[str]
) -> Iterator[tuple[str, int, dict[str, int]]]:
    """Yield sizes just outside of what torch's capture is made for, and within what is claimed.

    Yields:
        The axis, its size, and the sizes of all axes.
    """
    sums = sums_of(sizes, batch)
    for name in sizes:
        if name in sums:
            continue
        low, high = captured.get(name, (LEAST, None))
        edges = {1, low - 1} | ({high + 1} if high is not None else set())
        for size in sorted(edges, reverse=True):
            if size >= 1 and in_range(size, ranges.get(name)):
                yield name, size, add_up({**sizes, name: size}, sums)
