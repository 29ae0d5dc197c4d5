"""Means over the spatial axes: ReduceMean and GlobalAveragePool, and pooling over everything."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..graph.queries import attr, axes_of, dims, is_float, opset, rank
from .rule import Found, Make, Writer, rewrite_rule


@rewrite_rule("mean-as-pool", at="ReduceMean", back="pool-as-mean")
def mean_as_pool(mean: ir.Node) -> Found:
    """Write ReduceMean over both spatial axes as GlobalAveragePool."""
    source = mean.inputs[0]
    if rank(source) != 4 or sorted(a % 4 for a in axes_of(mean) or ()) != [2, 3]:
        return None
    if not is_float(source):
        return "it is not float32"
    if attr(mean, "keepdims", 1):
        return lambda w: w.op("GlobalAveragePool", source, like=mean.outputs[0])
    channels = (dims(source) or (None, None))[1]
    if channels is None:
        return "its number of channels is unknown"

    def make(w: Writer) -> ir.Value:
        pooled = w.op("GlobalAveragePool", source)
        flat = w.weight(np.array([0, channels], np.int64), "shape")
        return w.op("Reshape", pooled, flat, like=mean.outputs[0])

    return make


@rewrite_rule("pool-as-mean", at="GlobalAveragePool", back="mean-as-pool")
def pool_as_mean(pool: ir.Node) -> Found:
    """Write GlobalAveragePool as ReduceMean over both spatial axes."""
    return _mean(pool) if rank(pool.inputs[0]) == 4 else None


@rewrite_rule("average-as-mean", at="AveragePool", back="mean-as-pool")
def average_as_mean(pool: ir.Node) -> Found:
    """Write an AveragePool over the whole image as ReduceMean."""
    return _mean(pool) if _covers_all(pool) else None


@rewrite_rule("average-as-global", at="AveragePool")
def average_as_global(pool: ir.Node) -> Found:
    """Write an AveragePool over the whole image as GlobalAveragePool."""
    if not _covers_all(pool):
        return None
    return lambda w: w.op("GlobalAveragePool", pool.inputs[0], like=pool.outputs[0])


def _covers_all(pool: ir.Node) -> bool:
    sizes = dims(pool.inputs[0])
    if sizes is None or len(sizes) != 4 or None in sizes[2:]:
        return False
    padded = any(attr(pool, "pads", ())) or attr(pool, "auto_pad", "NOTSET") != "NOTSET"
    return not padded and attr(pool, "kernel_shape") == sizes[2:]


def _mean(pool: ir.Node) -> Make:
    since_input = opset(pool) >= 18

    def make(w: Writer) -> ir.Value:
        inputs = [pool.inputs[0]]
        if since_input:
            inputs.append(w.weight(np.array([2, 3], np.int64), "axes"))
        axes = None if since_input else [2, 3]
        return w.op("ReduceMean", *inputs, like=pool.outputs[0], axes=axes, keepdims=1)

    return make
