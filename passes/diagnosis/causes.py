"""Cause of a layer's error, found from its measurements, and the command that fixes it."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.core.data import Floats, Floats32
from trimtab.core.ort.overflow import SAFE_SUM

from ..calibration.range_estimator import find_range, squared_errors
from ..calibration.statistics import Statistics
from .baseline_matcher import float_name
from .grids import IntegerGrid
from .layers import Constant, Kind, relative
from .measure import LayerMeasurement, LayerStatistics
from .remaking import DYNAMIC, STATIC, Remaking

#: Ratio to the error of the best quantizer of its type, from which a quantizer counts as wrong.
WRONG = 3.0
#: Share of an error that is a shift of means, from which bias correction pays.
SHIFTED = 0.3
#: Bits of a range beyond three standard deviations, from which outliers count as the cause.
OUTLYING_BITS = 1.5
#: Share of an activation's error that is clipping, from which outliers are missing: the range of
#: the least error loses less to it.
CLIPPING = 0.5
#: Part of the scores' range, 0 to 1, that a step may be.
COARSE = 1 / 64
#: Share of the total sensitivity below which a layer is not worth a fix.
NEGLIGIBLE = 0.02

_AGAIN = STATIC
_RANGES = f"calibrate anew: {_AGAIN} --tensor-ranges {{tensor}}=mse"
_EXTREMES = f"calibrate anew: {_AGAIN} --tensor-ranges {{tensor}}=minmax"
_ROUND = "trimtab round-weights INT8 -o OUT --reference FLOAT --data DATA"
_FIX_BIAS = "trimtab correct-bias INT8 -o OUT --reference FLOAT --data DATA"
_EQUALIZE = "trimtab equalize FLOAT -o OUT --data DATA, then quantize"
_SMOOTH = "trimtab smooth-quant FLOAT -o OUT --data DATA, then quantize"
_FLOAT = f"leave it float: {_AGAIN} --exclude {{name}}"
_INPUT = "leave what reads it float, by --exclude; images of 8 bits are best fed as they are"


@dataclass(frozen=True)
class RangeFit:
    """Fit of a quantizer's range to the values that it rounds.

    Attributes:
        narrow_bits: missing width of the range, as a power of two; 0 where it is wide enough.
        wide_bits: unused width of the range, as a power of two.
        excess: its squared error over that of the best range.
        outlying_bits: bits that the best range spends on values that hardly occur.
        clipping: share of its squared error that is clipping.
    """

    narrow_bits: float = 0.0
    wide_bits: float = 0.0
    excess: float = 1.0
    outlying_bits: float = 0.0
    clipping: float = 0.0


@dataclass(frozen=True)
class LayerDiagnosis:
    """Diagnosis of one layer; errors are squared and relative to the tensor's own size.

    Attributes:
        name: name of the layer.
        op: operator type.
        sensitivity: error of the model's output with this layer alone in int8.
        alone: error of its own output with it alone in int8; None where it did not run alone.
        accumulated: error of its own output with everything in int8.
        clipped: share of its values outside of its range.
        range_fit: fit of its range to its values.
        weight_error: error of its weights; None where it has none or no float ones are known.
        kind: kind of quantizer that causes most of the error.
        cause: description of the cause.
        fix: command or advice that fixes it.
    """

    name: str
    op: str
    sensitivity: float
    alone: float | None
    accumulated: float
    clipped: float
    range_fit: RangeFit
    weight_error: float | None
    kind: Kind
    cause: str
    fix: str

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values; signal-to-noise ratios are in decibels."""
        return {
            "layer": self.name,
            "op": self.op,
            "harm": three_digits(self.sensitivity),
            "snr_alone_db": None if self.alone is None else decibels(self.alone),
            "snr_accumulated_db": decibels(self.accumulated),
            "clipped": three_digits(self.clipped),
            "range_too_narrow_bits": round(self.range_fit.narrow_bits, 2),
            "range_too_wide_bits": round(self.range_fit.wide_bits, 2),
            "weight_snr_db": None if self.weight_error is None else decibels(self.weight_error),
            "kind": self.kind,
            "cause": self.cause,
            "mend": self.fix,
        }


def three_digits(number: float) -> float:
    """Round a number to three digits."""
    return float(f"{number:.3g}")


def decibels(error: float) -> float | None:
    """Return the signal-to-noise ratio of a relative squared error, None without noise."""
    return None if error <= 0 else round(-10 * math.log10(error), 1)


def diagnose_layer(
    measured: LayerMeasurement,
    applied: Collection[str] = (),
    remaking: Remaking = Remaking(),  # noqa: B008 - frozen
) -> LayerDiagnosis:
    """Find the cause of a layer's error and its fix, other than passes that were applied.

    Args:
        measured: what was measured of the layer.
        applied: names of these passes.
        remaking: way in which the model is made again.
    """
    layer = measured.layer
    fits = [
        _range_fit(s, a.grid) for s, a in zip(measured.statistics, layer.activations, strict=True)
    ]
    tensors = [float_name(a.tensor) for a in layer.activations]
    fit, tensor = max(
        zip(fits, tensors, strict=True), key=lambda pair: pair[0].excess, default=(RangeFit(), "")
    )
    clipped = max((s.clipped / s.count for s in measured.statistics if s.count), default=0.0)
    kind = _kind(measured)
    if kind == "activation":
        cause, fix = _activation(measured, fit, clipped)
    else:
        cause, fix = _bias(measured) if kind == "bias" else _weight(measured, applied)
    steps = [
        step for step in fix.split("; or ") if not any(f"trimtab {p} " in step for p in applied)
    ]
    fix = remaking.fix("; or ".join(steps) or _FLOAT)
    return LayerDiagnosis(
        name=layer.name,
        op=layer.op,
        sensitivity=measured.sensitivity.relative,
        alone=measured.alone.relative if measured.ran_alone else None,
        accumulated=measured.accumulated.relative,
        clipped=clipped,
        range_fit=fit,
        weight_error=max((w.error for w in layer.weights), default=None),
        kind=kind,
        cause=cause,
        fix=fix.format(name=float_name(layer.name), tensor=tensor),
    )


def _kind(measured: LayerMeasurement) -> Kind:
    """Return the kind of quantizer that causes most of the error: measured, else by default."""
    if measured.by_kind:
        return max(measured.by_kind, key=lambda kind: measured.by_kind[kind].relative)
    kinds = measured.layer.kinds
    if len(kinds) == 1:
        return kinds[0]
    return "weight" if measured.layer.weights and "activation" not in kinds else "activation"


def _bias(measured: LayerMeasurement) -> tuple[str, str]:
    worst = max(measured.layer.biases, key=lambda b: b.error)
    largest = float(np.abs(worst.rounded - worst.exact).max(initial=0.0))
    cause = f"its bias differs from the float one by {worst.error:.1%}, up to {largest:.3g}"
    return cause, f"{_FIX_BIAS}; or {_AGAIN}"


def _activation(measured: LayerMeasurement, fit: RangeFit, clipped: float) -> tuple[str, str]:
    levels = max((a.grid.levels for a in measured.layer.activations if a.grid), default=0)
    if not levels:
        cause = "its input is rounded to 256 levels between the extremes of each run"
        return cause, f"{_SMOOTH}; or leave it float: {DYNAMIC} --exclude {{name}}"
    wrong = _wrong_range(measured, fit, clipped)
    if wrong is not None:
        return wrong
    if measured.shift > SHIFTED:
        return _shift(measured)
    if fit.outlying_bits > OUTLYING_BITS:
        cause = f"outliers take {fit.outlying_bits:.1f} bits of its range, and the rest gets few"
        product = measured.layer.op in {"Conv", "ConvTranspose"}
        return cause, f"{_EQUALIZE if product else _SMOOTH}; or {_FLOAT}"
    cause = f"{levels} levels are few for what follows"
    return cause, _INPUT if measured.layer.op == "Input" else _FLOAT


def _wrong_range(
    measured: LayerMeasurement, fit: RangeFit, clipped: float
) -> tuple[str, str] | None:
    """Return cause and fix where another range would serve an activation better."""
    step = max(a.grid.step for a in measured.layer.activations if a.grid)
    if measured.mixed and step > COARSE:
        cause = f"boxes and scores share one scale; its step is {step:.3g}, and scores are 0 to 1"
        return cause, _FLOAT
    if fit.excess > WRONG:
        narrow = f"{fit.narrow_bits:.1f} bits too narrow: {clipped:.2%} of its values are clipped"
        wide = f"{fit.wide_bits:.1f} bits too wide for its values"
        return f"its range is {narrow if fit.narrow_bits > fit.wide_bits else wide}", _RANGES
    if fit.clipping > CLIPPING:
        cause = f"its range clips outliers, {clipped:.2%} of its values, and {fit.clipping:.0%} of"
        return f"{cause} its error is theirs", _EXTREMES
    return None


def _weight(measured: LayerMeasurement, applied: Collection[str]) -> tuple[str, str]:
    worst = max(measured.layer.weights, key=lambda w: w.error)
    if worst.grid is None:
        return f"its weight differs from the float one by {worst.error:.2%} of its size", _AGAIN
    if _excess(worst, per_channel=worst.grid.axis is not None) > WRONG:
        return _wrong_scale(worst), _AGAIN
    shared = worst.channels is not None and worst.grid.axis is None
    if shared and (gain := _excess(worst, per_channel=True)) > WRONG:
        cause = "one scale serves channels of unlike size: a scale for each would leave "
        cause += f"1/{gain:.3g} of the error"
        return cause, f"{_AGAIN} (--per-channel); or {_EQUALIZE}"
    if worst.pairs is not None:
        cause = "its weights use fewer than 8 bits, as x64 without VNNI wants it"
        return cause, f"{_ROUND}; where the target has VNNI: {_AGAIN} --target x64-avx512-vnni"
    if measured.shift > SHIFTED and "correct-bias" not in applied:
        return _shift(measured)
    return "its weights are rounded", f"{_ROUND}; or {_FIX_BIAS}"


def _shift(measured: LayerMeasurement) -> tuple[str, str]:
    return f"{measured.shift:.0%} of its error is a shift of channels' means", _FIX_BIAS


def _excess(constant: Constant, *, per_channel: bool) -> float:
    """Return the error of a weight over that with scales of its largest magnitudes."""
    best = _rounded_best(constant, per_channel=per_channel)
    return constant.error / max(relative(best, constant.exact), 1e-12)


def _wrong_scale(constant: Constant) -> str:
    assert constant.grid is not None
    if constant.grid.axis is None or constant.channels is None:
        return f"the scale of its weight is {_scale_excess(constant):.3g} times what it needs"
    channel, times = _worst_channel(constant)
    return f"the scale of its channel {channel} is {times:.3g} times what its weights need"


def _range_fit(found: LayerStatistics, grid: IntegerGrid | None) -> RangeFit:
    """Compare a range with the histogram of its values."""
    statistics = found.values
    if grid is None or not found.count or statistics.highest == statistics.lowest:
        return RangeFit()
    actual = grid.range
    best = find_range(statistics, "mse", levels=grid.levels)
    width, wanted = actual[1] - actual[0], best[1] - best[0]
    if wanted <= 0 or width <= 0:
        return RangeFit()
    # A range of both signs wastes half of itself on values of one sign.
    costs = squared_errors(statistics.histogram, np.array([actual, best]), grid.levels)
    sides = [_bits(best[1], actual[1]), _bits(-best[0], -actual[0])]
    return RangeFit(
        narrow_bits=max(0.0, *sides),
        wide_bits=max(0.0, math.log2(width / wanted)),
        excess=float(costs[0] / max(costs[1], 1e-30)),
        outlying_bits=max(0.0, math.log2(wanted / max(_spread(statistics), 1e-30))),
        clipping=min(1.0, _clipping(statistics, actual) / max(float(costs[0]), 1e-30)),
    )


def _clipping(statistics: Statistics, actual: tuple[float, float]) -> float:
    """Return the mean squared error of values beyond a range."""
    counts, centres = statistics.histogram.counts, statistics.histogram.centres
    beyond = np.square(centres - np.clip(centres, *actual))
    return float(beyond @ counts) / max(int(counts.sum()), 1)


def _bits(wanted: float, actual: float) -> float:
    """Return the width that `actual` lacks, as a power of two."""
    if wanted <= 0:
        return 0.0
    return math.log2(wanted / actual) if actual > wanted * 2**-16 else 16.0


def _spread(statistics: Statistics) -> float:
    """Return six standard deviations of the values, within which all but a few lie."""
    counts, centres = statistics.histogram.counts, statistics.histogram.centres
    total = max(int(counts.sum()), 1)
    mean = float(counts @ centres) / total
    return 6 * math.sqrt(max(float(counts @ np.square(centres - mean)) / total, 0.0))


def _needed_scales(constant: Constant, *, per_channel: bool) -> Floats:
    """Return the scales of a weight's largest magnitudes, (channels,) or (1,)."""
    exact, axis = np.abs(constant.exact.astype(np.float64)), constant.channels
    by_channel = per_channel and axis is not None
    axes = tuple(i for i in range(exact.ndim) if not by_channel or i != axis)
    largest = np.atleast_1d(exact.max(axis=axes, initial=0.0))
    assert constant.grid is not None
    scales: Floats = largest / (constant.grid.levels // 2 - 1)
    if constant.pairs is not None:
        pairs = constant.pairs if by_channel else constant.pairs.max(keepdims=True)
        sums = np.maximum(largest, pairs) / (SAFE_SUM - 1)
        scales = np.minimum(largest / (SAFE_SUM // 2), sums)
    return np.maximum(scales, 1e-30)


def _rounded_best(constant: Constant, *, per_channel: bool) -> Floats32:
    """Round the exact weight with scales of its largest magnitudes."""
    exact, axis = constant.exact.astype(np.float64), constant.channels
    scale = _needed_scales(constant, per_channel=per_channel)
    if axis is not None and len(scale) > 1:
        scale = scale.reshape([-1 if i == axis % exact.ndim else 1 for i in range(exact.ndim)])
    rounded: Floats32 = (np.round(exact / scale) * scale).astype(np.float32)
    return rounded


def _worst_channel(constant: Constant) -> tuple[int, float]:
    """Return the channel of the largest error, and its scale over the one it needs."""
    grid, axis = constant.grid, constant.channels
    assert grid is not None
    assert axis is not None
    rows = np.moveaxis(constant.exact, axis, 0).reshape(constant.exact.shape[axis], -1)
    stored = np.moveaxis(constant.rounded, axis, 0).reshape(rows.shape)
    channel = int(np.square(stored - rows).sum(axis=1).argmax())
    if grid.scale.size != len(rows):
        return channel, _scale_excess(constant)
    need = float(_needed_scales(constant, per_channel=True)[channel])
    return channel, float(grid.scale[channel]) / need


def _scale_excess(constant: Constant) -> float:
    assert constant.grid is not None
    return constant.grid.step / float(_needed_scales(constant, per_channel=False)[0])
