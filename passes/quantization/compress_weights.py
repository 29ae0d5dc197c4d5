"""Weights stored in 8, 4 or 16 bits and computed with in float, at no cost in speed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir

from trimtab.core.batches import fitting
from trimtab.core.context import Context
from trimtab.core.data import Batch, Floats32
from trimtab.core.dataset import Dataset
from trimtab.core.errors import InputError, OptionError, RunError
from trimtab.core.model import Model
from trimtab.core.ort.peak_memory import peak_bytes
from trimtab.core.ort.session import (
    SessionConfig,
    available_providers,
    build_session,
    optimized_graph,
)

from ..base import Pass, Rewrite
from ..graph.cleanup import normalize
from ..graph.compressed import compressed_weights, expand_compressed, storable
from ..graph.declined import Declined
from ..graph.edit import assign_float32
from ..graph.folding import fold_moved_weights
from ..graph.names import FreeNames
from ..graph.patterns import match_nodes
from ..graph.queries import is_onnx_op
from ..graph.raise_opset import raise_opset
from ..graph.stored_weights import Form, Gridded, Halved, Tabled, exact, rounded, store
from .algorithms.rounding_shift import correct_rounding
from .file_size import size_notes
from .judge import Judge

#: First operator set whose Mul broadcasts.
_BROADCAST_OPSET = 7
#: Relative error of a weight up to which it is rounded to integers, by their bits.
MAX_ERROR = {8: 0.02, 4: 0.15}
#: Most weights whose effect on the outputs is measured, each by runs of its own.
_MOST_MEASURED = 128
_LARGEST_FLOAT16 = float(np.finfo(np.float16).max)
#: Operators behind which a tensor is not the sum of products that a spectrum is.
_ACTIVATIONS = frozenset(
    {"Elu", "Erf", "Exp", "GRU", "Gelu", "HardSigmoid", "HardSwish", "If", "LSTM", "LeakyRelu"}
    | {"Loop", "PRelu", "RNN", "Relu", "Scan", "Selu", "Sigmoid", "Softmax", "Softplus", "Tanh"}
)
_BEFORE_LOGARITHM = "computes a spectrum whose logarithm is taken, where rounding is a noise floor"
Forms = dict[ir.Value, Form]


@dataclass(frozen=True)
class CompressWeights(Pass):
    """Store float weights in 8 bits, or 4 or 16; the arithmetic stays float and as fast.

    Each weight is written as integers, a Cast and a Mul by scales, one for each channel.
    onnxruntime computes the float weight from them once, when it loads the file. Weights that lie
    on a grid already, or take few values, are stored without loss.

    Attributes:
        store: type that weights are stored in; those that lose too much in int4 take int8, and
            those that lose too much in int8 take float16.
        max_error: relative RMS error of a weight above which it takes more bits; 0 for 0.02 in
            int8 and 0.15 in int4.
        float16_share: share of the weights that take float16 anyway: with data those whose
            rounding costs most at the outputs, without data the smallest.
        exclude: nodes whose weights stay as they are, by name or glob pattern.
        data: samples to choose these weights and to correct biases on; the context's if not given.
        samples: number of samples.
    """

    shrinks: ClassVar[bool] = True

    store: Literal["int8", "int4", "float16"] = "int8"
    max_error: float = 0.0
    float16_share: float = 0.1
    exclude: tuple[str, ...] = ()
    data: Dataset | None = None
    samples: int = 16

    def __post_init__(self) -> None:
        if self.max_error < 0:
            raise OptionError("must not be negative", where=f"max_error={self.max_error}")
        if not 0 <= self.float16_share <= 1:
            raise OptionError("must be from 0 to 1", where=f"float16_share={self.float16_share}")
        if self.samples < 1:
            raise OptionError("must be at least 1", where=f"samples={self.samples}")

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        """Choose a form for each weight and write it."""
        before, model = model, raise_opset(model.clone(), _BROADCAST_OPSET)
        normalize(model.ir)
        fold_moved_weights(model.ir)
        excluded = set(match_nodes(self.exclude, model.graph))
        values = [v for v in storable(model.ir) if not _readers(v) & excluded]
        declined = [Declined(name, "excluded by the user") for name in sorted(excluded)]
        front = _front_end(model.graph, values)
        values = [v for v in values if v not in front]
        declined += [Declined(str(v.name), _BEFORE_LOGARITHM) for v in front]
        forms: Forms = {}
        for value in ctx.progress.track(values, "rounding weights", len(values)):
            form = self._form(_floats(value))
            if isinstance(form, str):
                declined.append(Declined(str(value.name), form))
            else:
                forms[value] = form
        report: dict[str, Any] = {}
        batches = self._batches(model, ctx)
        self._spare(model, forms, batches, ctx)
        if batches:
            rounded_to = {value: form.array() for value, form in forms.items()}
            report |= correct_rounding(model, rounded_to, batches, ctx)
        report |= _summary(forms)
        names = FreeNames(model.graph)
        for value, form in forms.items():
            store(names, value, form)
        declined += _expand_unfolded(model, ctx)
        report |= _costs(before, model, ctx)
        return Rewrite(model.ir, declined, report | size_notes(before, model))

    def _form(self, array: Floats32) -> Form | str:
        """Return the form of a weight, or the reason why it stays as it is."""
        if not np.isfinite(array).all():
            return "has values that are not finite"
        lossless = exact(array)
        bits = 4 if self.store == "int4" else 8
        if lossless is not None and lossless.nbytes() <= array.size * bits / 8 + array.nbytes / 8:
            return lossless
        for width in (4, 8) if bits == 4 else (8,) if self.store == "int8" else ():
            form = rounded(array, width)
            if form is not None and _error(form, array) <= (self.max_error or MAX_ERROR[width]):
                return form if form.nbytes() < array.nbytes else "is too small to gain anything"
        return lossless or _halved(array)

    def _batches(self, model: Model, ctx: Context) -> list[Batch]:
        if self.data is None and ctx.data is None:
            return []
        data = ctx.dataset(self.data, model, purpose="compressing weights").take(self.samples)
        return list(fitting(model, data, rows=8))

    def _spare(self, model: Model, forms: Forms, batches: Sequence[Batch], ctx: Context) -> None:
        """Give float16 to the weights whose rounding costs most for their size, in place."""
        lossy = {v: f for v, f in forms.items() if isinstance(f, Gridded) and _error(f, _floats(v))}
        budget = int(self.float16_share * sum(f.integers.size for f in lossy.values()))
        small = sorted((v for v in lossy if _floats(v).size <= budget), key=_size)
        order = small
        if batches and small:
            few = batches[: max(len(batches) // 2, 1)]  # they only rank
            costs = _output_errors(model, lossy, small[:_MOST_MEASURED], few, ctx)
            order = sorted(costs, key=lambda v: -costs[v] / _size(v))
        for value in order:
            form = _halved(_floats(value)) if _size(value) <= budget else ""
            if not isinstance(form, str):
                budget -= _size(value)
                forms[value] = form


def _front_end(graph: ir.Graph, values: Sequence[ir.Value]) -> set[ir.Value]:
    """Return the weights of a spectrum whose logarithm is taken, unless they are nearly all.

    Rounding is a noise floor there, and the logarithm makes quiet frames as loud as others.
    """
    seen: set[ir.Node] = set()
    waiting = [n for n in graph if n.op_type == "Log" and is_onnx_op(n)]
    while waiting:
        node = waiting.pop()
        if node not in seen and node.op_type not in _ACTIVATIONS:
            seen.add(node)
            makers = [v.producer() for v in node.inputs if v is not None]
            waiting += [maker for maker in makers if maker is not None]
    front = {v for v in values if any(node in seen for node, _ in v.uses())}
    few = sum(map(_size, front)) <= 0.9 * sum(map(_size, values))
    return front if few else set()


def _floats(value: ir.Value) -> Floats32:
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy(), np.float32)


def _size(value: ir.Value) -> int:
    return int(_floats(value).size)


def _readers(value: ir.Value) -> set[str]:
    return {node.name or "" for node, _ in value.uses()}


def _error(form: Form, array: Floats32) -> float:
    """Return the relative RMS error of a stored form."""
    power = float(np.square(array, dtype=np.float64).sum())
    lost = float(np.square(form.array() - array, dtype=np.float64).sum())
    return (lost / power) ** 0.5 if power else 0.0


def _halved(array: Floats32) -> Form | str:
    if np.abs(array).max(initial=0.0) > _LARGEST_FLOAT16:
        return f"has values beyond {_LARGEST_FLOAT16:.0f}, where float16 ends"
    form = Halved(array.astype(np.float16))
    if _error(form, array) > MAX_ERROR[8]:
        return "loses too much in any smaller type"
    return form if form.nbytes() < array.nbytes else "is too small to gain anything"


def _output_errors(
    model: Model,
    forms: Mapping[ir.Value, Form],
    values: Sequence[ir.Value],
    batches: Sequence[Batch],
    ctx: Context,
) -> dict[ir.Value, float]:
    """Return the error of the outputs with each of these weights alone rounded."""
    judge = Judge(model, batches, ctx.target)
    found = {}
    for value in ctx.progress.track(values, "measuring weights", len(values)):
        tensor = value.const_value
        assign_float32(value, forms[value].array())
        found[value] = judge.of(model).loss
        value.const_value = tensor
    return found


def _summary(forms: Forms) -> dict[str, Any]:
    """Return the number of weights by form, and the worst errors."""
    kinds = {
        v: f"int{f.bits}" if isinstance(f, Gridded) else _KINDS[type(f)] for v, f in forms.items()
    }
    errors = {str(v.name): _error(f, _floats(v)) for v, f in forms.items()}
    worst = sorted(errors, key=lambda name: -errors[name])[:5]
    counts = {kind: list(kinds.values()).count(kind) for kind in sorted(set(kinds.values()))}
    lossless = sum(not error for error in errors.values())
    return {
        "weights": counts,
        "lossless": lossless,
        "relative_errors": {name: float(f"{errors[name]:.3g}") for name in worst},
    }


_KINDS: dict[type, str] = {Halved: "float16", Tabled: "table"}


def _expand_unfolded(model: Model, ctx: Context) -> list[Declined]:
    """Turn weights back into floats that onnxruntime would compute anew in each run."""
    provider = ctx.target.provider
    known = provider in available_providers()
    config = SessionConfig(provider=provider) if known else SessionConfig()
    running = optimized_graph(model, config)
    left = {str(value.name) for value in compressed_weights(running)}
    if left:
        expand_compressed(model.ir, left)
    return [Declined(name, f"{config.provider} does not fold it on loading") for name in left]


def _costs(before: Model, after: Model, ctx: Context) -> dict[str, Any]:
    """Return the peak memory of both models in a run, and tell how long both take to load.

    Times stay out of the report, which is stored in the file: equal recipes make equal files.
    """
    loads = [min(_load_seconds(model) for _ in range(3)) * 1e3 for model in (before, after)]
    ctx.progress.say(f"compress-weights: loads in {loads[1]:.0f} ms, the float {loads[0]:.0f} ms")
    try:
        return {"peak_bytes": [peak_bytes(model) for model in (before, after)]}
    except (RunError, InputError):
        return {}  # it runs on no random inputs


def _load_seconds(model: Model) -> float:
    plain = dataclasses.replace(model)
    start = time.perf_counter()
    build_session(plain)
    return time.perf_counter() - start
