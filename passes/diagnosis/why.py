"""Why an int8 model is wrong: from a model, its float original and data to verdicts on layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.core.batches import fitting
from trimtab.core.context import Context
from trimtab.core.data import Batch
from trimtab.core.dataset import Dataset
from trimtab.core.errors import InputError, MissingExtraError, TrimtabError
from trimtab.core.model import Model
from trimtab.core.ort.overflow import Overflow, find_overflows
from trimtab.core.ort.running import INT8_OPS, QDQ_OPS
from trimtab.core.ort.session import SessionConfig, build_session, run

from ..graph.edit import lift_constants
from ..graph.quantized import refuse_quantized
from ..quantization.qdq.int8_rewrites import apply_int8_rewrites
from ..quantization.qdq.prepare import prepare
from ..simplify.simplify import Simplify
from .causes import HARMLESS, Verdict, decibels, judge, short
from .expand import to_pairs
from .measure import Error, measure
from .partner import Partner
from .switches import Switched, add_switches

#: Relative squared error to which the int8 model, all switches off, computes what the float one
#: does; and to which it may differ where its weights cannot be told from their rounding.
EQUAL, ALIKE = 1e-4, 0.25
#: This many times the simulated error means that the machine's kernels add some of their own.
KERNELS = 3.0
#: Samples on which pair sums are looked at.
OVERFLOW_SAMPLES = 32


@dataclass(frozen=True)
class WhyWrong:
    """What is wrong with an int8 model; errors are squared and relative to the answer's size.

    Attributes:
        verdicts: on layers, the most harmful first.
        together: error of the answer with everything in int8.
        simulated: the same on the samples of `running`.
        running: what this machine's kernels make of it.
        samples: that were looked at.
        notes: what could not be told, and why.
    """

    verdicts: tuple[Verdict, ...]
    together: float
    simulated: float
    running: float
    samples: int
    notes: tuple[str, ...]

    @property
    def kernels_differ(self) -> bool:
        """Whether this machine's kernels lose much more than rounding does."""
        return self.running > KERNELS * self.simulated + 1e-9

    @property
    def worth_mending(self) -> tuple[Verdict, ...]:
        """The layers that take a visible part in the harm."""
        total = sum(v.harm for v in self.verdicts)
        return tuple(v for v in self.verdicts if v.harm > HARMLESS * total)

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "samples": self.samples,
            "answer_error": short(self.together),
            "answer_snr_db": decibels(self.together),
            "simulated_error": short(self.simulated),
            "running_error": short(self.running),
            "kernels_differ": self.kernels_differ,
            "notes": list(self.notes),
            "layers": [v.to_json() for v in self.verdicts],
        }


def is_quantized(model: Model) -> bool:
    """Whether anything in a model is int8."""
    ops = {node.op_type for node in model.graph}
    return bool(ops & (INT8_OPS | QDQ_OPS)) or any(op.startswith("QLinear") for op in ops)


def why_wrong(
    model: Model, data: Dataset, ctx: Context, *, baseline: Model | None = None, samples: int = 64
) -> WhyWrong:
    """Find the layers that hurt an int8 model's answer.

    Args:
        model: Q/DQ, QOperator, dynamic or weight-only, of any tool.
        data: samples, evenly spaced ones are taken.
        ctx: for progress.
        baseline: the float model that it was made from; without it weights are not judged.
        samples: how many.

    Raises:
        InputError: the model is not quantized, holds nothing that can be switched, or does not
            compute what the baseline does even with all rounding off.
        DataError: the data do not fit.
    """
    if not is_quantized(model):
        raise InputError(
            "is not quantized, so no rounding can be wrong with it",
            where=model.name,
            hint="Give the int8 model, and the float one as --baseline",
        )
    bound = fitting(model, data.bind(model).take(samples))
    switched, notes = _paired(model, baseline, next(iter(bound)))
    made = measure(model, switched, bound, ctx)
    verdicts = sorted((judge(one) for one in made.layers), key=lambda v: -v.harm)
    return WhyWrong(
        tuple(verdicts),
        made.together.relative,
        made.simulated.relative,
        made.running.relative,
        made.samples,
        tuple(notes),
    )


def overflows(model: Model, data: Dataset, samples: int = OVERFLOW_SAMPLES) -> list[Overflow]:
    """The layers that would saturate on x64 without VNNI, the worst first.

    Args:
        model: int8, in any format that `to_pairs` reads.
        data: fits the model.
        samples: how many to look at, evenly spaced.
    """
    copy = model.clone()
    to_pairs(copy.ir)
    return find_overflows(copy, fitting(model, data.bind(model).take(samples)))


def _paired(model: Model, baseline: Model | None, batch: Batch) -> tuple[Switched, list[str]]:
    """The model with switches that turn it into its float original."""
    notes: list[str] = []
    if baseline is None:
        switched = _switched(model, None)
        notes.append("no --baseline was given, so weights and biases are not judged")
        return switched, notes + _left(switched)
    equal: list[Switched] = []
    for float_model in _candidates(baseline):
        switched = _switched(model, Partner(float_model))
        if _distance(switched, baseline, batch) < EQUAL:
            equal.append(switched)
            if switched.matched == switched.constants:
                break
    if equal:
        switched = max(equal, key=lambda s: s.matched)
        if missing := switched.constants - switched.matched:
            notes.append(f"{missing} constants have no partner in the baseline")
        return switched, notes + _left(switched)
    switched = _switched(model, None)
    distance = _distance(switched, baseline, batch)
    if distance > ALIKE:
        raise InputError(
            f"does not compute what {baseline.name} does even without any rounding of "
            f"activations (relative error {np.sqrt(distance):.0%})",
            where=model.name,
            hint="Give the float model that it was made from as --baseline",
        )
    notes.append(
        "its weights are not those of the baseline rounded (they were folded, equalised or "
        "smoothed before), so activations alone are judged; give the float model as it was then"
    )
    return switched, notes + _left(switched)


def _left(switched: Switched) -> list[str]:
    if not switched.left:
        return []
    named = ", ".join(switched.left[:4]) + (" ..." if len(switched.left) > 4 else "")
    return [f"{len(switched.left)} integer operators are taken as they are: {named}"]


def _switched(model: Model, partner: Partner | None) -> Switched:
    switched = add_switches(model, partner)
    if not switched.layers:
        raise InputError(
            "holds no quantizer that can be switched off"
            + (f" (it has {', '.join(switched.left[:3])})" if switched.left else ""),
            where=model.name,
            hint="Give the file as the quantizer wrote it, in Q/DQ or QOperator format",
        )
    return switched


def _candidates(baseline: Model) -> Iterator[Model]:
    """The float model as it stands, as our passes prepare it, and simplified."""
    refuse_quantized(baseline)
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


def _distance(switched: Switched, baseline: Model, batch: Batch) -> float:
    """Squared error of the answer, all switches off, relative to the baseline's."""
    plain = SessionConfig(level="basic")
    exact = run(build_session(baseline, plain), batch.feeds)
    off = run(build_session(switched.model, plain), {**batch.feeds, **switched.feeds([])})
    worst = 0.0
    for (name, array), other in zip(exact.items(), off.values(), strict=False):
        got = off.get(name, other)
        if array.dtype.kind == "f" and got.shape == array.shape:
            error = Error()
            error.add(got, array)
            worst = max(worst, error.relative)
        elif got.shape != array.shape:
            return np.inf
    return worst
