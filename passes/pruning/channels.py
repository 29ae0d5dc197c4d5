"""Structured pruning: remove whole channels, heads and groups for a smaller and faster model.

A dependency graph of the model's channels (`dependency/`) finds what has to go together, and a run
of the cut model against a masked one proves it (`structured/verify.py`). The number of channels
that each group keeps is chosen by the block of the target's kernels, or by measured latencies; the
weights that read the remaining channels are solved for again from calibration data
(`structured/weight_repair.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError, PassError
from trimtab.core.fields import File
from trimtab.core.garbage import gc_paused
from trimtab.core.model import Model
from trimtab.core.ort.int8_share import QDQ_OPS

from ..base import Pass, Rewrite
from ..graph.names import drop_suffix
from ..graph.quantized import refuse_quantized
from .dependency.graph import DependencyGraph, Group, build_dependency_graph, prepare
from .structured.cut import cut
from .structured.data_importance import calibration_batches
from .structured.latency_table import latencies
from .structured.plan import Goal, PruningPlan, PruningRequest, choose, widths_of
from .structured.ranking import Criterion, ImportanceRequest, usable_groups
from .structured.report import declined_operators, layers_in_subgraphs, pruning_report
from .structured.residual_branches import remove_branches, zero_branches
from .structured.verify import TOLERANCE, allowed_error, mask, verification_error
from .structured.weight_repair import repair_weights


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
        widths: instead, how many channels each named group keeps; those not named keep all. The
            others choose such widths, so that a recipe makes the same model without a clock.
        precision: the kernels that will run, whose block and latency decide: int8 where
            quantization follows, since its kernels have another staircase than the float ones.
        importance: score of channels: l1, l2, fpgm (distance to the others), mean_output,
            least_squares (the error that their readers cannot compensate), taylor (first-order
            change of the loss of labels, else of the outputs), random as a control, or a callable
            from the `DependencyGraph` to a score for each of its units. auto is least_squares
            where there are data, else l2.
        scope: global compares all channels, local removes the same share of every group; latency
            always compares all.
        protect: operators whose outputs keep all channels, as patterns of their names.
        block: keep channels in multiples of this; by default the block of the target's float
            kernels, halved for layers narrower than two blocks.
        heads: where an axis is split, as into heads or groups, whether whole ones go or all become
            narrower.
        branches: whether whole residual branches may go where all channels are compared, which
            saves most time for its loss where layers are only a block wide.
        cache: for latency, a file that keeps timed layers for later runs on the same machine.
        sensitivity: a file of `trimtab doctor --prune --json`; it limits what each group loses.
        group_drop: quality that a group alone may cost, in the unit of that file's metric.
        data: calibration data; those of the context where not given.
        samples: number of samples to use.
        repair: least_squares solves for the weights that read the remaining channels, bias corrects
            biases alone, batch_norm only estimates the statistics of BatchNormalization again,
            which the first two do as well. auto is least_squares where there are data, else none.
        verify: prove on random inputs that the cut model computes the same as the original with
            the removed channels set to zero.
    """

    tolerance: ClassVar[float | None] = None
    shrinks: ClassVar[bool] = True
    calibrates: ClassVar[bool] = True
    keeps_bits: ClassVar[bool] = True
    in_float32: ClassVar[bool] = True
    layers_only: ClassVar[bool] = True

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
    cache: File = ""
    sensitivity: File = ""
    group_drop: float = 0.02
    data: Dataset | None = None
    samples: int = 512
    repair: Literal["auto", "none", "bias", "least_squares", "batch_norm"] = "auto"
    verify: bool = True

    def __post_init__(self) -> None:
        where = f"pass {self.name()}"
        goals = ("ratio", "macs", "latency", "widths")
        named = {n: v for n in goals if (v := getattr(self, n)) is not None}
        if len(named) > 1:
            raise OptionError(
                f"takes one of ratio, macs, latency and widths, not {' and '.join(named)}",
                where=where,
                hint="Leave out all but one",
            )
        for name, value in named.items():
            if name != "widths" and not 0 < value < 1:
                hint = "0.3 removes 30% of the channels" if name == "ratio" else "0.5 keeps half"
                raise OptionError(
                    f"{name}={value:g} is not between 0 and 1", where=where, hint=hint
                )
        if self.block is not None and self.block < 1:
            raise OptionError(f"block={self.block} is not a number of channels", where=where)
        if not self.group_drop >= 0:
            raise OptionError(f"group_drop={self.group_drop:g} is below 0", where=where)
        if self.branches and self.sensitivity:
            raise OptionError(
                "a sensitivity does not cover whole branches",
                where=where,
                hint="Leave out branches or sensitivity",
            )
        if self.samples < 1:
            raise OptionError(f"samples={self.samples} is not at least 1", where=where)

    @property
    def goal(self) -> Goal:
        """Share of the channels to remove, or of the cost to keep."""
        if self.macs is not None:
            return Goal("macs", self.macs)
        if self.latency is not None:
            return Goal("latency", self.latency)
        if self.widths is not None:
            return Goal("widths", 0.0)
        return Goal("ratio", 0.5 if self.ratio is None else self.ratio)

    @property
    def ranking(self) -> ImportanceRequest:
        """Fields that decide which channels go first."""
        return ImportanceRequest(self.importance, self.samples, self.protect, self.heads, self.data)

    @property
    def request(self) -> PruningRequest:
        """Fields that decide which channels go."""
        return PruningRequest(
            goal=self.goal,
            ranking=self.ranking,
            widths=self.widths or {},
            precision=self.precision,
            scope=self.scope,
            block=self.block,
            branches=self.branches,
            cache=self.cache,
            sensitivity=self.sensitivity,
            group_drop=self.group_drop,
        )

    def decides_by_time(self) -> bool:
        """Return whether it asks the clock."""
        return self.latency is not None

    def resolved(self, model: Model, ctx: Context) -> PruneChannels:
        """Return the pass with the widths that it chooses for `model`, which needs no clock."""
        work, graph, groups = self._groups(model)
        if not groups:
            return self.with_fields(latency=None, widths={})
        plan = choose(work, graph, groups, self.request, self._batches(work, ctx), ctx)
        return self.with_fields(latency=None, ratio=None, macs=None, widths=widths_of(plan))

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        """Remove the least important channels."""
        with gc_paused():
            work, graph, groups = self._groups(model)
            declined = [*declined_operators(graph), *layers_in_subgraphs(work)]
        self._refuse_int8(model, pruned=bool(groups))
        if not groups:
            note = {"note": "no channel can be removed; the model is unchanged"}
            return Rewrite(model.ir, tuple(declined), note)
        batches = self._batches(work, ctx)
        plan = choose(work, graph, groups, self.request, batches, ctx)
        with gc_paused():
            original = work.clone()
            originals = dict(zip(work.graph, original.graph, strict=True))
            error = self._cut(work, graph, plan.removed, ctx)
        zero_branches(work.ir, plan.removed_branches)
        repaired, method = 0, self.repair
        if method == "auto":
            method = "least_squares" if batches else "none"
        if method != "none" and plan.removed:
            repaired = repair_weights(
                work,
                original,
                graph,
                plan.removed,
                batches or [],
                ctx,
                originals=originals,
                removed_branches=plan.removed_branches,
                method=method,
            )
        remove_branches(work.ir, plan.removed_branches)
        drop_suffix(work.graph, "_cut")
        report = pruning_report(model, work, graph, plan) | {"oracle": error, "repaired": repaired}
        return Rewrite(work.ir, tuple(declined), report | self._latency(model, work, plan, ctx))

    def _refuse_int8(self, model: Model, *, pruned: bool) -> None:
        """Refuse what is quantized already where nothing would be left of its answers.

        Raises:
            InputError: its layers are quantized, so that none loses channels, or those that read
                the remaining channels have no float weights to solve for again.
        """
        pairs = any(node.op_type in QDQ_OPS for node in model.nodes())
        if not pruned or (pairs and self.repair != "none"):
            refuse_quantized(model, "Prune the float model that it was made from, then quantize")

    def _groups(self, model: Model) -> tuple[Model, DependencyGraph, list[Group]]:
        """Return a copy to prune, its dependency graph and the groups that may lose channels."""
        work = prepare(model.clone())
        graph = build_dependency_graph(work, whole=self.heads == "whole")
        return work, graph, usable_groups(graph, self.protect)

    def _batches(self, model: Model, ctx: Context) -> list[dict[str, Any]] | None:
        """Return calibration data, None where there are none and nothing needs them."""
        options = (self.importance, self.repair)
        needs = [v for v in options if v in _DATA_DRIVEN]
        optional = "auto" in options and (self.data or ctx.data)
        if not needs and not optional:
            return None
        data = ctx.dataset(self.data, model, purpose=str(needs[0]) if needs else "pruning")
        return calibration_batches(model, data, self.samples, ctx.progress)

    def _cut(
        self, work: Model, graph: DependencyGraph, removed: list[int], ctx: Context
    ) -> float | None:
        """Cut in place and verify; return the largest relative difference."""
        masked = mask(work, graph, removed) if self.verify else None
        cut(graph, removed)
        if masked is None:
            return None
        error = verification_error(masked, work, seed=ctx.seed)
        if error > TOLERANCE and error > (allowed := allowed_error(masked, seed=ctx.seed)):
            raise PassError(
                f"the cut model differs from the masked one by {error:.1e}, "
                f"{allowed:.0e} is allowed",
                where=work.name,
                hint="This is a bug of the pass; please report it. protect=... may work around it",
            )
        return error

    def measured(self, models: list[Model], ctx: Context) -> list[float]:
        """Return latencies of whole models in `precision`, in nanoseconds, from one run."""
        return latencies(models, ctx, int8=self.precision == "int8", data=self.data)

    def _latency(
        self, before: Model, after: Model, plan: PruningPlan, ctx: Context
    ) -> dict[str, Any]:
        """Return latency before, predicted and after, where latency decides."""
        if plan.predicted is None:
            return {}
        old, new = self.measured([before, dataclasses.replace(after)], ctx)
        ratio = {"predicted": round(plan.predicted, 4), "measured": round(new / old, 4)}
        return {"latency_ms": [round(old / 1e6, 4), round(new / 1e6, 4)], "latency_ratio": ratio}


_DATA_DRIVEN = ("mean_output", "least_squares", "taylor", "bias", "batch_norm")
