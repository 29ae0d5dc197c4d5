"""Sizes of free axes that are worth trying, in the order in which they are tried."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..model import Model

#: Size of a free axis that is not the batch, where nothing else is known.
DEFAULT = 16
#: Further sizes: of pictures and windows, powers of two, and those that hold a second of sound.
USUAL = (32, 64, 1, 2, 128, 224, 256, 320, 512, 640, 1024, 48, 8, 4, 96, 2048, 4096, 8000, 16000)
#: Largest number of elements of an input that is tried.
MOST_ELEMENTS = 1 << 22
#: Sizes of one axis that are combined with those of others.
COMBINED = 8
#: Number of combinations.
COMBINATIONS = 160
#: Rows of the first try, which show more than one.
TWO = 2

#: An axis of an input: its name and the number of the axis.
Axis = tuple[str, int]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class FreeAxes:
    """Free axes of a model's inputs, grouped into those of one size.

    Attributes:
        rows: groups that are the batch.
        others: all further groups.
    """

    rows: tuple[tuple[Axis, ...], ...]
    others: tuple[tuple[Axis, ...], ...]

    @classmethod
    def of(cls, model: Model, *, linked: bool = True, second: bool = False) -> FreeAxes:
        """Group the free axes.

        Args:
            model: model whose inputs are fed.
            linked: a name has one size wherever it stands; else every axis has its own.
            second: the batch is the second axis of inputs whose first is fixed, as in states.
        """
        groups: dict[object, list[Axis]] = {}
        leading: set[object] = set()
        free_first = any(s.shape and not isinstance(s.shape[0], int) for s in model.inputs)
        for spec in model.inputs:
            for axis, size in enumerate(spec.shape or ()):
                if isinstance(size, int):
                    continue
                key: object = size if linked and size else (spec.name, axis)
                groups.setdefault(key, []).append((spec.name, axis))
                first = isinstance((spec.shape or (0,))[0], int)
                if axis == 0 or (second and free_first and axis == 1 and first):
                    leading.add(key)
        return cls(
            tuple(tuple(g) for key, g in groups.items() if key in leading),
            tuple(tuple(g) for key, g in groups.items() if key not in leading),
        )


def plans(
    model: Model, fixed: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[Shapes, tuple[Axis, ...]]]:
    """Yield shapes of all inputs to try with the axes of their rows, the likeliest first.

    `fixed` has shapes that are given.
    """
    seen: set[tuple[tuple[int, ...], ...]] = set()
    for way, rows, others in _sizes(model):
        shapes = _filled(model, fixed, _set(way, rows, others))
        key = tuple(shapes.values())
        small = all(np.prod(s, dtype=np.float64) <= MOST_ELEMENTS for s in key)
        if key not in seen and (small or not seen):
            seen.add(key)
            # Where only one size of the batch was accepted, that axis is no place for rows.
            yield shapes, tuple(axis for g in way.rows for axis in g) if rows <= TWO else ()


def _sizes(model: Model) -> Iterator[tuple[FreeAxes, int, list[int]]]:
    whole = FreeAxes.of(model)
    split, second = FreeAxes.of(model, linked=False), FreeAxes.of(model, second=True)
    ways = [whole, *(way for way in (second, split) if way != whole)]
    hints = _hints(model)
    for rows in (TWO, 1):
        for way in ways:
            yield way, rows, [DEFAULT] * len(way.others)
    for size in hints:
        for way in ways[:2]:
            yield way, 1, [size] * len(way.others)
    yield from itertools.islice(_combined(ways, hints), COMBINATIONS)


def _combined(
    ways: Sequence[FreeAxes], hints: Sequence[int]
) -> Iterator[tuple[FreeAxes, int, list[int]]]:
    """Yield sizes that differ from axis to axis, the batch included."""
    few = [DEFAULT, *hints[: COMBINED - 1]]
    for way in ways:
        for sizes in sorted(itertools.product(few, repeat=min(len(way.others), 3)), key=sum):
            yield way, 1, list(sizes)
        for size in hints:
            yield way, size, [size] * len(way.others)
            yield way, size, [DEFAULT] * len(way.others)


def _set(way: FreeAxes, rows: int, others: Sequence[int]) -> dict[Axis, int]:
    sizes = {axis: rows for group in way.rows for axis in group}
    padded = [*others, *[DEFAULT] * len(way.others)]
    return sizes | {axis: n for group, n in zip(way.others, padded, strict=False) for axis in group}


def _filled(
    model: Model, fixed: Mapping[str, tuple[int, ...]], sizes: Mapping[Axis, int]
) -> Shapes:
    """Return shapes of all inputs: those given, then named sizes of those, then these sizes."""
    named = {
        str(d): size
        for spec in model.inputs
        for d, size in zip(spec.shape or (), fixed.get(spec.name, ()), strict=False)
        if isinstance(d, str) and d
    }
    shapes: Shapes = {}
    for spec in model.inputs:
        if spec.name in fixed:
            shapes[spec.name] = tuple(fixed[spec.name])
        else:
            shapes[spec.name] = tuple(
                d if isinstance(d, int) else named.get(str(d), sizes[spec.name, i])
                for i, d in enumerate(spec.shape or ())
            )
    return shapes


def _hints(model: Model) -> list[int]:
    """Return sizes that the graph tells, then usual ones: windows, strides, constants of moves."""
    told = [*_windows(model), *_constants(model)]
    return [n for n in dict.fromkeys([*told[:24], *USUAL, *told[24:]]) if n != DEFAULT]


def _windows(model: Model) -> list[int]:
    """Return multiples of the steps from input to output, and sizes above the largest window."""
    steps: dict[ir.Value, int] = {}
    largest = 1
    for node in model.graph.all_nodes():
        before = max((steps.get(v, 1) for v in node.inputs if v is not None), default=1)
        strides = node.attributes.get_ints("strides", ()) if node.op_type != "ConvTranspose" else ()
        for output in node.outputs:
            steps[output] = min(before * max(strides, default=1), 1 << 12)
        largest = max(largest, _window(node))
    step = max(steps.values(), default=1)
    found = [step * n for n in (1, 2, 4, 8)] if step > 1 else []
    return [*found, *(largest * n for n in (1, 2, 4, 8) if largest > DEFAULT)]


def _window(node: ir.Node) -> int:
    """Return the extent of a node's window along its longest side."""
    if node.op_type not in {"Conv", "MaxPool", "AveragePool", "LpPool"}:
        return 1
    kernel = list(node.attributes.get_ints("kernel_shape", ()))
    if not kernel and len(node.inputs) > 1:
        weight = node.inputs[1]
        tensor = weight.const_value if weight is not None else None
        kernel = [int(d) for d in tensor.shape.numpy()[2:]] if tensor is not None else []
    spread = node.attributes.get_ints("dilations", ()) or [1] * len(kernel)
    return max(((k - 1) * d + 1 for k, d in zip(kernel, spread, strict=False)), default=1)


def _constants(model: Model) -> list[int]:
    """Return the sizes in small constants, and of constants that are added or joined."""
    found: list[int] = []
    for node in model.graph.all_nodes():
        for value in node.inputs:
            if value is None or value.const_value is None:
                continue
            tensor = value.const_value
            if node.op_type in {"Reshape", "Slice", "Split", "Resize", "Expand", "Equal"}:
                if tensor.size <= 8 and tensor.dtype == ir.DataType.INT64:
                    found += [int(n) for n in tensor.numpy().reshape(-1)]
            elif node.op_type in {"Add", "Sub", "Mul", "Concat", "MatMul", "Gemm"}:
                found += [int(n) for n in tensor.shape.numpy()]
    return [n for n in found if 1 < n <= 1 << 14]
