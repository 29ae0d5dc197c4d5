"""Resize and Upsample: gathers along one axis after another, with weights where it interpolates.

The coordinate formulas are those of the ONNX operator's text; torch's `interpolate` has some of
them only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .table import Run, Site, integers, op

#: (positions in the output, input size, output size, scale) -> coordinates in the input
Coordinates = Callable[[Tensor, int, int, float], Tensor]


def _half_pixel(x: Tensor, size: int, out: int, scale: float) -> Tensor:  # noqa: ARG001
    return (x + 0.5) / scale - 0.5


def _pytorch_half_pixel(x: Tensor, size: int, out: int, scale: float) -> Tensor:
    return _half_pixel(x, size, out, scale) if out > 1 else torch.zeros_like(x)


def _symmetric(x: Tensor, size: int, out: int, scale: float) -> Tensor:
    center = size / 2
    return center * (1 - out / (scale * size)) + _half_pixel(x, size, out, scale)


def _asymmetric(x: Tensor, size: int, out: int, scale: float) -> Tensor:  # noqa: ARG001
    return x / scale


def _align_corners(x: Tensor, size: int, out: int, scale: float) -> Tensor:  # noqa: ARG001
    return x * ((size - 1) / (out - 1)) if out > 1 else torch.zeros_like(x)


_COORDINATES: dict[str, Coordinates] = {
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _symmetric,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "asymmetric": _asymmetric,
    "align_corners": _align_corners,
}
_NEAREST: dict[str, Callable[[Tensor], Tensor]] = {
    "round_prefer_floor": lambda x: torch.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: torch.floor(x + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}


@op("Resize", "Upsample", host=(1, 2, 3))
def resize(site: Site) -> Run:
    """Nearest, linear and cubic, by scales or by sizes."""
    coordinates = site.get("coordinate_transformation_mode", "half_pixel")
    simple = site.version < 11  # by plain division, downwards
    if simple:
        coordinates = "asymmetric"
    for name, wanted in (("antialias", 0), ("keep_aspect_ratio_policy", "stretch")):
        if site.get(name, wanted) != wanted:
            raise site.refuse(f"{name} {site.get(name)!r}")
    if coordinates not in _COORDINATES:
        raise site.refuse(f"coordinate_transformation_mode {coordinates!r}")
    axis_of = _axis_function(site, _COORDINATES[coordinates], simple=simple)

    def run(x: Tensor, *given: Tensor | None) -> Tensor:
        axes = [a % x.ndim for a in site.get("axes") or range(x.ndim)]
        scales, sizes = _wanted(site, given)
        for i, axis in enumerate(axes):
            size = x.shape[axis]
            out = sizes[i] if sizes else int(size * scales[i])
            scale = out / size if sizes else scales[i]
            if out != size or scale != 1:
                x = axis_of(x, axis, out, scale)
        return x

    return run


def _wanted(site: Site, given: Sequence[Tensor | None]) -> tuple[list[float], list[int]]:
    """Scales and sizes; one of them is empty."""
    if site.version < 11:
        scales = given[0].tolist() if given and given[0] is not None else site.get("scales")
        return list(scales), []
    sizes = integers(given[2]) if len(given) > 2 else []
    scales = given[1].tolist() if len(given) > 1 and given[1] is not None else []
    return list(scales), sizes


def _axis_function(
    site: Site, coordinates: Coordinates, *, simple: bool
) -> Callable[[Tensor, int, int, float], Tensor]:
    mode = site.get("mode", "nearest")
    if mode not in {"nearest", "linear", "cubic"}:
        raise site.refuse(f"mode {mode!r}")
    rule = "floor" if simple else site.get("nearest_mode", "round_prefer_floor")
    cubic = site.get("cubic_coeff_a", -0.75)
    outside = bool(site.get("exclude_outside", 0))

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
        taps = [low + i for i in (-1, 0, 1, 2)]
        weights = _cubic(place - low, cubic)
        if outside:
            inside = [((t >= 0) & (t < size)).float() for t in taps]
            weights = [w * i for w, i in zip(weights, inside, strict=True)]
            total = torch.stack(weights).sum(0)
            weights = [w / total for w in weights]
        return _mix(x, axis, taps, weights)

    return along


def _cubic(t: Tensor, a: float) -> list[Tensor]:
    """Keys, "Cubic convolution interpolation", 1981: weights of the four neighbours."""

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
    parts = [
        _pick(x, axis, place) * weight.to(x).view(shape)
        for place, weight in zip(places, weights, strict=True)
    ]
    return torch.stack(parts).sum(0)
