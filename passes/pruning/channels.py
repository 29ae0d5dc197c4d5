"""Structured pruning: whole channels, heads and groups go; the model is smaller and faster.

What has to go together is found by labels on the ONNX graph (`dependency/`) and proved on the model
itself by an oracle (`structured/verify.py`); how many channels each group keeps is chosen on the
block that the target's kernels work in, or on measured latencies; what reads the channels that are
left is solved for anew from calibration data (`structured/weight_repair.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError, PassError
from trimtab.core.garbage import gc_paused
from trimtab.core.model import Model

from ..base import Pass, Rewrite
from .dependency.groups import Labels, label_channels, prepared
from .structured.cut import cut
from .structured.data_importance import calibration
from .structured.plan import Aim, Plan, choose, usable_groups, widths_of
from .structured.report import declined_of, report_of
from .structured.residual_branches import short_circuit, silence
from .structured.verify import TOLERANCE, mask, oracle
from .structured.weight_repair import repair

Criterion = Literal["auto", "l1", "l2", "fpgm", "mean_output", "least_squares", "taylor", "random"]


@dataclass(frozen=True)
class PruneChannels(Pass):
    """Remove whole channels, attention heads and groups; inputs and outputs stay.

    Exactly one of `ratio`, `macs`, `latency` and `widths` says how much; where none is given, half
    of the channels go. What cannot be removed is listed with the reason.

    Attributes:
        ratio: share of the channels that goes, above 0 and below 1.
        macs: instead, share of the multiply-accumulates that stays.
        latency: instead, share of the latency that stays, by a table of layers measured on the
            target.
        widths: instead, how many channels each named group keeps; those not named keep all. It is
            what the others decide, so that a recipe makes the same model without a clock.
        precision: the kernels that will run, whose block and latency decide: int8 where
            quantization follows, since its staircase is another than that of the float ones.
        importance: which channels matter: l1, l2, fpgm (distance to the others), mean_output,
            least_squares (what their readers cannot make up for), taylor (first-order change of
            the loss of labels, else of the outputs), random as a control, or a callable from
            labels to a score for each class. auto is least_squares where there are data, else l2.
        scope: whether every group loses the same share, or all are compared together; latency
            compares them always.
        protect: operators whose outputs keep all channels, as patterns of their names.
        block: keep channels in multiples of this; by default the block of the target's float
            kernels, halved for layers narrower than two blocks.
        heads: where an axis is split, as into heads or groups, whether whole ones go or all become
            narrower.
        branches: whether whole residual branches may go where all are compared together, which
            gives most time back for what it loses on layers that are a block wide already.
        cache: for latency, a file that keeps timed layers for later runs, by machine class.
        sensitivity: a file of `trimtab doctor --prune --json`; it limits what each group loses.
        group_drop: quality that a group alone may cost, in the unit of that file's metric.
        data: calibration data; those of the context where not given.
        samples: how many of them to use.
        repair: solve for the weights of what reads the channels that are left, correct biases
            alone, or nothing; all but nothing estimate the statistics of BatchNormalization anew,
            and batch_norm does that alone. auto is least_squares where there are data.
        verify: prove on random inputs that the cut model computes what the original does with
            the removed channels zeroed.
    """

    tolerance: ClassVar[float | None] = None

    ratio: float | None = None
    macs: float | None = None
    latency: float | None = None
    widths: Mapping[str, int] | None = None
    precision: Literal["float", "int8"] = "float"
    importance: Criterion | Callable[..., Any] = "auto"
    scope: Literal["global", "local"] = "global"
    protect: tuple[str, ...] = ()
    block: int | None = None
    heads: Literal["whole", "narrow"] = "whole"
    branches: bool = False
    cache: str = ""
    sensitivity: str = ""
    group_drop: float = 0.02
    data: Dataset | None = None
    samples: int = 512
    repair: Literal["auto", "none", "bias", "least_squares", "batch_norm"] = "auto"
    verify: bool = True

    def __post_init__(self) -> None:
        where = f"pass {self.name()}"
        aims = ("ratio", "macs", "latency", "widths")
        given = {n: v for n in aims if (v := getattr(self, n)) is not None}
        if len(given) > 1:
            raise OptionError(
                f"takes one of ratio, macs, latency and widths, not {' and '.join(given)}",
                where=where,
                hint="Leave out all but one",
            )
        for name, value in given.items():
            if name != "widths" and not 0 < value < 1:
                hint = "0.3 removes 30% of the channels" if name == "ratio" else "0.5 keeps half"
                raise OptionError(
                    f"{name}={value:g} is not between 0 and 1", where=where, hint=hint
                )
        if self.block is not None and self.block < 1:
            raise OptionError(f"block={self.block} is no number of channels", where=where)
        if not self.group_drop >= 0:
            raise OptionError(f"group_drop={self.group_drop:g} is below 0", where=where)
        if self.branches and self.sensitivity:
            raise OptionError(
                "a sensitivity knows nothing of whole branches",
                where=where,
                hint="Leave out branches or sensitivity",
            )
        if self.samples < 1:
            raise OptionError(f"samples={self.samples} is not at least 1", where=where)

    @property
    def aim(self) -> Aim:
        """What is asked for."""
        if self.macs is not None:
            return Aim("macs", self.macs)
        if self.latency is not None:
            return Aim("latency", self.latency)
        if self.widths is not None:
            return Aim("widths", 0.0)
        return Aim("ratio", 0.5 if self.ratio is None else self.ratio)

    def decides_by_time(self) -> bool:
        """Whether it asks the clock."""
        return self.latency is not None

    def settled(self, model: Model, ctx: Context) -> PruneChannels:
        """The same with the widths that it chooses for `model`, for which no clock is needed."""
        work = prepared(model.clone())
        labels = label_channels(work, whole=self.heads == "whole")
        groups = usable_groups(labels, self.protect)
        if not groups:
            return self.with_fields(latency=None, widths={})
        plan = choose(work, labels, groups, self, self._batches(work, ctx), ctx)
        return self.with_fields(latency=None, ratio=None, macs=None, widths=widths_of(plan))

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        """The graph without the least important channels."""
        with gc_paused():
            work = prepared(model.clone())
            labels = label_channels(work, whole=self.heads == "whole")
            declined = declined_of(labels)
            groups = usable_groups(labels, self.protect)
        if not groups:
            note = {"note": "no channel can be removed; the model is unchanged"}
            return Rewrite(model.ir, tuple(declined), note)
        batches = self._batches(work, ctx)
        plan = choose(work, labels, groups, self, batches, ctx)
        with gc_paused():
            original = work.clone()
            twins = dict(zip(work.graph, original.graph, strict=True))
            error = self._cut(work, labels, plan.dead, ctx)
        silence(work.ir, plan.emptied)
        repaired = 0
        if self._repair(batches) != "none" and plan.dead:
            repaired = repair(
                work,
                original,
                labels,
                plan.dead,
                batches or [],
                ctx,
                twins=twins,
                emptied=plan.emptied,
                how=self._repair(batches),
            )
        short_circuit(work.ir, plan.emptied)
        report = report_of(model, work, labels, plan) | {"oracle": error, "repaired": repaired}
        return Rewrite(work.ir, tuple(declined), report | self._latency(model, work, plan, ctx))

    def criterion(self, batches: list[Any] | None) -> Criterion | Callable[..., Any]:
        """The importance that is used."""
        if self.importance == "auto":
            return "least_squares" if batches else "l2"
        return self.importance

    def _repair(self, batches: list[Any] | None) -> str:
        if self.repair == "auto":
            return "least_squares" if batches else "none"
        return self.repair

    def _batches(self, model: Model, ctx: Context) -> list[dict[str, Any]] | None:
        """Calibration data, None where there are none and nothing needs them."""
        wishes = (self.importance, self.repair)
        needs = [v for v in wishes if v in _DATA_DRIVEN]
        may = any(v == "auto" for v in wishes) and (self.data or ctx.data)
        if not needs and not may:
            return None
        data = ctx.dataset(self.data, model, purpose=str(needs[0]) if needs else "pruning")
        return calibration(model, data, self.samples, ctx.progress)

    def _cut(self, work: Model, labels: Labels, dead: list[int], ctx: Context) -> float | None:
        """Cut in place; what the oracle finds."""
        masked = mask(work, labels, dead) if self.verify else None
        cut(labels, dead)
        if masked is None:
            return None
        error = oracle(masked, work, seed=ctx.seed)
        if error > TOLERANCE:
            raise PassError(
                f"the cut model differs from the masked one by {error:.1e}, "
                f"{TOLERANCE:.0e} is allowed",
                where=work.name,
                hint="This is a bug of the pass; please report it. protect=... may work around it",
            )
        return error

    def whole_ns(self, model: Model, ctx: Context) -> float:
        """Latency of a whole model in the precision that it will run in."""
        return self.measured([model], ctx)[0]

    def measured(self, models: list[Model], ctx: Context) -> list[float]:
        """Latencies of whole models in that precision, measured in one run, in nanoseconds."""
        from .structured.latency_table import in_int8, measure

        if self.precision == "int8":
            models = [in_int8(model, self.data or ctx.data, ctx) for model in models]
        return measure(models, ctx)

    def _latency(self, before: Model, after: Model, plan: Plan, ctx: Context) -> dict[str, Any]:
        """Latency as it was, as predicted, and as measured, where latency was asked for."""
        if plan.predicted is None:
            return {}
        old, new = self.measured([before, dataclasses.replace(after)], ctx)
        return {
            "latency_ms": [round(old / 1e6, 4), round(new / 1e6, 4)],
            "latency_ratio": {
                "predicted": round(plan.predicted, 4),
                "measured": round(new / old, 4),
            },
        }


_DATA_DRIVEN = ("mean_output", "least_squares", "taylor", "bias", "batch_norm")
