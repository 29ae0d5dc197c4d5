"""The best known order of quantization passes for a family of models, each step kept if it helps.

Convolutional networks become static int8: ranges by several methods from one calibration, scales of
weights, equalisation where one scale serves a whole tensor, bias correction. Transformers become
the faster of dynamic and static int8 that keeps the outputs, with the rewrites that onnxruntime
runs fastest. Dynamic int8 is tried for every family, as LSTMs have integer kernels there alone, and
it is all that can be done without data. Each step is evaluated on held-out samples by the outputs'
error, which needs fewer samples than a metric of right and wrong, and no labels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import onnx_ir as ir

from trimtab.core.batches import finite_batches, fitting
from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError, TrimtabError
from trimtab.core.metric import evaluate, find_metric
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig
from trimtab.core.target import usable_cpus

from ..base import Pass, Rewrite
from ..calibration.range_estimator import Method
from ..graph.declined import Declined
from ..tuning.apply_rewrites import ApplyRewrites
from .algorithms.bias_correction import correct_by_layer
from .algorithms.cross_layer_equalization import Equalize
from .algorithms.smooth_quant import SmoothQuant
from .dynamic import QuantizeDynamic
from .file_size import plain_bytes, size_notes
from .greedy_search import ERROR, MARGIN, GreedySearch, quantization_notes
from .hold_out import hold_out
from .qdq.float_reference import prepare_reference
from .qdq.int8_operators import is_transformer
from .static import QuantizeStatic

#: Samples for bias correction.
CORRECTING = 128
#: Range methods that are tried after the default one.
RANGES: tuple[Method, ...] = ("minmax", "percentile", "entropy")
#: A transformer's outputs may differ from float by this, the squared error relative to their size,
#: before speed gives way to accuracy; of unit vectors it is twice one minus the cosine.
CLOSE = 0.02
#: Outputs that differ from float by this are no longer the model's.
RUINED = 0.2
#: Share of the other's int8 arithmetic that dynamic int8 needs, to be taken for its error alone.
ENOUGH = 0.5

#: Shares of the arithmetic that differ by less are the same.
SAME_SHARE = 0.02

#: Notes of the last quantization that are reported.
_REPORTED = frozenset(
    {
        "activation",
        "float_nodes",
        "float_ops",
        "forms",
        "int8_ops",
        "int8_share",
        "leftover_qdq",
        "mixed",
        "overflow",
        "in_subgraphs",
        "quantized",
        "reduce_range",
        "weight",
    }
)


@dataclass(frozen=True)
class QuantizeAuto(Pass):
    """Quantize by the best known order of passes, each step kept only where it helps.

    Attributes:
        data: calibration data, the context's if not given; a part is held out for evaluation.
        samples: number of samples to calibrate on; at most as many more evaluate.
        exclude: nodes to leave float, by name or glob pattern.
        max_drop: allowed drop of the metric, in its own unit: layers that cost more stay float.
        metric: metric of max_drop: a name or module:callable; if not given, top1 where the data
            have labels, else fidelity to the float model.
    """

    needs_data: ClassVar[bool] = True
    shrinks: ClassVar[bool] = True

    data: Dataset | None = None
    samples: int = 256
    exclude: tuple[str, ...] = ()
    max_drop: float | None = None
    metric: str = ""

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise OptionError("must be at least 1", where=f"samples={self.samples}")
        if self.max_drop is not None and not self.max_drop >= 0:
            raise OptionError("must not be negative", where=f"max_drop={self.max_drop}")

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        """Run the steps for the model's family."""
        if self.data is None and ctx.data is None:
            return self._without_data(model, ctx)
        data = ctx.dataset(self.data, model, purpose="quantization")
        used, held_out = hold_out(data, self.samples)
        few = fitting(model, held_out.take(self.samples))
        kept = few if few.stream is not None else list(finite_batches(few))
        search = GreedySearch(model, kept, ctx)
        with tempfile.TemporaryDirectory(prefix="trimtab-") as folder:
            static = QuantizeStatic(
                data=used,
                samples=len(used),
                exclude=self.exclude,
                statistics=str(Path(folder) / "seen.npz"),  # one calibration for all methods
            )
            if is_transformer(model.graph):
                self._transformer(search, static, data)
            else:
                self._static_or_dynamic(search, static, data)
        notes = {k: v for k, v in quantization_notes(search.chosen).items() if k in _REPORTED}
        report = {"samples": len(used), "held_out": len(held_out), "steps": search.steps}
        report |= {ERROR: search.error, **notes, **size_notes(model, search.chosen)}
        return Rewrite(search.chosen.ir, search.declined, report)

    def _without_data(self, model: Model, ctx: Context) -> Rewrite:
        """Quantize dynamically, where that does something.

        Raises:
            DataError: only static int8 could, which needs data.
        """
        made = QuantizeDynamic(exclude=self.exclude)(model, ctx)
        notes = dict(made.lineage[-1].notes)
        if not notes["quantized"]:
            ctx.dataset(None, model, purpose="int8 of a model without matrix products or LSTM")
        declined = [Declined(*pair) for pair in notes.pop("declined", [])]
        why = "no data: dynamic int8 alone, which needs none"
        return Rewrite(made.ir, declined, {"note": why, **notes}, loaded=True)

    def _static_or_dynamic(
        self, search: GreedySearch, static: QuantizeStatic, data: Dataset
    ) -> None:
        """Quantize statically with its refinements, then take dynamic int8 where that is better.

        Raises:
            TrimtabError: neither can be done.
        """
        dynamic = partial(
            search.compare,
            "dynamic int8",
            partial(self._why_not_dynamic, search, data),
            QuantizeDynamic(exclude=self.exclude),
        )
        try:
            search.start(f"static int8, ranges {static.ranges}", static)
        except TrimtabError as failure:
            if not dynamic():
                raise
            search.steps.append({"step": "static int8", "kept": False, "why": str(failure)})
            return
        self._refine(search, static, data)
        dynamic()

    def _why_not_dynamic(
        self, search: GreedySearch, data: Dataset, candidate: Model, error: float
    ) -> str:
        """Return the reason against dynamic int8 beside the best so far; "" where it is better.

        The better of two that are close to float has more of the arithmetic in int8, or is smaller.
        """
        if not candidate.lineage[-1].notes["quantized"]:
            return "it finds nothing to quantize"
        if self.max_drop is not None and self._drop(search, candidate, data) > self.max_drop:
            return "the metric would fall too much"
        return "" if search.chosen is search.original else _why_worse(search, candidate, error)

    def _refine(self, search: GreedySearch, static: QuantizeStatic, data: Dataset) -> None:
        """Keep each refinement of static int8 that the held-out samples confirm."""
        before: tuple[Pass, ...] = ()
        for method in RANGES:
            other = static.with_fields(ranges=method)
            static = other if search.offer(f"ranges {method}", other) else static
        other = static.with_fields(scales="mse")
        static = other if search.offer("scales mse", other) else static
        if _has_grouped_conv(search.original.graph):
            own = static.with_fields(statistics="")  # other weights have other statistics
            if search.offer("equalize", Equalize(), own):
                static, before = own, (Equalize(),)
        if self._loses_too_much(search, data):
            search.start("mixed precision", *before, self._mixed(static, data))
        search.improve("correct bias", lambda best: _corrected(best, search, static, before))

    def _transformer(self, search: GreedySearch, static: QuantizeStatic, data: Dataset) -> None:
        """Choose the fastest that is close to float; the least error where nothing is close."""
        rewrites = ApplyRewrites()
        search.start("dynamic int8", QuantizeDynamic(exclude=self.exclude), rewrites)
        if search.error > CLOSE or self._loses_too_much(search, data):
            search.offer("static int8", static, rewrites, as_fast=False)
            smooth, own = SmoothQuant(data=static.data), static.with_fields(statistics="")
            search.offer("smooth-quant, static int8", smooth, own, rewrites, as_fast=False)
        if self._loses_too_much(search, data):
            search.start("mixed precision", self._mixed(static, data), rewrites)

    def _loses_too_much(self, search: GreedySearch, data: Dataset) -> bool:
        """Return whether the metric falls by more than `max_drop` on the held-out samples."""
        return self.max_drop is not None and self._drop(search, search.chosen, data) > self.max_drop

    def _drop(self, search: GreedySearch, chosen: Model, data: Dataset) -> float:
        """Return how far the metric of a model falls on the held-out samples."""
        held_out = fitting(search.original, hold_out(data, self.samples)[1])
        metric = find_metric(self.metric or None, held_out)
        config = SessionConfig.for_evaluation(search.ctx.target, threads=usable_cpus())
        runner = search.ctx.runner
        base, mine = (
            evaluate(m, held_out, metric, reference=search.original, config=config, runner=runner)
            for m in (search.original, chosen)
        )
        return mine.drop_from(base)[0]

    def _mixed(self, static: QuantizeStatic, data: Dataset) -> QuantizeStatic:
        """Return the same settings with `max_drop`, which holds out the same samples."""
        return static.with_fields(
            data=data,
            samples=self.samples,
            statistics="",
            max_drop=self.max_drop,
            metric=self.metric,
        )


def _why_worse(search: GreedySearch, candidate: Model, error: float) -> str:
    """Return the reason against a candidate beside the best so far; "" where it is better."""
    share, other = (quantization_notes(model)["int8_share"] for model in (candidate, search.chosen))
    less = "less of it runs in int8"
    if max(error, search.error) <= CLOSE:
        if abs(share - other) > SAME_SHARE:
            return "" if share > other else less
        smaller = plain_bytes(candidate) < plain_bytes(search.chosen)
        return "" if smaller else "its file is larger"
    if error >= (1 - MARGIN) * search.error:
        return "the error would not fall"
    return "" if share >= ENOUGH * other or search.error > RUINED else less


def _corrected(
    best: Model, search: GreedySearch, static: QuantizeStatic, before: Sequence[Pass]
) -> Rewrite:
    """Correct the biases of a Q/DQ model towards the float model, on its calibration data."""
    assert static.data is not None
    source = search.apply(before)
    data = fitting(source, static.data.take(CORRECTING), rows=32)
    return correct_by_layer(best, prepare_reference(source), list(data), search.ctx)


def _has_grouped_conv(graph: ir.Graph) -> bool:
    """Return whether a convolution has groups: channels of few weights tend to differ in range."""
    return any(n.op_type == "Conv" and n.attributes.get_int("group", 1) > 1 for n in graph)
