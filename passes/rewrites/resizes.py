"""Spellings of nearest upsampling by whole factors, y[i, j] = x[i // s, j // t].

A Resize gives that where its coordinates are asymmetric and floored, as torch writes it, and where
pixel centres are half and rounded: (i + 1/2) / s - 1/2 rounds to i // s for every whole s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..graph.queries import attr, const, dims, input_at, ints, is_float, only_user, producer
from .rule import Found, Writer, rewrite_rule

#: Most copies of channels that DepthToSpace may need.
MOST_COPIES = 16


@dataclass(frozen=True)
class ResizeFactors:
    """Whole factors of height and width, of an image of known size."""

    source: ir.Value
    channels: int
    size: tuple[int, int]
    factors: tuple[int, int]


def _resize_factors(resize: ir.Node) -> ResizeFactors | str | None:
    source, out = resize.inputs[0], resize.outputs[0]
    before, after = dims(source), dims(out)
    if attr(resize, "mode", "nearest") != "nearest" or source is None or before is None:
        return None
    if len(before) != 4 or after is None or None in (*before[1:], *after[1:]):
        return "its sizes are not known"
    sizes = [int(d or 0) for d in (*before[1:], *after[1:])]
    factors = [b // a for a, b in zip(sizes[:3], sizes[3:], strict=True)]
    exact = all(a * f == b for a, f, b in zip(sizes[:3], factors, sizes[3:], strict=True))
    if not exact or factors[0] != 1 or factors[1:] == [1, 1]:
        return "its factors are not whole, or it resizes channels"
    if not _is_floor(resize):
        return "its coordinates are rounded in another way"
    return ResizeFactors(source, sizes[0], (sizes[1], sizes[2]), (factors[1], factors[2]))


def _is_floor(resize: ir.Node) -> bool:
    where = attr(resize, "coordinate_transformation_mode", "half_pixel")
    rounding = attr(resize, "nearest_mode", "round_prefer_floor")
    if where == "asymmetric":
        return bool(rounding == "floor")
    return where == "half_pixel" and rounding in {"round_prefer_floor", "round_prefer_ceil"}


@rewrite_rule("resize-as-tile", at="Resize", back="resize-from-tile", min_opset=13)
def resize_as_tile(resize: ir.Node) -> Found:
    """Write a nearest Resize by whole factors as Reshape, Tile, Reshape."""
    grown = _resize_factors(resize)
    if isinstance(grown, str | None):
        return grown
    (h, w_), (s, t) = grown.size, grown.factors

    def make(w: Writer) -> ir.Value:
        apart = w.weight(np.array([0, grown.channels, h, 1, w_, 1], np.int64), "apart")
        copies = w.weight(np.array([1, 1, 1, s, 1, t], np.int64), "copies")
        shape = w.weight(np.array([0, grown.channels, h * s, w_ * t], np.int64), "shape")
        tiled = w.op("Tile", w.op("Reshape", grown.source, apart), copies)
        return w.op("Reshape", tiled, shape, like=resize.outputs[0])

    return make


@rewrite_rule("resize-from-tile", at="Reshape", back="resize-as-tile", min_opset=13)
def resize_from_tile(last: ir.Node) -> Found:
    """Write Reshape, Tile or Expand, Reshape that repeat rows and columns as a nearest Resize."""
    middle = producer(last.inputs[0], "Tile", "Expand")
    first = producer(middle.inputs[0], "Reshape") if middle is not None else None
    if middle is None or first is None or not is_float(first.inputs[0]):
        return None
    apart, tiled, out = (dims(v.outputs[0]) for v in (first, middle, last))
    source = dims(first.inputs[0])
    if not (apart and tiled and out and source) or (len(apart), len(tiled)) != (6, 6):
        return None
    if len(source) != 4 or apart[3] != 1 or apart[5] != 1 or None in (*tiled[1:], *out[1:]):
        return None
    (h, s), (wide, t) = (tiled[2] or 0, tiled[3] or 0), (tiled[4] or 0, tiled[5] or 0)
    if source[1:] != (tiled[1], h, wide) or out[1:] != (tiled[1], h * s, wide * t):
        return "it does not repeat rows and columns"
    if only_user(middle.outputs[0]) is None:
        return "its parts are read elsewhere too"

    def make(w: Writer) -> ir.Value:
        scales = w.weight(np.array([1, 1, s, t], np.float32), "scales")
        return w.op(
            "Resize", first.inputs[0], None, scales, like=last.outputs[0], mode="nearest",
            coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip

    return make


@rewrite_rule("resize-as-depth-to-space", at="Resize", min_opset=11)
def resize_as_depth_to_space(resize: ir.Node) -> Found:
    """Write a nearest Resize by one whole factor as a Concat of copies and DepthToSpace."""
    grown = _resize_factors(resize)
    if isinstance(grown, str | None):
        return grown
    s, t = grown.factors
    if s != t or s * s > MOST_COPIES:
        return "its factors differ, or are large"

    def make(w: Writer) -> ir.Value:
        copies = w.op("Concat", *[grown.source] * (s * s), axis=1)
        return w.op("DepthToSpace", copies, like=resize.outputs[0], blocksize=s, mode="DCR")

    return make


@rewrite_rule("resize-as-conv", at="Resize", min_opset=11)
def resize_as_conv(resize: ir.Node) -> Found:
    """Write a nearest Resize by whole factors as a depthwise ConvTranspose with weights of one."""
    grown = _resize_factors(resize)
    if isinstance(grown, str | None):
        return grown
    if not is_float(grown.source):
        return "it is not float32"
    weight = np.ones((grown.channels, 1, *grown.factors), np.float32)
    return lambda w: w.op(
        "ConvTranspose", grown.source, w.weight(weight, "ones"), like=resize.outputs[0],
        group=grown.channels, kernel_shape=grown.factors, strides=grown.factors,
    )  # fmt: skip


@rewrite_rule("resize-by-scales", at="Resize", min_opset=13)
def resize_by_scales(resize: ir.Node) -> Found:
    """Write a nearest Resize to constant sizes by its whole factors, which keep a free batch."""
    grown = _resize_factors(resize)
    if isinstance(grown, str | None):
        return grown
    sizes = input_at(resize, 3)
    if sizes is None or (const(sizes) is not None and 0 in (ints(sizes) or [])):
        return None
    kept = {name: a.value for name, a in resize.attributes.items()}

    def make(w: Writer) -> ir.Value:
        scales = w.weight(np.array([1, 1, *grown.factors], np.float32), "scales")
        return w.op("Resize", grown.source, None, scales, like=resize.outputs[0], **kept)

    return make
