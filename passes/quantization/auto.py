"""The best known order of quantization passes for a family of models, each step kept if it helps.

Convolutional networks become static int8: ranges by several methods from one calibration, scales of
weights, equalisation where one scale serves a whole tensor, bias correction. Transformers become
the faster of dynamic and static int8 that keeps the outputs, with the rewrites that onnxruntime
runs fastest. Dynamic int8 is tried for every family, as LSTMs have integer kernels there alone, and
it is all that can be done without data. Each step is judged on held-out samples by what it keeps of
the float model's answers, which needs no labels. Where less than was promised is kept, the layers
that cost most stay float, with their weights stored in 8 bits; so are all weights where integers
are not faster.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import ModelError, OptionError, TrimtabError
from trimtab.core.fields import Duration, File
from trimtab.core.model import Model
from trimtab.core.units import duration

from ..base import Pass, Rewrite
from ..graph.declined import Declined
from ..graph.shapes import forget_shapes
from ..training import torch_graph
from ..training.finetune import Finetune
from ..tuning.apply_rewrites import ApplyRewrites
from .algorithms.smooth_quant import SmoothQuant
from .compress_weights import CompressWeights
from .dynamic import QuantizeDynamic
from .file_size import size_notes
from .greedy_search import ERROR, GreedySearch, quantization_notes
from .hold_out import hold_out, judging_batches
from .judge import PROMISED, Verdict
from .limits import check_limits
from .qdq.float_ends import float_ends
from .qdq.int8_operators import PRODUCTS, is_transformer
from .qdq.prepare import without_double
from .quantizer import Quantizer
from .refinements import corrected, refine
from .speed_choice import SpeedChoice, offer_faster, store_weights
from .static import QuantizeStatic
from .wanted import Wanted

#: A transformer's outputs may differ from float by this, the squared error relative to their size,
#: before speed gives way to accuracy; of unit vectors it is twice one minus the cosine.
CLOSE = 0.02
#: Times the allowed loss beyond which the correction of biases, the slowest of all steps, is left
#: out: it takes away a part of the error, not most of it.
FAR = 4.0
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
class QuantizeAuto(Quantizer):
    """Quantize by the best known order of passes, each step kept only where it helps.

    Attributes:
        data: calibration data, that of the run if not given; a part is held out for evaluation.
        samples: number of samples to calibrate on; at most as many more evaluate.
        exclude: nodes to leave float, by name or glob pattern.
        fidelity: part of the float model's answers to keep on held-out samples, 0 to 1: layers that
            cost more stay float.
        all_int8: quantize whatever has an int8 kernel, whatever it costs.
        effort: quick leaves out refinements where the first int8 keeps enough; thorough searches
            for a mixture of float and int8 even where int8 is not faster as a whole.
        train: longest time, as in 5m, to train what loses too much in int8 on the same data
            through its rounding, towards the float model's answers, before layers stay float.
        checkpoint: file for the state of that training; the same command goes on from it.
        max_drop: allowed drop of the metric, in its own unit, instead of `fidelity`: layers that
            cost more stay float. Of several metrics by name, as map=0.01.
        metric: metric of max_drop: a name or module:callable; if not given, top1 where the data
            have labels, else fidelity to the float model.
    """

    needs_data: ClassVar[bool] = True
    shrinks: ClassVar[bool] = True

    data: Dataset | None = None
    samples: int = 256
    exclude: tuple[str, ...] = ()
    fidelity: float = PROMISED
    all_int8: bool = False
    effort: Literal["quick", "normal", "thorough"] = "normal"
    train: Duration | None = None
    checkpoint: File | None = None
    max_drop: float | dict[str, float] | None = None
    metric: str = ""

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise OptionError("must be at least 1", where=f"samples={self.samples}")
        if not 0 <= self.fidelity <= 1:
            raise OptionError("must lie between 0 and 1", where=f"fidelity={self.fidelity}")
        if self.train is not None:
            duration(self.train)
        elif self.checkpoint is not None:
            what = "is the state of training, and none is asked for"
            raise OptionError(what, where="checkpoint", hint="Give train as well, as in 5m")
        check_limits(self.max_drop)
        if self.max_drop is not None and self.all_int8:
            raise OptionError(
                "leaves layers float, which all_int8 rules out",
                where=f"max_drop={self.max_drop}",
                hint="Give one of both",
            )

    def decides_by_time(self) -> bool:
        """Return true where it trains for a time, or the clock decides between int8 and float."""
        return self.train is not None or self._asks_the_clock

    @property
    def _asks_the_clock(self) -> bool:
        """True where weights alone are stored in 8 bits if int8 arithmetic is not faster."""
        return self.max_drop is None and not self.all_int8

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        """Run the steps for the model's family."""
        if self.train is not None:
            _ = torch_graph.train_graph  # says what is missing before the work begins
        if self.data is None and ctx.data is None:
            if self.train is not None:
                ctx.dataset(None, model, purpose="training through int8")
            return self._without_data(model, ctx)
        model = without_double(model)
        data = ctx.dataset(self.data, model, purpose="quantization")
        used, held_out = hold_out(data, self.samples)
        judging = judging_batches(model, used, held_out.take(self.samples))
        search = GreedySearch(model, judging, ctx, self.fidelity)
        wanted = Wanted(search, data, self.samples, self.fidelity, self.max_drop, self.metric)
        failure: TrimtabError | None = None
        with tempfile.TemporaryDirectory(prefix="trimtab-") as folder:
            static = QuantizeStatic(
                data=used,
                samples=len(used),
                exclude=self.exclude,
                all_int8=self.all_int8,
                statistics=str(Path(folder) / "seen.npz"),  # one calibration for all methods
            )
            speed = SpeedChoice(search, held_out) if self._asks_the_clock else None
            if is_transformer(model.graph):
                self._transformer(search, static, wanted)
            else:
                failure = self._static_or_dynamic(search, static, wanted, speed)
        if speed is not None:
            store_weights(search, partial(_compress, data, self.samples), speed)
        if failure is not None and search.chosen is search.original:
            raise failure
        notes = {k: v for k, v in quantization_notes(search.chosen).items() if k in _REPORTED}
        rows = sum(1 if data.source.batched else batch.size for batch in judging[1])
        apart = 0 if used is held_out else len(held_out)  # a single item serves for both
        promise = wanted.report(len(held_out) + rows, apart)
        report = {"promise": promise, "samples": len(used), "held_out": apart}
        report |= {"steps": search.steps, ERROR: search.verdict.loss}
        chosen = search.chosen.clone()
        forget_shapes(chosen.ir)
        report |= {**notes, **size_notes(model, chosen)}
        return Rewrite(chosen.ir, search.declined, report)

    def _without_data(self, model: Model, ctx: Context) -> Rewrite:
        """Quantize dynamically, where that does something.

        Raises:
            DataError: only static int8 could, which needs data.
        """
        made = QuantizeDynamic(exclude=self.exclude, all_int8=self.all_int8)(model, ctx)
        notes = dict(made.lineage[-1].notes)
        if not notes["quantized"]:
            ctx.dataset(None, model, purpose="int8 of a model without matrix products or LSTM")
        declined = [Declined(*pair) for pair in notes.pop("declined", [])]
        why = "no data: dynamic int8 alone, which needs none"
        return Rewrite(made.ir, declined, {"note": why, **notes}, loaded=True)

    def _static_or_dynamic(
        self,
        search: GreedySearch,
        static: QuantizeStatic,
        wanted: Wanted,
        speed: SpeedChoice | None,
    ) -> TrimtabError | None:
        """Quantize statically with its refinements, then take dynamic int8 where that is better.

        Layers stay float where neither keeps enough. Returns why neither makes anything of a model.

        Raises:
            TrimtabError: neither can be built, where all has to be int8.
        """
        dynamic = partial(
            search.compare,
            "dynamic int8",
            partial(self._why_not_dynamic, search, wanted),
            QuantizeDynamic(exclude=self.exclude, all_int8=self.all_int8),
        )
        try:
            search.start(f"static int8, ranges {static.ranges}", static)
        except OptionError:  # the user's: no other candidate makes it good
            raise
        except TrimtabError as failure:
            search.steps.append({"step": "static int8", "kept": False, "why": str(failure)})
            if dynamic():
                return None
            if self.all_int8:
                raise
            search.keep_float("nothing else keeps the float model's answers")
            ends = float_ends(search.original.graph)
            return None if any(node.op_type in PRODUCTS for node, _ in ends) else failure
        self._improve(search, static, wanted, speed, dynamic)
        return None

    def _improve(
        self,
        search: GreedySearch,
        static: QuantizeStatic,
        wanted: Wanted,
        speed: SpeedChoice | None,
        dynamic: Callable[[], bool],
    ) -> None:
        """Refine static int8 or take dynamic int8, and leave float what that makes slower."""
        pays, before = self._pays(search, speed), tuple[Pass, ...]()
        if pays and (self.effort != "quick" or not search.keeps_promise):
            static, before = refine(search, static)
        if dynamic():
            if speed is not None and not speed.pays():
                self._offer_faster(search, wanted.mixed(static), before, speed)
        elif not pays:
            self._offer_faster(search, wanted.mixed(static), before, speed)
        else:
            if not wanted.is_missed():
                self._offer_faster(search, wanted.mixed(static, margin=1.0), before, speed)
            self._bring_home(search, static, before, wanted, dynamic)
            if speed is not None and wanted.is_missed() and _keeps(search, "dynamic int8"):
                again = QuantizeDynamic(exclude=self.exclude)
                offer_faster(search, "dynamic int8, as static keeps too little", speed, again)

    def _offer_faster(
        self,
        search: GreedySearch,
        mixed: QuantizeStatic,
        before: tuple[Pass, ...],
        speed: SpeedChoice | None,
    ) -> None:
        """Leave float what int8 makes slower, where the clock says that it pays."""
        if speed is not None and search.ctx.clock is not None and self.effort != "quick":
            offer_faster(search, "int8 where it is faster", speed, *before, mixed)

    def _bring_home(
        self,
        search: GreedySearch,
        static: QuantizeStatic,
        before: tuple[Pass, ...],
        wanted: Wanted,
        dynamic: Callable[[], bool],
    ) -> None:
        """Train, leave layers float, correct biases: what costs most, where too much is lost."""
        self._train(search, static, wanted)
        if self._loses_too_much(wanted):
            taken = wanted.offer_mixed(static, before)
            if self.max_drop is None and (search.keeps_promise or self.effort == "quick"):
                return  # biases would be corrected for little, at the price of as many runs
            if taken:
                dynamic()
        if self._is_far(search, wanted):
            why = "it cannot bring back so much"
            search.steps.append({"step": "correct bias", "kept": False, "why": why})
        else:
            search.improve("correct bias", lambda best: corrected(best, search, static, before))

    def _is_far(self, search: GreedySearch, wanted: Wanted) -> bool:
        """Return whether much more is lost than was allowed, and float layers are left to try."""
        if self.max_drop is not None or not self._loses_too_much(wanted):
            return False
        return 1 - search.verdict.kept > FAR * (1 - self.fidelity)

    def _pays(self, search: GreedySearch, speed: SpeedChoice | None) -> bool:
        """Return whether to refine static int8, which float layers would only make slower."""
        if self.effort == "thorough" or speed is None or speed.may_pay():
            return True
        why = "it is not clearly faster than float"
        search.steps.append({"step": "refine static int8", "kept": False, "why": why})
        if self.train is not None:
            hint = f"{why}; --effort thorough trains all the same"
            search.steps.append({"step": self._training, "kept": False, "why": hint})
        return False

    @property
    def _training(self) -> str:
        return f"train through int8, {self.train}"

    def _why_not_dynamic(
        self, search: GreedySearch, wanted: Wanted, candidate: Model, verdict: Verdict
    ) -> str:
        """Return the reason against dynamic int8 beside the best so far; "" where it is better.

        The better of two that keep enough has more of the arithmetic in int8, or is smaller.
        """
        if not candidate.lineage[-1].notes["quantized"]:
            return "it finds nothing to quantize"
        if wanted.metric_falls(candidate):
            return "the metric would fall too much"
        if search.chosen is not search.original:
            return search.why_worse(candidate, verdict)
        free = self.all_int8 or self.max_drop is not None or verdict.kept >= self.fidelity
        return "" if free or not any(float_ends(search.original.graph)) else "it keeps too little"

    def _transformer(self, search: GreedySearch, static: QuantizeStatic, wanted: Wanted) -> None:
        """Choose the fastest that is close to float; the least error where nothing is close."""
        rewrites = ApplyRewrites()
        search.start(
            "dynamic int8", QuantizeDynamic(exclude=self.exclude, all_int8=self.all_int8), rewrites
        )
        if search.verdict.loss > CLOSE or self._loses_too_much(wanted):
            search.offer("static int8", static, rewrites, as_fast=False)
            smooth, own = SmoothQuant(data=static.data), static.with_fields(statistics="")
            search.offer("smooth-quant, static int8", smooth, own, rewrites, as_fast=False)
        self._train(search, static, wanted)
        if self._loses_too_much(wanted):
            wanted.offer_mixed(static, (), (rewrites,))

    def _train(self, search: GreedySearch, static: QuantizeStatic, wanted: Wanted) -> None:
        """Train what loses too much through its rounding, where time was given for that.

        With `all_int8` too: what nothing promises may still be better.
        """
        if self.train is None or not wanted.is_missed():
            return
        learn = Finetune(
            data=static.data,
            teacher=search.original,
            time=self.train,
            loss=("mse",),
            checkpoint=self.checkpoint,
            resume=self.checkpoint is not None,
        )
        wrong: list[ModelError] = []

        def trained(best: Model) -> Rewrite:
            try:
                return learn.rewrite(best, search.ctx)
            except ModelError as error:
                wrong.extend([error] * (error.where == self.checkpoint))
                raise

        search.improve(self._training, trained)
        if wrong:  # the user's file, which no other candidate makes good
            raise wrong[0]

    def _loses_too_much(self, wanted: Wanted) -> bool:
        return not self.all_int8 and wanted.is_missed()


def _keeps(search: GreedySearch, name: str) -> bool:
    """Return whether a step kept the promise, whatever spoke against it."""
    found = [step.get("fidelity", 0.0) for step in search.steps if step["step"] == name]
    return max(found, default=0.0) >= search.promised


def _compress(data: Dataset, samples: int, fidelity: float) -> CompressWeights:
    return CompressWeights(data=data, samples=samples, fidelity=fidelity)
