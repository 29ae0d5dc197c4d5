"""Accuracy diagnosis: from an int8 model, its float original and data to a diagnosis of layers."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.core.batches import fitting
from trimtab.core.context import Context
from trimtab.core.data import Batch
from trimtab.core.dataset import Dataset
from trimtab.core.errors import InputError, MissingExtraError, TrimtabError
from trimtab.core.model import Model
from trimtab.core.ort.int8_share import INT8_OPS, QDQ_OPS
from trimtab.core.ort.overflow import Overflow, find_overflows
from trimtab.core.ort.session import SessionConfig, build_session, run

from ..graph.edit import lift_constants
from ..graph.quantized import refuse_quantized
from ..quantization.qdq.int8_rewrites import apply_int8_rewrites
from ..quantization.qdq.prepare import prepare
from ..simplify.simplify import Simplify
from .baseline_matcher import BaselineMatcher, float_name
from .causes import NEGLIGIBLE, LayerDiagnosis, decibels, diagnose_layer, three_digits
from .expand import expand_to_qdq
from .float_block import float_block
from .history import FloatTwin, applied_passes, float_twin
from .layers import relative
from .measure import DiagnosisTime, ModelMeasurements, measure
from .remaking import STATIC, Remaking
from .switches import SwitchableModel, add_switches

#: Relative squared error below which the int8 model with all switches off equals the float model;
#: and below which it may be a version of it whose weights were changed before rounding.
EQUAL, ALIKE = 1e-4, 0.25
#: Error of a weight from which on it may be one in other scales, and that these explain.
UNLIKE, EXPLAINED = 2e-3, 10.0
#: Ratio of errors with and without the biases' changes, below which these are corrections.
CORRECTED = 0.95
#: Ratio to the simulated error from which the machine's kernels count as adding their own.
KERNELS = 3.0
#: Samples on which pair sums are checked for overflow.
OVERFLOW_SAMPLES = 32


@dataclass(frozen=True)
class AccuracyDiagnosis:
    """Accuracy diagnosis of an int8 model; errors are squared and relative to the output's size.

    Attributes:
        layers: diagnoses of layers, the most sensitive first.
        together: error of the output with everything in int8.
        simulated: the same on the samples of `running`.
        running: error of the output from this machine's kernels.
        samples: number of samples.
        notes: limits of the diagnosis, and their reasons.
        float_block: names of the layers that are worth fixing, and of those between them.
        again: command that makes the model again from the float one.
    """

    layers: tuple[LayerDiagnosis, ...]
    together: float
    simulated: float
    running: float
    samples: int
    notes: tuple[str, ...]
    float_block: tuple[str, ...] = ()
    again: str = STATIC

    @property
    def kernels_differ(self) -> bool:
        """True where this machine's kernels lose much more than rounding does."""
        return self.running > KERNELS * self.simulated + 1e-9

    @property
    def worth_fixing(self) -> tuple[LayerDiagnosis, ...]:
        """Layers with a visible part in the error."""
        return _worth_fixing(self.layers)

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {
            "samples": self.samples,
            "answer_error": three_digits(self.together),
            "answer_snr_db": decibels(self.together),
            "simulated_error": three_digits(self.simulated),
            "running_error": three_digits(self.running),
            "kernels_differ": self.kernels_differ,
            "notes": list(self.notes),
            "float_block": list(self.float_block),
            "layers": [layer.to_json() for layer in self.layers],
        }


def is_quantized(model: Model) -> bool:
    """Return whether anything in a model is int8."""
    ops = {node.op_type for node in model.graph}
    return bool(ops & (INT8_OPS | QDQ_OPS)) or any(op.startswith("QLinear") for op in ops)


def rounds_activations(model: Model) -> bool:
    """Return whether anything in a model is rounded while it runs, not weights alone."""
    ops = {node.op_type for node in model.graph} - {"DequantizeLinear", "MatMulNBits"}
    return bool(ops & (INT8_OPS | QDQ_OPS)) or any(op.startswith("QLinear") for op in ops)


def diagnose_accuracy(
    model: Model,
    data: Dataset,
    ctx: Context,
    *,
    baseline: Model | None = None,
    samples: int = 64,
    seconds: float | None = None,
) -> AccuracyDiagnosis:
    """Find the layers that lose an int8 model's accuracy.

    Args:
        model: quantized model: Q/DQ, QOperator, dynamic or weight-only, of any tool.
        data: data, of which evenly spaced samples are taken.
        ctx: context, for progress.
        baseline: float model that it was made from; without it weights are not judged.
        samples: number of samples.
        seconds: time after which fewer samples have to do; None for no limit.

    Raises:
        InputError: the model is not quantized, has no quantizer that can be switched, or differs
            from the baseline even with all rounding off.
        DataError: the data do not fit.
    """
    if not is_quantized(model):
        raise InputError(
            "is not quantized, so no rounding can be wrong with it",
            where=model.name,
            hint="Give the int8 model, and the float one as --baseline",
        )
    budget = DiagnosisTime(seconds)
    # Of a stream the states are those of the float model, where it is known.
    bound = fitting(model, data.bind(baseline or model).take(samples))
    context = dataclasses.replace(ctx, data=ctx.data or data)
    switched, notes = _match_baseline(model, baseline, next(iter(bound)), context)
    if bound.stream is not None:
        notes.append(
            "each step was fed the float model's states; errors that its own states carry on come "
            "on top: `trimtab eval` feeds them back"
        )
    made = measure(model, switched, bound, ctx, budget)
    applied = applied_passes(model)
    remaking = Remaking.of(model)
    found = [diagnose_layer(layer, applied, remaking) for layer in made.layers]
    layers = tuple(sorted(found, key=lambda x: (-x.sensitivity, -x.accumulated)))
    worst = {layer.name for layer in _worth_fixing(layers)}
    return AccuracyDiagnosis(
        layers,
        made.together.relative,
        made.simulated.relative,
        made.running.relative,
        made.samples,
        (*notes, *_unswitched_note(switched), *_bias_note(made), *_time_note(made)),
        tuple(map(float_name, float_block(model.graph, worst))) if len(worst) > 1 else (),
        remaking.again,
    )


def _worth_fixing(layers: Sequence[LayerDiagnosis]) -> tuple[LayerDiagnosis, ...]:
    least = NEGLIGIBLE * sum(layer.sensitivity for layer in layers)
    return tuple(layer for layer in layers if layer.sensitivity > least)


def overflows(
    model: Model,
    data: Dataset,
    samples: int = OVERFLOW_SAMPLES,
    *,
    seconds: float | None = None,
) -> list[Overflow]:
    """Find the layers of an int8 model that would saturate on x64 without VNNI, the worst first.

    After so many `seconds` no further samples are looked at.
    """
    copy, _ = expand_to_qdq(model)
    budget, bound = DiagnosisTime(seconds), data.bind(model).take(samples)
    batches = fitting(model, bound, samples if seconds is None else 1)
    first = next(iter(batches), None)
    rest = itertools.takewhile(lambda _: not budget.past(1.0), itertools.islice(batches, 1, None))
    return find_overflows(copy, itertools.chain([] if first is None else [first], rest))


def _match_baseline(
    model: Model, baseline: Model | None, batch: Batch, ctx: Context
) -> tuple[SwitchableModel, list[str]]:
    """Return the model with switches that turn it into its float original, and notes."""
    if baseline is None:
        note = "no --baseline was given, so weights and biases are not judged"
        return _with_switches(model, None), [note]
    refuse_quantized(baseline)
    twin = float_twin(model, baseline, ctx)
    switched = None if twin.changing else _switched_to_float(model, baseline, twin, batch)
    if switched is not None:
        missing = switched.constants - switched.matched
        notes = [f"{missing} constants have no partner in the baseline"] if missing else []
        if twin.repeated:
            notes.append(
                f"the baseline was taken through {_listed(twin.repeated)} first, as the "
                "file's history says, so that its weights are those that were rounded"
            )
        return switched, notes
    switched = _with_switches(model, None)
    distance = _distance(switched, baseline, batch)
    if twin.changing:
        return switched, [_changed_note(twin, distance)]
    if distance > ALIKE:
        raise InputError(
            f"does not compute what {baseline.name} does even without any rounding of "
            f"activations (relative error {np.sqrt(distance):.0%})",
            where=model.name,
            hint="Give the float model that it was made from as --baseline",
        )
    return switched, [
        "its weights are not those of the baseline rounded (they were folded, equalised or "
        "smoothed before), so activations alone are judged; give the float model as it was then"
    ]


def _switched_to_float(
    model: Model, baseline: Model, twin: FloatTwin, batch: Batch
) -> SwitchableModel | None:
    """Return the model with switches to the weights that were rounded, None if none are known."""
    equal: list[SwitchableModel] = []
    sources = [m for m in (twin.model, baseline) if m is not None]
    for float_model in itertools.chain.from_iterable(map(_baseline_variants, sources)):
        switched = _with_switches(model, BaselineMatcher(float_model))
        if _foreign(switched) or _distance(switched, baseline, batch) >= EQUAL:
            continue
        equal.append(switched)
        if switched.matched == switched.constants:
            break
    return max(equal, key=lambda s: s.matched, default=None)


def _foreign(switched: SwitchableModel) -> bool:
    """Return whether most weights are their matches in other scales of channels.

    One wrong scale is a fault to be found; where most differ, they were equalised or smoothed.
    """
    weights = [w for layer in switched.layers for w in layer.weights if w.grid is not None]
    scaled = sum(w.error > UNLIKE and w.rescaled_error < w.error / EXPLAINED for w in weights)
    return scaled > 1 and 2 * scaled >= len(weights)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _changed_note(twin: FloatTwin, distance: float) -> str:
    return (
        f"{_listed(twin.changing)} came between the baseline and quantization: without any "
        f"rounding of activations the answer is {np.sqrt(distance):.2%} of its size away from the "
        "baseline's, which the errors above leave out. Activations alone are judged; give the "
        "float file that was quantized as --baseline to judge weights as well"
    )


def _bias_note(made: ModelMeasurements) -> list[str]:
    """Say so where biases make up for rounding."""
    before, after = made.uncorrected.relative, made.simulated.relative
    if not made.biases_help or after > CORRECTED * before:
        return []
    return [
        f"changed biases correct the rounding of weights: the answer's error would be "
        f"{np.sqrt(before):.2%} of its size without, and is {np.sqrt(after):.2%} with them"
    ]


def _time_note(made: ModelMeasurements) -> list[str]:
    if not made.left_out:
        return []
    return [f"for want of time {' and '.join(made.left_out)}; --time allows more"]


def _unswitched_note(switched: SwitchableModel) -> list[str]:
    if not switched.unswitched:
        return []
    named = ", ".join(switched.unswitched[:4]) + (" ..." if len(switched.unswitched) > 4 else "")
    return [f"{len(switched.unswitched)} integer operators are taken as they are: {named}"]


def _with_switches(model: Model, matcher: BaselineMatcher | None) -> SwitchableModel:
    switched = add_switches(model, matcher)
    if not switched.layers:
        raise InputError(
            "has no quantizer that can be switched off"
            + (f" (it has {', '.join(switched.unswitched[:3])})" if switched.unswitched else ""),
            where=model.name,
            hint="Give the file as the quantizer wrote it, in Q/DQ or QOperator format",
        )
    return switched


def _baseline_variants(baseline: Model) -> Iterator[Model]:
    """Yield the float model unchanged, as quantization prepares it, and simplified."""
    plain = baseline.clone()
    lift_constants(plain.graph)
    yield plain
    for change in (lambda model: model, Simplify()):
        try:
            prepared = change(baseline).clone()
            prepare(prepared)
            apply_int8_rewrites(prepared)
        except (TrimtabError, MissingExtraError):
            continue
        yield prepared


def _distance(switched: SwitchableModel, baseline: Model, batch: Batch) -> float:
    """Return the relative squared error to the baseline, with all switches off."""
    plain = SessionConfig(level="basic")
    exact = run(build_session(baseline, plain), batch.feeds)
    off = run(build_session(switched.model, plain), {**batch.feeds, **switched.feeds([])})
    worst = 0.0
    for (name, array), other in zip(exact.items(), off.values(), strict=False):
        got = off.get(name, other)
        if got.shape != array.shape:
            return np.inf
        if array.dtype.kind == "f":
            worst = max(worst, relative(got, array))
    return worst
