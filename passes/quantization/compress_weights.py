"""Weights stored in 8, 4 or 16 bits and computed with in float, at no cost in speed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir

from trimtab.core.batches import fitting
from trimtab.core.context import Context
from trimtab.core.data import Batch, Floats32
from trimtab.core.dataset import Dataset
from trimtab.core.errors import InputError, OptionError, RunError
from trimtab.core.fields import File
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
from ..graph.declined import Declined
from ..graph.forms.float32_form import has_products_of, to_float32
from ..graph.forms.folding import fold_moved_weights
from ..graph.forms.raise_opset import raise_opset
from ..graph.names import FreeNames, shorten_names
from ..graph.patterns import match_nodes
from ..graph.queries import is_onnx_op
from ..graph.shapes import forget_shapes, infer_shapes
from ..graph.stored.compressed import compressed_weights, expand_compressed, storable
from ..graph.stored.shared_constants import share_equal_constants
from ..graph.stored.stored_weights import (
    MAX_ERROR,
    Form,
    Gridded,
    Halved,
    Tabled,
    exact,
    form_error,
    rounded,
    store,
)
from ..teacher import load_teacher
from .algorithms.error_rounding import Layer, layers_with_moments, rounded_by_error
from .algorithms.rounding_shift import correct_rounding
from .file_size import plain_bytes, size_notes
from .hold_out import hold_out, judging_batches, rows_at_once
from .judge import PROMISED, Judge
from .weight_forms import Ladder, choose_forms

#: First operator set whose Mul broadcasts.
_BROADCAST_OPSET = 7
#: Share of a file's bytes from which on names inside of the graph are shortened.
NAMES_SHARE = 0.2
#: Samples that weights are rounded on, and those that judge, at most.
FITTING, JUDGING = 32, 64
#: Bytes of inputs that are run at once where inner tensors are looked at.
FITTING_BYTES = 1 << 19
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
            those that lose too much in int8 take 16 bits. int16 has a scale for each channel and
            loses least.
        fidelity: with data, part of the float model's answers to keep on held-out samples, 0 to 1:
            weights whose rounding costs more take more bits.
        max_error: relative RMS error of a weight above which it takes more bits; 0 for none with
            data, without data 0.02 in int8 and 0.15 in int4.
        wide_share: share of the weights, the smallest, that take 16 bits without data.
        exclude: nodes whose weights stay as they are, by name or glob pattern.
        data: samples to round on, and others to judge on; that of the run if not given.
        samples: number of samples to round on; at most as many more judge.
        teacher: file of the model whose answers are to be kept; the given model if none is named.
    """

    shrinks: ClassVar[bool] = True
    renamed: ClassVar[Mapping[str, str]] = {"float16_share": "wide_share"}
    layers_only: ClassVar[bool] = True

    store: Literal["int8", "int4", "int16", "float16"] = "int8"
    fidelity: float = PROMISED
    max_error: float = 0.0
    wide_share: float = 0.1
    exclude: tuple[str, ...] = ()
    data: Dataset | None = None
    samples: int = 64
    teacher: Model | File | None = None

    def __post_init__(self) -> None:
        if self.max_error < 0:
            raise OptionError("must not be negative", where=f"max_error={self.max_error}")
        if not 0 <= self.fidelity <= 1:
            raise OptionError("must be from 0 to 1", where=f"fidelity={self.fidelity}")
        if not 0 <= self.wide_share <= 1:
            raise OptionError("must be from 0 to 1", where=f"wide_share={self.wide_share}")
        if self.samples < 1:
            raise OptionError("must be at least 1", where=f"samples={self.samples}")

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        """Choose a form for each weight and write it."""
        before, model = model, raise_opset(model.clone(), _BROADCAST_OPSET)
        normalize(model.ir)
        _write_in_float32(model, ctx)
        fold_moved_weights(model.ir)
        share_equal_constants(model.ir)
        excluded = set(match_nodes(self.exclude, model.graph))
        values = [v for v in _in_order(model) if not _readers(v) & excluded]
        declined = [Declined(name, "excluded by the user") for name in sorted(excluded)]
        front = _front_end(model.graph, values)
        samples = self._samples(model, ctx)
        ladders: dict[ir.Value, Ladder] = {}
        for value, layer in self._layers(model, values, front, samples, ctx):
            ladder = self._ladder(value, layer, spectrum=value in front, judged=bool(samples))
            if isinstance(ladder, str):
                declined.append(Declined(str(value.name), ladder))
            else:
                ladders[value] = ladder
        report: dict[str, Any] = {}
        if samples:
            forms, report = self._judged(model, ladders, samples, ctx)
        else:
            forms = {v: form for v, ladder in ladders.items() if (form := ladder[0]) is not None}
            self._spare(forms)
        report |= _summary(forms)
        names = FreeNames(model.graph)
        for value, form in forms.items():
            store(names, value, form)
        declined += _expand_unfolded(model, ctx)
        if forms and shorten_names(model.ir, NAMES_SHARE * plain_bytes(model)):
            report["names"] = "shortened: they took more than a fifth of the file"
        if forms:
            forget_shapes(model.ir)
        report |= {} if ctx.trial else _costs(before, model, ctx)
        return Rewrite(model.ir, declined, report | size_notes(before, model))

    def _layers(
        self,
        model: Model,
        values: Sequence[ir.Value],
        front: Collection[ir.Value],
        samples: _Samples | None,
        ctx: Context,
    ) -> Iterator[tuple[ir.Value, Layer | None]]:
        """Yield each weight, with its layer where its inputs were observed."""
        observed: set[ir.Value] = set()
        if samples is not None and self.store in {"int4", "int8"}:
            inner = [v for v in values if v not in front and exact(_floats(v)) is None]
            layers = layers_with_moments(model, inner, samples.fitted, ctx)
            for layer in ctx.progress.track(layers, "rounding weights", len(inner)):
                observed.add(layer.weight)
                yield layer.weight, layer
        yield from ((v, None) for v in values if v not in observed)

    def _ladder(
        self, value: ir.Value, layer: Layer | None, *, spectrum: bool, judged: bool
    ) -> Ladder | str:
        """Return the forms of a weight from small to large, or why it stays as it is."""
        array = _floats(value)
        if not np.isfinite(array).all():
            return "has values that are not finite"
        bits = 4 if self.store == "int4" else 8
        lossless = exact(array)
        if lossless is not None and lossless.nbytes() <= array.size * bits / 8 + array.nbytes / 8:
            return [lossless]
        if spectrum and not judged:
            return _BEFORE_LOGARITHM
        widths = {"int4": (4, 8), "int8": (8,)}.get(self.store, ())
        forms: list[Form] = []
        for width in () if spectrum else widths:
            form = rounded(array, width) if layer is None else rounded_by_error(layer, array, width)
            limit = self.max_error or (np.inf if judged else MAX_ERROR[width])
            if form is not None and form_error(form, array) <= limit:
                forms.append(form)
        last = lossless or self._in_16_bits(array)
        if isinstance(last, str) and not forms:
            return last
        forms += [] if isinstance(last, str) else [last]
        smaller = [form for form in forms if form.nbytes() < array.nbytes]
        if not smaller:
            return "is too small to gain anything"
        return [*smaller, None] if judged and smaller[-1] is not lossless else smaller

    def _in_16_bits(self, array: Floats32) -> Form | str:
        """Return integers where they are wanted and have scales enough, they lose least."""
        form = None if self.store == "float16" else rounded(array, 16)
        return form if form is not None and form.nbytes() < array.nbytes else _halved(array)

    def _samples(self, model: Model, ctx: Context) -> _Samples | None:
        """Return the samples to round on and to judge on; None without data."""
        if self.data is None and ctx.data is None:
            return None
        data = ctx.dataset(self.data, model, purpose="compressing weights")
        used, held_out = hold_out(data, self.samples)
        judging = judging_batches(model, used, held_out.take(JUDGING), rows=8)
        fitted = list(fitting(model, used.take(FITTING), rows_at_once(used, 4, FITTING_BYTES)))
        return _Samples(fitted, *judging)

    def _judged(
        self, model: Model, ladders: dict[ir.Value, Ladder], samples: _Samples, ctx: Context
    ) -> tuple[Forms, dict[str, Any]]:
        """Return the smallest forms that keep the answers, and notes; correct biases in place."""
        reference = load_teacher(self.teacher, ctx, f"pass {self.name()}") or model
        judge = Judge(reference, samples.judged, ctx.target, also=samples.also)
        chosen, verdict = choose_forms(model, ladders, judge, self.fidelity, ctx)
        forms = {value: form for value, form in chosen.items() if form is not None}
        rounded_to = {value: form.array() for value, form in forms.items()}
        report = correct_rounding(model, rounded_to, samples.fitted, judge, verdict)
        return forms, report

    def _spare(self, forms: Forms) -> None:
        """Give float16 to the smallest weights, in place."""
        lossy = {
            v: f for v, f in forms.items() if isinstance(f, Gridded) and form_error(f, _floats(v))
        }
        budget = int(self.wide_share * sum(f.integers.size for f in lossy.values()))
        for value in sorted(lossy, key=_size):
            form = self._in_16_bits(_floats(value)) if _size(value) <= budget else ""
            if not isinstance(form, str):
                budget -= _size(value)
                forms[value] = form


def _write_in_float32(model: Model, ctx: Context) -> None:
    """Write layers of double in float32, and of float16 too where a CPU runs them, in place.

    A CPU computes float16 in float32; a GPU is faster in float16, which stays.
    """
    kinds = [ir.DataType.DOUBLE, *([] if ctx.target.isa == "gpu" else [ir.DataType.FLOAT16])]
    for kind in kinds:
        if has_products_of(model.graph, kind):
            infer_shapes(model.ir)
            to_float32(model.ir, kind)


@dataclass(frozen=True)
class _Samples:
    """Samples to round on, and others to judge on."""

    fitted: list[Batch]
    judged: Dataset | list[Batch]
    also: list[Batch]


def _in_order(model: Model) -> list[ir.Value]:
    """Return the weights that can be stored otherwise, in the order of their first readers."""
    places = {node: place for place, node in enumerate(model.graph.all_nodes())}
    return sorted(storable(model.ir), key=lambda v: min(places[node] for node, _ in v.uses()))


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


def _halved(array: Floats32) -> Form | str:
    if np.abs(array).max(initial=0.0) > _LARGEST_FLOAT16:
        return f"has values beyond {_LARGEST_FLOAT16:.0f}, where float16 ends"
    form = Halved(array.astype(np.float16))
    if form_error(form, array) > MAX_ERROR[8]:
        return "loses too much in any smaller type"
    return form if form.nbytes() < array.nbytes else "is too small to gain anything"


def _summary(forms: Forms) -> dict[str, Any]:
    """Return the number of weights by form, and the worst errors."""
    kinds = {
        v: f"int{f.bits}" if isinstance(f, Gridded) else _KINDS[type(f)] for v, f in forms.items()
    }
    errors = {str(v.name): form_error(f, _floats(v)) for v, f in forms.items()}
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
    running = optimized_graph(model, config.with_fusions_only(model))
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
    build_session(plain, copied=True)
    return time.perf_counter() - start
