"""Overflow of int8 sums on x64 without VNNI, simulated on any machine.

There `vpmaddubsw` multiplies unsigned activations by signed weights and adds neighbouring pairs in
16 bits, saturating:

    pair = clip(a[2k] w[2k] + a[2k+1] w[2k+1], -32768, 32767)

so a sum can be far off where two adjacent weights have the same sign and add up to more than
32767 / 255 = 128.5. All other pairs are safe for any data. Convolutions run channels-last, so
adjacent weights are channels of one kernel position. Depthwise convolutions and unsigned weights
have kernels that widen first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..data import Batch, Floats
from ..model import Model
from .inner_outputs import with_outputs
from .session import SessionConfig, build_session, run

Ints = NDArray[np.int32]

#: Largest and smallest sums that fit 16 bits.
MOST, LEAST = 32767, -32768
#: Largest sum of two signed weights that no two unsigned activations take beyond them.
SAFE_SUM = MOST // 255
#: Input positions of a layer that are examined in each batch.
POSITIONS = 512
#: Pair sums that are computed at a time.
SUMS = 1 << 21


@dataclass
class Overflow:
    """Saturation of one layer.

    Attributes:
        node: the layer's name.
        pairs: pair sums that were examined, safe ones included.
        saturated: number of those that would saturate.
        largest: largest magnitude of a pair sum.
        lost: sum of what saturation cuts off, relative to the sum of all magnitudes.
    """

    node: str
    pairs: int = 0
    saturated: int = 0
    largest: int = 0
    lost: float = 0.0

    @property
    def share(self) -> float:
        """Share of the pair sums that would saturate."""
        return self.saturated / self.pairs if self.pairs else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return {
            "node": self.node,
            "share": float(f"{self.share:.3g}"),
            "over": round(self.largest / MOST, 3),
            "lost": float(f"{self.lost:.3g}"),
        }


@dataclass(frozen=True)
class _QuantizedLayer:
    """A quantized product: its integer input and the pairs of its weights that can overflow."""

    node: ir.Node
    integers: ir.Value
    weights: Ints  # (groups, outputs of a group, depth), neighbours adjacent
    risky: NDArray[np.bool_]  # (groups, outputs of a group, depth / 2)


def find_overflows(model: Model, batches: Iterable[Batch]) -> list[Overflow]:
    """Find the layers of a Q/DQ model that would saturate on x64 without VNNI, worst first.

    A few batches of data suffice.
    """
    layers = [layer for layer in map(_layer, model.graph) if layer is not None]
    risky = [layer for layer in layers if layer.risky.any()]
    if not risky:
        return []
    fed = {spec.name for spec in model.inputs}
    names = dict.fromkeys(layer.integers.name or "" for layer in risky)
    inner = [name for name in names if name not in fed]
    session = build_session(with_outputs(model, inner), SessionConfig(level="basic"))
    found = {layer.node: Overflow(layer.node.name or "") for layer in risky}
    summed = dict.fromkeys(found, 0.0)
    for batch in batches:
        arrays = {**batch.feeds, **run(session, batch.feeds, inner)}
        for layer in risky:
            integers = arrays[layer.integers.name or ""]
            summed[layer.node] += _count(layer, integers, found[layer.node])
    for node, overflow in found.items():
        overflow.lost /= max(summed[node], 1.0)
    saturating = [overflow for overflow in found.values() if overflow.saturated]
    return sorted(saturating, key=lambda overflow: -overflow.lost)


def _count(layer: _QuantizedLayer, integers: NDArray[Any], found: Overflow) -> float:
    """Add one batch to `found` and return the sum of magnitudes of the risky pairs."""
    rows = _rows(layer.node, integers)  # (positions, groups, depth)
    if integers.dtype == np.int8:
        rows = rows + 128  # the kernels flip the sign bit of signed activations
    found.pairs += len(rows) * layer.risky.size
    total = 0.0
    each = max(SUMS // len(rows), 1)
    for group, (weights, risky) in enumerate(zip(layer.weights, layer.risky, strict=True)):
        outputs, pairs = np.nonzero(risky)
        for start in range(0, len(outputs), each):
            output, left = outputs[start : start + each], 2 * pairs[start : start + each]
            sums = rows[:, group, left] * weights[output, left]
            sums += rows[:, group, left + 1] * weights[output, left + 1]
            beyond = np.maximum(sums - MOST, 0) + np.maximum(LEAST - sums, 0)
            magnitudes = np.abs(sums)
            found.saturated += int(np.count_nonzero(beyond))
            found.largest = max(found.largest, int(magnitudes.max(initial=0)))
            found.lost += float(beyond.sum(dtype=np.float64))
            total += float(magnitudes.sum(dtype=np.float64))
    return total


def _layer(node: ir.Node) -> _QuantizedLayer | None:
    if node.op_type not in {"Conv", "Gemm", "MatMul"}:
        return None
    data, weight = _integers(node, 0), _integers(node, 1)
    if data is None or weight is None or weight.const_value is None:
        return None
    array = weight.const_value.numpy()
    if array.dtype != np.int8:
        return None
    rows = None if _widens(node, array) else _summed_rows(node, array)
    if rows is None:
        return None
    weights = _even(rows.astype(np.int32))
    pairs = weights.reshape(*weights.shape[:2], -1, 2)
    upper = np.maximum(pairs, 0).sum(axis=-1) * 255
    lower = np.minimum(pairs, 0).sum(axis=-1) * 255
    return _QuantizedLayer(node, data, weights, (upper > MOST) | (lower < LEAST))


def largest_pairs(node: ir.Node, array: NDArray[Any]) -> Floats | None:
    """Return for each output the largest sum of two neighbouring weights of one sign, (outputs,).

    With signed integers of at most 127 whose sums of two are at most 128 no data saturate. Zero
    where the kernel widens first; None where the order of the sums is not known.
    """
    if _widens(node, array):
        return np.zeros(array.shape[0])
    rows = _summed_rows(node, array)
    if rows is None:
        return None
    flat = rows.reshape(-1, rows.shape[-1])
    # A channel of zeros may be put in between later: either neighbour can be the other of a pair.
    found: Floats = np.abs(flat).max(axis=1, initial=0.0).astype(np.float64)
    for part in (np.maximum(flat, 0), np.maximum(-flat, 0)):
        sums = (part[:, 1:] + part[:, :-1]).max(axis=1, initial=0.0)
        found = np.maximum(found, sums)
    return found


def _widens(node: ir.Node, array: NDArray[Any]) -> bool:
    """Return whether the kernel is that of depthwise convolutions."""
    grouped = node.op_type == "Conv" and node.attributes.get_int("group", 1) > 1
    return grouped and array.ndim == 4 and array.shape[1] == 1


def _summed_rows(node: ir.Node, array: NDArray[Any]) -> NDArray[Any] | None:
    """Return a weight as (groups, outputs of a group, depth), in the order of its sums."""
    group = node.attributes.get_int("group", 1)
    if node.op_type == "Conv" and array.ndim == 4:
        # (out, in / group, kh, kw) -> (groups, out / group, kh * kw * in)
        return array.transpose(0, 2, 3, 1).reshape(group, array.shape[0] // group, -1)
    plain = node.op_type == "MatMul" or not node.attributes.get_int("transA", 0)
    if node.op_type in {"Gemm", "MatMul"} and array.ndim == 2 and plain:
        return (array if node.attributes.get_int("transB", 0) else array.T)[None]
    return None


def _integers(node: ir.Node, index: int) -> ir.Value | None:
    value = node.inputs[index]
    node_before = value.producer() if value is not None else None
    if node_before is None or node_before.op_type != "DequantizeLinear":
        return None
    return node_before.inputs[0]


def _rows(node: ir.Node, integers: NDArray[Any]) -> Ints:
    """Return the inputs of a layer's products at some positions: (positions, groups, depth)."""
    if node.op_type != "Conv":
        flat = integers.reshape(-1, integers.shape[-1])
        return _even(_some(flat).astype(np.int32))[:, None]
    weight = _integers(node, 1)
    assert weight is not None
    assert weight.const_value is not None
    kh, kw = tuple(weight.const_value.shape.numpy())[2:]
    group = node.attributes.get_int("group", 1)
    patches = _some(np.concatenate(list(_patches(node, (kh, kw), integers))))
    split = patches.reshape(*patches.shape[:2], group, -1).transpose(0, 2, 1, 3)
    return _even(split.reshape(len(patches), group, -1).astype(np.int32))


def _patches(
    conv: ir.Node, kernel: tuple[int, int], images: NDArray[Any]
) -> Iterator[NDArray[Any]]:
    """Yield (positions, kh * kw, channels) of each image.

    Padding is left out: it adds the zero point, which cannot exceed the other positions.
    """
    (step_y, step_x), (apart_y, apart_x) = _pair(conv, "strides"), _pair(conv, "dilations")
    reach = ((kernel[0] - 1) * apart_y + 1, (kernel[1] - 1) * apart_x + 1)
    window = (min(reach[0], images.shape[2]), min(reach[1], images.shape[3]))
    each = max(POSITIONS // len(images), 1)
    for image in images:
        view = np.lib.stride_tricks.sliding_window_view(image, window, axis=(1, 2))
        view = view[:, ::step_y, ::step_x, ::apart_y, ::apart_x]
        total = view.shape[1] * view.shape[2]
        at = np.unravel_index(np.arange(0, total, max(total // each, 1)), view.shape[1:3])
        taken = view.transpose(1, 2, 3, 4, 0)[at]
        missing = [(0, k - n) for k, n in zip(kernel, taken.shape[1:3], strict=True)]
        taken = np.pad(taken, [(0, 0), *missing, (0, 0)], mode="edge")
        yield taken.reshape(len(taken), -1, len(image))


def _some(rows: NDArray[Any]) -> NDArray[Any]:
    return rows[:: max(len(rows) // POSITIONS, 1)]


def _even(rows: Ints) -> Ints:
    """Pad with a zero to an even depth."""
    return np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, rows.shape[-1] % 2)])


def _pair(node: ir.Node, name: str) -> tuple[int, int]:
    first, second = node.attributes.get_ints(name, (1, 1))
    return first, second
