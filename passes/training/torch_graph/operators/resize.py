"""Resize and Upsample: interpolation along one axis after another.

The coordinate formulas are those of the ONNX specification; torch's `interpolate` has only some of
them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .table import NodeSpec, Run, integers, op

#: (positions in the output, input size, output size, scale) -> coordinates in the input
Coordinates = Callable[[Tensor, int, int, float], Tensor]


def _half_pixel(x: Tensor, scale: float) -> Tensor:
    return (x + 0.5) / scale - 0.5


_COORDINATES: dict[str, Coordinates] = {
    "half_pixel": lambda x, _size, _out, scale: _half_pixel(x, scale),
    "half_pixel_symmetric": lambda x, size, out, scale: (
        size / 2 * (1 - out / (scale * size)) + _half_pixel(x, scale)
    ),
    "pytorch_half_pixel": lambda x, _size, out, scale: (
        _half_pixel(x, scale) if out > 1 else torch.zeros_like(x)
    ),
    "asymmetric": lambda x, _size, _out, scale: x / scale,
    "align_corners": lambda x, size, out, _scale: x * ((size - 1) / max(out - 1, 1)),
}
_NEAREST: dict[str, Callable[[Tensor], Tensor]] = {
    "round_prefer_floor": lambda x: torch.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: torch.floor(x + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}


@op("Resize", "Upsample", host=(1, 2, 3))
def resize(spec: NodeSpec) -> Run:
    """Resize by nearest, linear or cubic interpolation, by scales or sizes."""
    coordinates = spec.get("coordinate_transformation_mode", "half_pixel")
    simple = spec.version < 11  # plain division, rounded down
    if simple:
        coordinates = "asymmetric"
    for name, wanted in (("antialias", 0), ("keep_aspect_ratio_policy", "stretch")):
        if spec.get(name, wanted) != wanted:
            raise spec.refuse(f"{name} {spec.get(name)!r}")
    if coordinates not in _COORDINATES:
        raise spec.refuse(f"coordinate_transformation_mode {coordinates!r}")
    axis_of = _axis_function(spec, _COORDINATES[coordinates], simple=simple)

    def run(x: Tensor, *inputs: Tensor | None) -> Tensor:
        axes = [a % x.ndim for a in spec.get("axes") or range(x.ndim)]
        scales, sizes = _scales_and_sizes(spec, inputs)
        for i, axis in enumerate(axes):
            size = x.shape[axis]
            out = sizes[i] if sizes else int(size * scales[i])
            scale = out / size if sizes else scales[i]
            if out != size or scale != 1:
                x = axis_of(x, axis, out, scale)
        return x

    return run


def _scales_and_sizes(
    spec: NodeSpec, inputs: Sequence[Tensor | None]
) -> tuple[list[float], list[int]]:
    """Return scales and sizes; one of them is empty."""
    if spec.version < 11:
        scales = inputs[0].tolist() if inputs and inputs[0] is not None else spec.get("scales")
        return list(scales), []
    _, scales, sizes = [*inputs, None, None, None][:3]
    return [] if scales is None else scales.tolist(), [] if sizes is None else integers(sizes)


def _axis_function(
    spec: NodeSpec, coordinates: Coordinates, *, simple: bool
) -> Callable[[Tensor, int, int, float], Tensor]:
    mode = spec.get("mode", "nearest")
    if mode not in {"nearest", "linear", "cubic"}:
        raise spec.refuse(f"mode {mode!r}")
    rule = "floor" if simple else spec.get("nearest_mode", "round_prefer_floor")
    cubic = spec.get("cubic_coeff_a", -0.75)
    outside = bool(spec.get("exclude_outside", 0))

    def along(x: Tensor, axis: int, out: int, scale: float) -> Tensor:
        size = x.shape[axis]
        place = coordinates(torch.arange(out, dtype=torch.float32), size, out, scale)
        if mode == "nearest":
            return _pick(x, axis, _NEAREST[rule](place))
        if mode == "linear":
            place = place.clamp(0, size - 1)
            low = place.floor()
            weight = place - low
            return _mix(x, axis, [low, low + 1], [1 - weight, weight])
        low = place.floor()
        neighbours = [low + i for i in (-1, 0, 1, 2)]
        weights = _cubic(place - low, cubic)
        if outside:
            pairs = zip(weights, neighbours, strict=True)
            weights = [w * ((t >= 0) & (t < size)).float() for w, t in pairs]
            total = torch.stack(weights).sum(0)
            weights = [w / total for w in weights]
        return _mix(x, axis, neighbours, weights)

    return along


def _cubic(t: Tensor, a: float) -> list[Tensor]:
    """Return the weights of four neighbours (Keys, "Cubic convolution interpolation", 1981)."""

    def near(d: Tensor) -> Tensor:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Tensor) -> Tensor:
        return ((d - 5) * d + 8) * d * a - 4 * a

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


def _pick(x: Tensor, axis: int, place: Tensor) -> Tensor:
    rows = place.clamp(0, x.shape[axis] - 1).long().to(x.device)
    return x.index_select(axis, rows)


def _mix(x: Tensor, axis: int, places: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    shape = [-1 if i == axis else 1 for i in range(x.ndim)]
    pairs = zip(places, weights, strict=True)
    return torch.stack([_pick(x, axis, p) * w.to(x).view(shape) for p, w in pairs]).sum(0)
