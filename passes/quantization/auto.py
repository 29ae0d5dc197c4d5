"""The best known order of quantization passes for a family of models, each step kept if it helps.

Convolutional networks become static int8: ranges by several methods from one calibration, scales of
weights, equalisation where a scale holds a whole tensor, biases corrected. Transformers become what
is fastest of dynamic and static int8 while it keeps the answers, in the forms that onnxruntime runs
fastest. What a step does is judged on samples that nothing was made from, by the answers' error,
which tells more with few samples than any metric of right and wrong, and needs no labels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import onnx_ir as ir

from trimtab.core.batches import fitting
from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError
from trimtab.core.feeds import finite_batches
from trimtab.core.metric import evaluate, find_metric
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig
from trimtab.core.target import usable_cpus

from ..base import Pass, Rewrite
from ..calibration.range_estimator import Method
from ..tuning.apply_rewrites import ApplyRewrites
from .algorithms.bias_correction import correct_by_layer
from .algorithms.cross_layer_equalization import Equalize
from .algorithms.smooth_quant import SmoothQuant
from .dynamic import QuantizeDynamic
from .greedy_search import Trials, figures
from .hold_out import hold_out
from .qdq.float_reference import as_reference
from .qdq.int8_operators import is_transformer
from .static import QuantizeStatic

#: Samples that correct biases.
CORRECTING = 128
#: Range methods that are tried after the default one.
RANGES: tuple[Method, ...] = ("minmax", "percentile", "entropy")
#: A transformer's answers may differ from float by this, the squared error relative to their size,
#: before speed gives way to accuracy; of unit vectors it is twice one minus the cosine.
CLOSE = 0.02

#: What the last quantization noted that is worth telling.
_TOLD = frozenset(
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
        "reduce_range",
        "weight",
    }
)


@dataclass(frozen=True)
class QuantizeAuto(Pass):
    """Quantize by the best known order of passes, each step kept only where it helps.

    Attributes:
        data: calibration data; the context's where none is named. A part is held out and judges.
        samples: how many to calibrate on; at most as many again judge.
        exclude: nodes to leave float, by name or glob pattern.
        max_drop: how much the metric may fall, in its own unit: layers that cost more stay float.
        metric: what max_drop is measured in: a metric's name or module:callable; top1 where the
            data have labels, else cosine to the float model's outputs.
    """

    needs_data: ClassVar[bool] = True

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
        """Take the steps of the model's family."""
        data = ctx.dataset(self.data, model, purpose="quantization")
        used, held = hold_out(data, self.samples)
        trials = Trials(model, list(finite_batches(fitting(model, held.take(self.samples)))), ctx)
        with tempfile.TemporaryDirectory(prefix="trimtab-") as folder:
            static = QuantizeStatic(
                data=used,
                samples=len(used),
                exclude=self.exclude,
                statistics=str(Path(folder) / "seen.npz"),  # one calibration for all methods
            )
            if is_transformer(model.graph):
                self._transformer(trials, static, data)
            else:
                self._convolutional(trials, static, data)
        notes = {k: v for k, v in figures(trials.chosen).items() if k in _TOLD}
        report = {"samples": len(used), "held_out": len(held), "steps": trials.steps}
        report |= {"error": trials.error, **notes}
        return Rewrite(trials.chosen.ir, trials.declined, report)

    def _convolutional(self, trials: Trials, static: QuantizeStatic, data: Dataset) -> None:
        """Static int8, then what the held-out samples approve of."""
        before: tuple[Pass, ...] = ()
        trials.start(f"static int8, ranges {static.ranges}", static)
        for method in RANGES:
            other = static.with_fields(ranges=method)
            static = other if trials.offer(f"ranges {method}", other) else static
        other = static.with_fields(scales="mse")
        static = other if trials.offer("scales mse", other) else static
        if _uneven(trials.original.graph):
            own = static.with_fields(statistics="")  # other weights have other statistics
            if trials.offer("equalize", Equalize(), own):
                static, before = own, (Equalize(),)
        if self._loses(trials, data):
            trials.start("mixed precision", *before, self._mixed(static, data))
        trials.mend("correct bias", lambda best: _corrected(best, trials, static, before))

    def _transformer(self, trials: Trials, static: QuantizeStatic, data: Dataset) -> None:
        """What is fastest and still close to float; the least error where nothing is close."""
        forms = ApplyRewrites()
        trials.start("dynamic int8", QuantizeDynamic(exclude=self.exclude), forms)
        if trials.error > CLOSE or self._loses(trials, data):
            trials.offer("static int8", static, forms, as_fast=False)
            smooth, own = SmoothQuant(data=static.data), static.with_fields(statistics="")
            trials.offer("smooth-quant, static int8", smooth, own, forms, as_fast=False)
        if self._loses(trials, data):
            trials.start("mixed precision", self._mixed(static, data), forms)

    def _loses(self, trials: Trials, data: Dataset) -> bool:
        """Whether the metric falls by more than it may, on the held-out samples."""
        if self.max_drop is None:
            return False
        held = fitting(trials.original, hold_out(data, self.samples)[1])
        metric = find_metric(self.metric or None, held)
        config = SessionConfig.judging(trials.ctx.target, threads=usable_cpus())
        runner = trials.ctx.runner
        base, mine = (
            evaluate(m, held, metric, reference=trials.original, config=config, runner=runner)
            for m in (trials.original, trials.chosen)
        )
        return mine.drop_from(base)[0] > self.max_drop

    def _mixed(self, static: QuantizeStatic, data: Dataset) -> QuantizeStatic:
        """The same settings with layers left float; it holds out the same samples."""
        return static.with_fields(
            data=data,
            samples=self.samples,
            statistics="",
            max_drop=self.max_drop,
            metric=self.metric,
        )


def _corrected(
    best: Model, trials: Trials, static: QuantizeStatic, before: Sequence[Pass]
) -> Rewrite:
    """Biases of a Q/DQ model corrected towards the float model, on what calibrated it."""
    assert static.data is not None
    source = trials.original
    for step in before:
        source = step(source, trials.ctx)
    data = fitting(source, static.data.take(CORRECTING), rows=32)
    return correct_by_layer(best, as_reference(source), list(data), trials.ctx)


def _uneven(graph: ir.Graph) -> bool:
    """Whether there are depthwise convolutions, whose few weights a channel tend to be unlike."""
    for node in graph:
        groups = node.attributes["group"].as_int() if "group" in node.attributes else 1
        if node.op_type == "Conv" and groups > 1:
            return True
    return False
