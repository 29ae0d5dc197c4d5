"""Steps of random graphs on pictures (C, H, W)."""

from __future__ import annotations

from typing import Any

import numpy as np
from property.builder import Builder, Tensor


def conv(b: Builder, x: Tensor) -> Tensor:
    """A Conv with groups, padding, strides or dilations."""
    channels, height, width = x.shape
    groups = b.pick([1, *(g for g in (2, channels) if channels % g == 0)])
    made = b.pick([4, 8, 3]) if groups == 1 else channels
    kernel = b.pick([1, 3])
    wide = min(height, width)
    dilation = b.pick([1, 2]) if kernel == 3 and wide >= 5 else 1
    pad, stride = b.pick([kernel // 2 * dilation, 0]), b.pick([1, 2])
    reach = dilation * (kernel - 1) + 1
    if wide + 2 * pad < reach:
        pad = kernel // 2 * dilation
    if dilation == 1 and b.chance(10):
        return _same_conv(b, x, made, groups, kernel, stride)
    weight = b.weight(
        made, channels // groups, kernel, kernel, fan_in=channels // groups * kernel**2
    )
    inputs = [x.name, weight, *([b.weight(made)] if b.chance(50) else [])]
    options = {"group": groups, "strides": [stride] * 2, "dilations": [dilation] * 2}
    name = b.node("Conv", inputs, kernel_shape=[kernel] * 2, pads=[pad] * 4, **options)
    size = [(s + 2 * pad - reach) // stride + 1 for s in (height, width)]
    return Tensor(name, (made, *size))


def _same_conv(b: Builder, x: Tensor, made: int, groups: int, kernel: int, stride: int) -> Tensor:
    """A Conv whose padding follows from its strides."""
    channels, *size = x.shape
    each = channels // groups
    weight = b.weight(made, each, kernel, kernel, fan_in=each * kernel**2)
    pad = b.pick(["SAME_UPPER", "SAME_LOWER"])
    options = {"group": groups, "strides": [stride] * 2, "auto_pad": pad}
    name = b.node("Conv", [x.name, weight], kernel_shape=[kernel] * 2, **options)
    return Tensor(name, (made, *(-(-s // stride) for s in size)))


def conv_transpose(b: Builder, x: Tensor) -> Tensor:
    """A ConvTranspose of stride 1 or 2."""
    channels, height, width = x.shape
    groups = b.pick([1, 2]) if channels % 2 == 0 else 1
    each, stride = b.pick([4, 2]), b.pick([1, 2])
    if max(height, width) > 16:
        return x
    inputs = [x.name, b.weight(channels, each, 2, 2, fan_in=channels * 2)]
    inputs += [b.weight(each * groups)] if b.chance(50) else []
    options = {"group": groups, "strides": [stride] * 2}
    name = b.node("ConvTranspose", inputs, kernel_shape=[2, 2], **options)
    return Tensor(name, (each * groups, *((s - 1) * stride + 2 for s in (height, width))))


def batch_norm(b: Builder, x: Tensor) -> Tensor:
    """A BatchNormalization, now and then in training mode."""
    channels = x.shape[0]
    rng = np.random.default_rng(channels)
    rows = [rng.uniform(0.5, 1.5, channels).astype(np.float32) for _ in range(4)]
    inputs = [x.name, *(b.constant(row) for row in rows)]
    if b.opset >= 14 and b.chance(20):
        outputs = b.node("BatchNormalization", inputs, 3, training_mode=1)
        return Tensor(outputs[0], x.shape)
    return Tensor(b.node("BatchNormalization", inputs), x.shape)


def pool(b: Builder, x: Tensor) -> Tensor:
    """A pool over windows of 2, or over everything."""
    op = b.pick(["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"])
    channels, height, width = x.shape
    if op.startswith("Global"):
        return Tensor(b.node(op, [x.name]), (channels, 1, 1))
    if min(height, width) < 2:
        return x
    stride, pads = b.pick([2, 1]), b.pick([0, 1])
    options: dict[str, Any] = {"pads": [pads] * 4} if pads else {}
    if pads and op == "AveragePool":
        options["count_include_pad"] = b.pick([0, 1])
    name = b.node(op, [x.name], kernel_shape=[2, 2], strides=[stride] * 2, **options)
    size = [(s + 2 * pads - 2) // stride + 1 for s in (height, width)]
    return Tensor(name, (channels, *size))


def resize(b: Builder, x: Tensor) -> Tensor:
    """Double height and width."""
    channels, height, width = x.shape
    if max(height, width) > 16:
        return x
    scales = b.constant(np.array([1, 1, 2, 2], np.float32))
    if b.opset < 9:
        name = b.node("Upsample", [x.name], mode="nearest", scales=[1.0, 1.0, 2.0, 2.0])
    elif b.opset < 11:
        op = "Upsample" if b.opset < 10 else "Resize"
        name = b.node(op, [x.name, scales], mode="nearest")
    else:
        roi = "" if b.opset >= 13 else b.constant(np.zeros(0, np.float32))
        name = b.node("Resize", [x.name, roi, scales], mode=b.pick(["nearest", "linear"]))
    return Tensor(name, (channels, height * 2, width * 2))


def pad(b: Builder, x: Tensor) -> Tensor:
    """A border of zeros or of a constant."""
    value, border = b.pick([0.0, 1.0]), [0, 0, 1, 1, 0, 0, 1, 1]
    if b.opset < 11:
        name = b.node("Pad", [x.name], pads=border, value=value)
    else:
        ends = [b.constant(np.array(border, np.int64)), b.constant(np.float32(value))]
        name = b.node("Pad", [x.name, *ends])
    channels, height, width = x.shape
    return Tensor(name, (channels, height + 2, width + 2))


def to_vector(b: Builder, x: Tensor) -> Tensor:
    """Flatten, average or reshape to rows of numbers."""
    channels, height, width = x.shape
    kind = b.pick(["Flatten", "mean", "reshape"])
    if kind == "mean":
        return Tensor(b.axes_node("ReduceMean", x.name, [2, 3], 18, keepdims=0), (channels,))
    size = channels * height * width
    if kind == "reshape":
        return Tensor(
            b.reshape(x.name, [-1 if isinstance(b.batch, str) else b.batch, size]), (size,)
        )
    return Tensor(b.node("Flatten", [x.name]), (size,))


def to_sequence(b: Builder, x: Tensor) -> Tensor:
    """Make the pixels a sequence of rows."""
    channels, height, width = x.shape
    flat = b.reshape(x.name, [0, channels, height * width])
    return Tensor(b.transpose(flat, 0, 2, 1), (height * width, channels))


def instance_norm(b: Builder, x: Tensor) -> Tensor:
    """An InstanceNormalization: statistics of each picture."""
    rows = [np.linspace(0.5, 1.5, x.shape[0], dtype=np.float32) for _ in range(2)]
    inputs = [x.name, *(b.constant(row) for row in rows)]
    return Tensor(b.node("InstanceNormalization", inputs, epsilon=1e-2), x.shape)


def shuffle(b: Builder, x: Tensor) -> Tensor:
    """Channels to pixels, or pixels to channels."""
    channels, height, width = x.shape
    if channels % 4 == 0 and b.chance(50):
        name = b.node("DepthToSpace", [x.name], blocksize=2)
        return Tensor(name, (channels // 4, height * 2, width * 2))
    if height % 2 or width % 2:
        return x
    name = b.node("SpaceToDepth", [x.name], blocksize=2)
    return Tensor(name, (channels * 4, height // 2, width // 2))
