"""Operators that move elements: reshapes, slices, pads and the like."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from .table import NodeSpec, Run, integers, op, register_functions


@op("Reshape", host=(1,))
def reshape(spec: NodeSpec) -> Run:
    """Reshape; a size of 0 is that of the input, unless `allowzero`."""
    literal = spec.get("allowzero", 0)

    def run(x: Tensor, shape: Tensor) -> Tensor:
        sizes = integers(shape)
        if not literal:
            sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
        return x.reshape(sizes)

    return run


@op("Flatten")
def flatten(spec: NodeSpec) -> Run:
    """Flatten to two axes: those before `axis`, and the others."""
    axis = spec.get("axis", 1)

    return lambda x: x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@op("Transpose")
def transpose(spec: NodeSpec) -> Run:
    """Permute axes; reverse them where no order is given."""
    perm = spec.get("perm")
    return lambda x: x.permute(perm if perm is not None else tuple(reversed(range(x.ndim))))


@op("Squeeze", host=(1,))
def squeeze(spec: NodeSpec) -> Run:
    """Remove axes of size 1, all of them where none are given."""

    def run(x: Tensor, chosen: Tensor | None = None) -> Tensor:
        axes = spec.sizes("axes", chosen)
        return x.squeeze(tuple(axes)) if axes else x.squeeze()

    return run


@op("Unsqueeze", host=(1,))
def unsqueeze(spec: NodeSpec) -> Run:
    """Insert axes of size 1 at these positions of the result."""

    def run(x: Tensor, chosen: Tensor | None = None) -> Tensor:
        axes = spec.sizes("axes", chosen)
        rank = x.ndim + len(axes)
        for axis in sorted(a % rank for a in axes):
            x = x.unsqueeze(axis)
        return x

    return run


@op("Concat")
def concat(spec: NodeSpec) -> Run:
    """Concatenate along an axis."""
    axis = spec.get("axis", 1)
    return lambda *x: torch.cat(x, axis)


@op("Split", host=(1,))
def split(spec: NodeSpec) -> Run:
    """Split into parts of the given sizes, else evenly with a smaller last one."""
    axis, parts = spec.get("axis", 0), len(spec.used)

    def run(x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, ...]:
        sizes = spec.sizes("split", lengths)
        if sizes:
            return torch.split(x, sizes, axis)
        each = -(-x.shape[axis] // parts)
        rest = x.shape[axis] - each * (parts - 1)
        return torch.split(x, [each] * (parts - 1) + [rest], axis)

    return run


@op("Slice", host=(1, 2, 3, 4))
def slice_(spec: NodeSpec) -> Run:
    """Slice as Python does; starts and ends are attributes before opset 10."""

    def run(x: Tensor, *inputs: Tensor | None) -> Tensor:
        names = ("starts", "ends", "axes", "steps")
        starts, ends, axes, steps = (spec.sizes(k, *inputs[i : i + 1]) for i, k in enumerate(names))
        axes, steps = axes or list(range(len(starts))), steps or [1] * len(starts)
        for begin, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            x = _slice(x, begin, end, axis % x.ndim, step)
        return x

    return run


_ENDLESS = (2**31 - 1, 2**63 - 1)


def _slice(x: Tensor, begin: int, end: int, axis: int, step: int) -> Tensor:
    size = x.shape[axis]
    if step < 0:
        # torch has no negative steps. As in onnxruntime, and unlike Python, a start before the
        # first element is the first, and the largest integers mean down to the first.
        begin = min(max(begin + size if begin < 0 else begin, 0), size - 1)
        end = -1 if end in _ENDLESS else max(end + size if end < 0 else end, -1)
        places = list(range(begin, end, step))
        return x.index_select(axis, torch.tensor(places, dtype=torch.int64, device=x.device))
    begin, end, step = slice(begin, end, step).indices(size)
    if begin == 0 and end == size and step == 1:
        return x
    cut = x.narrow(axis, begin, max(end - begin, 0))
    if step == 1:
        return cut
    return cut[(slice(None),) * axis + (slice(None, None, step),)]


def _expand(x: Tensor, shape: Tensor) -> Tensor:
    """Broadcast in both directions."""
    return x.expand(torch.broadcast_shapes(x.shape, integers(shape)))  # type: ignore[no-untyped-call]


register_functions({"Expand": _expand, "Tile": lambda x, by: x.repeat(integers(by))}, host=(1,))


@op("Pad", host=(1, 2, 3))
def pad(spec: NodeSpec) -> Run:
    """Pad; pads are attributes before opset 11, axes exist since opset 18."""
    mode = spec.get("mode", "constant")
    if mode not in {"constant", "reflect", "edge", "wrap"}:
        raise spec.refuse(f"mode {mode!r}")

    def run(
        x: Tensor,
        pads: Tensor | None = None,
        value: Tensor | None = None,
        chosen: Tensor | None = None,
    ) -> Tensor:
        sides = spec.sizes("pads", pads)
        axes = integers(chosen) if chosen is not None else range(x.ndim)
        fill = value.item() if value is not None else spec.get("value", 0.0)
        half = len(sides) // 2
        pairs = [(0, 0)] * x.ndim
        for i, axis in enumerate(axes):
            pairs[axis] = (sides[i], sides[half + i])
        if mode != "constant":
            return _mirror(x, pairs, mode)
        flat = [side for pair in reversed(pairs) for side in pair]
        while flat and not (flat[-1] or flat[-2]):  # torch copies even for axes without padding
            flat = flat[:-2]
        return functional.pad(x, flat, value=fill) if flat else x

    return run


def _mirror(x: Tensor, pairs: list[tuple[int, int]], mode: str) -> Tensor:
    """Pad axis by axis by indices: torch's own modes support some ranks only."""
    for axis, (before, after) in enumerate(pairs):
        if not (before or after):
            continue
        size = x.shape[axis]
        place = torch.arange(-before, size + after)
        if mode == "edge":
            place = place.clamp(0, size - 1)
        else:
            period = size if mode == "wrap" else max(2 * (size - 1), 1)
            place = place % period
            place = torch.where(place >= size, period - place, place)
        x = x.index_select(axis, place.to(x.device))
    return x


@op("DepthToSpace")
def depth_to_space(spec: NodeSpec) -> Run:
    """Move channels to blocks of pixels, in the order DCR or CRD."""
    b, crd = spec.get("blocksize"), spec.get("mode", "DCR") == "CRD"

    def run(x: Tensor) -> Tensor:
        if crd:
            return functional.pixel_shuffle(x, b)
        n, c, h, w = x.shape
        y = x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2)
        return y.reshape(n, c // (b * b), h * b, w * b)

    return run


@op("SpaceToDepth")
def space_to_depth(spec: NodeSpec) -> Run:
    """Move blocks of pixels to channels."""
    b = spec.get("blocksize")

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4)
        return y.reshape(n, c * b * b, h // b, w // b)

    return run
