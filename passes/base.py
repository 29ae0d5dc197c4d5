"""The base class of passes, and what every pass promises.

A pass author writes a frozen dataclass with a `rewrite`; cloning, checking, recording and the
wrapping of errors are done here, once.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import onnx_ir

from trimtab.core.context import Context
from trimtab.core.errors import (
    InputError,
    OptionError,
    PassError,
    RunError,
    TrimtabError,
)
from trimtab.core.fields import Field, build, check_values, fields_of, to_plain
from trimtab.core.garbage import gc_paused
from trimtab.core.lineage import Step
from trimtab.core.memo import MemoKind
from trimtab.core.metrics.producers import ends_in_squashing
from trimtab.core.model import Model
from trimtab.core.ort.feeding import Feeding, feeding, feeding_from
from trimtab.core.ort.own_fault import own_fault
from trimtab.core.ort.random_operators import with_fixed_draws
from trimtab.core.ort.session import Feeds, Outputs, SessionConfig, build_session, run
from trimtab.core.timings import stage

from .check import BUG_HINT, check_result
from .graph.declined import Declined
from .graph.forms.float32_and_back import Float32Form
from .graph.layers import has_layers
from .graph.names import unique_names
from .graph.same_graph import is_same_graph
from .graph.stored.compressed import (
    compress_exactly,
    expand_compressed,
    store_rounded,
    stored_bits,
)

_TOLD: MemoKind[str] = MemoKind("told", 64)


#: A pass may change as many times what onnxruntime's fusions change in the original, where that is
#: more than the pass promises; but never more than the second.
ROUNDINGS, NOISIEST = 4.0, 1e-3
#: Magnitudes that errors are relative to where all numbers, or all probabilities, are smaller.
LEAST, LEAST_PROBABILITY = 1e-6, 1e-3
#: Reason why nothing is done to a model without layers.
NO_LAYERS = "has neither layers nor weights, as trees have none"


@dataclass(frozen=True)
class Rewrite:
    """Result of `Pass.rewrite`.

    Attributes:
        ir: the new graph.
        declined: nodes and tensors that were left alone.
        report: figures for the user and the lineage, as JSON values.
        loaded: true where onnxruntime has loaded and optimized this very graph already; loading a
            large one again takes time that grows faster than its nodes.
    """

    ir: onnx_ir.Model
    declined: Sequence[Declined] = ()
    report: Mapping[str, Any] = field(default_factory=dict)
    loaded: bool = False


@dataclass(frozen=True)
class Pass(ABC):
    """Transformation of a model. Its fields are its whole configuration; all have defaults.

    Class attributes:
        tolerance: largest difference of any output on random inputs, relative to that output's
            largest magnitude, that the pass promises; None where it changes numbers by design.
        needs_data: whether it needs calibration data.
        shrinks: whether a smaller file is its purpose; commands write no larger one unasked.
        drops: whether it drops weights, whatever the file's size; commands say, as for all that
            shrink, what is kept of the answers.
        calibrates: whether it chooses weights or ranges by the data, so that only held-out rows
            tell what it keeps.
        keeps_bits: whether new weights are rounded to the bits that the model stores old ones in.
        layers_only: whether it changes layers and their weights alone, so that a model without any,
            as large trees are, costs no time.
        in_float32: whether it computes new weights, and so is given models of float16 or double in
            float32; float16 comes back, double stays float32.
        expands: whether weights that the model stores in fewer bits become floats for good; after
            other passes they are stored so again, where that loses nothing.
        renamed: new names of fields by the old names that recipes may still use.
    """

    tolerance: ClassVar[float | None] = None
    needs_data: ClassVar[bool] = False
    shrinks: ClassVar[bool] = False
    drops: ClassVar[bool] = False
    calibrates: ClassVar[bool] = False
    keeps_bits: ClassVar[bool] = False
    layers_only: ClassVar[bool] = False
    in_float32: ClassVar[bool] = False
    expands: ClassVar[bool] = False
    renamed: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        """Let a subclass's own `__post_init__` see fields that have been checked."""
        super().__init_subclass__(**options)
        own = cls.__dict__.get("__post_init__")
        if own is not None:

            @functools.wraps(own)
            def checked(self: Pass) -> None:
                Pass.__post_init__(self)
                own(self)

            cls.__post_init__ = checked  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        check_values(self, where=f"pass {self.name()}")

    @abstractmethod
    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        """Return the new graph; `model` is a clone whose graph may be changed in place."""

    def without_layers(self, model: Model) -> Rewrite:
        """Return a model in which there are neither layers nor weights as it is."""
        return Rewrite(model.ir, [Declined(model.name, NO_LAYERS)])

    @classmethod
    def name(cls) -> str:
        """Return its name in recipes and commands: `quantize-static` for `QuantizeStatic`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()

    @classmethod
    def fields(cls) -> dict[str, Field]:
        """Return its fields by name, with types, defaults and their line of documentation."""
        return fields_of(cls)

    @classmethod
    def summary(cls) -> str:
        """Return the first line of its documentation."""
        return (cls.__doc__ or "").strip().splitlines()[0]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Build the pass with these fields.

        Raises:
            OptionError: an unknown field or a value of a wrong type.
        """
        twice = [
            f"{old} and {new}" for old, new in cls.renamed.items() if {old, new} <= set(values)
        ]
        if twice:
            raise OptionError(
                f"{twice[0]} are two names of one field",
                where=f"pass {cls.name()}",
                hint="Give one of them",
            )
        known = {cls.renamed.get(name, name): value for name, value in values.items()}
        made: Self = build(cls, known, where=f"pass {cls.name()}")
        return made

    def to_json(self) -> dict[str, Any]:
        """Return its fields that differ from their defaults."""
        return {
            name: to_plain(getattr(self, name))
            for name, known in self.fields().items()
            if getattr(self, name) != known.default
        }

    def with_fields(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def decides_by_time(self) -> bool:
        """Return whether it asks the clock, and so may make another model the next time."""
        return False

    def resolved(self, model: Model, ctx: Context) -> Self:  # noqa: ARG002 - most have nothing to ask
        """Return the pass with fields in place of what it asks the clock, so that it repeats."""
        return self

    def __call__(self, model: Model | str | Path, ctx: Context | None = None) -> Model:
        """Apply the pass.

        Args:
            model: model to transform, or its file; it is not changed.
            ctx: target, data, seed, progress; this machine and no data where None.

        Raises:
            TrimtabError: the pass cannot work on this model or data.
            PassError: the pass failed, or its result breaks a promise of every pass.
        """
        model, ctx = Model.of(model), ctx or Context()
        try:
            source = ctx.source(model, getattr(self, "data", None))
            with stage(f"pass {self.name()}"), feeding_from(model, source):
                return self._apply(model, ctx)
        except PassError as error:
            # A broken file must not be called a bug: ask whether it is valid by itself.
            blamed = "bug of" in (error.hint or "")
            fault = own_fault(model) if blamed else None
            if fault is not None:
                raise fault from error
            raise

    def _apply(self, model: Model, ctx: Context) -> Model:
        try:
            given = model.clone()
            bits = {} if self.expands else stored_bits(given.ir)
            expand_compressed(given.ir)
            result = self._rewritten(given, ctx)
            if bits:
                compress_exactly(result.ir)
            if self.keeps_bits:
                store_rounded(result.ir, bits)
        except (TrimtabError, MemoryError):
            raise
        except Exception as error:
            raise PassError(
                f"pass {self.name()} failed ({type(error).__name__}: {str(error)[:300]})",
                where=model.name,
                hint="This is a bug of trimtab; --debug shows where. Please report it",
            ) from error
        unique_names(result.ir)
        _declare_alike(model, result.ir)
        after = dataclasses.replace(
            model, ir=result.ir, lineage=(*model.lineage, self._step(model, result))
        )
        with stage("checking results"):
            self._check(model, after.fixed(), ctx, loaded=result.loaded)
        return after

    def _rewritten(self, model: Model, ctx: Context) -> Rewrite:
        """Return the new graph, of a model of float16 or double by its float32 form if asked."""
        if self.layers_only and not has_layers(model.ir):
            return self.without_layers(model)
        form = Float32Form.of(model) if self.in_float32 else None
        if form is None:
            return self.rewrite(model, ctx)
        made = self.rewrite(form.model, ctx)
        if made.ir is form.model.ir:  # nothing was done
            return dataclasses.replace(made, ir=model.ir)
        form.back(made.ir)
        return dataclasses.replace(made, loaded=False)

    def _step(self, model: Model, result: Rewrite) -> Step:
        notes = dict(result.report)
        if result.declined:
            notes["declined"] = [[d.node, d.reason] for d in result.declined]
        return Step(self.name(), self.to_json(), model.digest, notes)

    @gc_paused()
    def _check(self, before: Model, after: Model, ctx: Context, *, loaded: bool = False) -> None:
        """Check the result against the promises of every pass."""
        if before.inputs != after.inputs or before.outputs != after.outputs:
            raise PassError(
                f"pass {self.name()} changed the model's inputs or outputs",
                where=f"{_signature(before)} became {_signature(after)}",
                hint=BUG_HINT,
            )
        check_result(before, after, f"after pass {self.name()}", loaded=loaded)
        untouched = not has_layers(after.ir) and is_same_graph(before.ir, after.ir)
        if self.tolerance is not None and not untouched:
            self._check_numbers(before, after, ctx, self.tolerance)

    def _check_numbers(self, before: Model, after: Model, ctx: Context, tolerance: float) -> None:
        # Without onnxruntime's own optimizations: the pass is checked, not its fusions.
        plain = SessionConfig(level="basic").for_one_run(after)
        try:
            old = build_session(before, plain)
            fed = [feeding(before, seed=ctx.seed + n, batch=2, session=old) for n in (0, 1)]
            if with_fixed_draws(before) is not before:  # begin anew: tries of sizes drew numbers
                old = build_session(before, plain)
            expected = [run(old, each.feeds) for each in fed]
        except OptionError:
            raise
        except (InputError, RunError) as error:
            _tell(ctx, f"{self.name()}: the numbers were not compared. {error}")
            return
        new = build_session(after, plain)
        for each, wanted in zip(fed, expected, strict=True):
            got = self._run_after(new, each, before)
            if max(output_errors(before, wanted, got).values(), default=0.0) > tolerance:
                allowed = max(tolerance, rounding_error(before, each.feeds, wanted))
                self._compare(before, wanted, got, allowed)
        _tell(ctx, f"{self.name()}: compared on {fed[0]}")

    def _run_after(self, session: Any, fed: Feeding, before: Model) -> Outputs:
        try:
            return run(session, fed.feeds)
        except RunError as error:
            raise PassError(
                f"pass {self.name()} made a model that does not run on {fed}: {error.what}",
                where=before.name,
                hint=BUG_HINT,
            ) from error

    def _compare(self, before: Model, expected: Outputs, got: Outputs, tolerance: float) -> None:
        for name, error in output_errors(before, expected, got).items():
            if error > tolerance:
                raise PassError(
                    f"pass {self.name()} changed output {name!r} by {error:.1e} of its size, "
                    f"{tolerance:.0e} is allowed",
                    where=before.name,
                    hint=BUG_HINT,
                )


def output_errors(model: Model, expected: Outputs, got: Outputs) -> dict[str, float]:
    """Return the relative error of each output of a model.

    Probabilities are compared with a thousandth where all are smaller, as a detector of nothing
    has them: those of a sigmoid are rounded to 1e-7 of one.
    """
    squashed = {str(v.name) for v in model.graph.outputs if ends_in_squashing(v)}
    return {
        name: relative_error(array, got[name], LEAST_PROBABILITY if name in squashed else LEAST)
        for name, array in expected.items()
    }


def rounding_error(model: Model, feeds: Feeds, expected: Outputs) -> float:
    """Return the error that float32 rounding alone may cause in a model, at most `NOISIEST`.

    A network may amplify rounding. What onnxruntime's own fusions change in the original, which add
    in another order as a pass does, tells by how much.

    Args:
        model: the original.
        feeds: arrays by input name.
        expected: its outputs for them, without fusions.
    """
    fused = build_session(model, SessionConfig(level="all").for_one_run(model))
    error = max(output_errors(model, expected, run(fused, feeds)).values(), default=0.0)
    return min(NOISIEST, ROUNDINGS * error)


def _tell(ctx: Context, text: str) -> None:
    """Say something once: a pass that tries several variants checks each of them."""
    if ctx.memo.get(_TOLD, text) is None:
        ctx.memo.put(_TOLD, text, text)
        ctx.progress.say(text)


def _declare_alike(before: Model, after: onnx_ir.Model) -> None:
    """Give outputs the shapes that the user declared where inference replaced names by sizes.

    Shape inference fills in, in place, a symbolic size that it can work out.
    """
    for spec, value in zip(before.outputs, after.graph.outputs, strict=False):
        if spec.name != value.name or value.shape is None:
            continue
        found = list(value.shape)
        if spec.shape is None:
            value.shape = None
        elif len(spec.shape) == len(found) and all(
            not isinstance(declared, int) or declared == size
            for declared, size in zip(spec.shape, found, strict=True)
        ):
            value.shape = onnx_ir.Shape(spec.shape)


def relative_error(expected: Any, got: Any, least: float = LEAST) -> float:
    """Return the largest absolute difference over the largest magnitude, or over `least`.

    It is infinite where shapes, places of NaN and infinity, or elements of integers differ.
    """
    a, b = np.asarray(expected), np.asarray(got)
    if a.shape != b.shape:
        return float("inf")
    if a.dtype.kind not in "fc":
        return float("inf") if (a != b).any() else 0.0
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(a)
    if (finite != np.isfinite(b)).any():
        return float("inf")
    if not finite.any():
        return 0.0
    scale = max(float(np.abs(a[finite]).max()), least)
    return float(np.abs(a[finite] - b[finite]).max()) / scale


def _signature(model: Model) -> str:
    return ", ".join(map(str, [*model.inputs, *model.outputs]))
