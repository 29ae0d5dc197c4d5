"""Pruning in rounds with finetuning after each.

The share that is gone after round i of n is s_i = s (1 - (1 - i/n)^3): much at first, where many
weights are redundant, and less and less towards the end (Zhu and Gupta, "To prune, or not to
prune", 2017, section 3).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError
from trimtab.core.fields import File
from trimtab.core.model import Model

from ..base import Pass, Rewrite
from ..teacher import load_teacher
from ..training.finetune import Finetune
from .channels import PruneChannels
from .magnitude import PruneMagnitude

#: Fields of which at most one is set.
GOALS = ("sparsity", "ratio", "macs", "latency")


@dataclass(frozen=True)
class PruneGradually(Pass):
    """Prune a little, finetune, and repeat, until the wanted share is gone.

    One of `sparsity`, `ratio`, `macs` and `latency` says how much; half of the weights become zero
    where none is given. It loses less than one round with as much training where much goes.

    Attributes:
        sparsity: share of the weights that is zero at the end, by prune-magnitude.
        ratio: instead, share of the channels that is gone at the end, by prune-channels.
        macs: instead, share of the multiply-accumulates that stays, by prune-channels.
        latency: instead, share of the latency that stays, by prune-channels.
        schedule: growth of the share: gradual by a cubic that flattens, even by equal parts, once.
        rounds: number of rounds of pruning and finetuning.
        prune: further fields of the pass that prunes, as a mapping; JSON on the command line.
        finetune: fields of the finetuning after each round, as a mapping; JSON on the command line.
        teacher: file of the model to learn from; the unpruned model where none is named.
        data: data for both; that of the run where none is named.
    """

    needs_data: ClassVar[bool] = True
    drops: ClassVar[bool] = True
    calibrates: ClassVar[bool] = True
    keeps_bits: ClassVar[bool] = True
    renamed: ClassVar[Mapping[str, str]] = {"recover": "finetune"}

    sparsity: float | None = None
    ratio: float | None = None
    macs: float | None = None
    latency: float | None = None
    schedule: Literal["gradual", "even", "once"] = "gradual"
    rounds: int = 4
    prune: Mapping[str, Any] = field(default_factory=dict)
    finetune: Mapping[str, Any] = field(default_factory=dict)
    teacher: Model | File | None = None
    data: Dataset | None = None

    def __post_init__(self) -> None:
        where = f"pass {self.name()}"
        named = [name for name in GOALS if getattr(self, name) is not None]
        if len(named) > 1:
            raise OptionError(
                f"takes one of {', '.join(GOALS)}, not {' and '.join(named)}", where=where
            )
        if self.rounds < 1:
            raise OptionError(f"rounds is {self.rounds}, must be above 0", where=where)
        kind, share = self._goal()
        if not 0 < share < 1:
            raise OptionError(
                f"{kind} is {getattr(self, kind)}, must be between 0 and 1", where=where
            )
        if "pattern" in self.prune and ":" in str(self.prune["pattern"]):
            raise OptionError(
                f"pattern {self.prune['pattern']} has one sparsity and cannot grow towards it",
                where=where,
                hint="Use prune-magnitude and finetune once; or pattern block or unstructured",
            )
        for name in {*GOALS, "threshold"} & set(self.prune):
            raise OptionError(f"{name} belongs outside of `prune`", where=where)
        self._pruning(0.5)
        self._finetuning(1, last=True, teacher=None)

    def shares(self) -> Iterator[float]:
        """Yield the share that is gone after each round."""
        _, final = self._goal()
        rounds = 1 if self.schedule == "once" else self.rounds
        for done in ((i + 1) / rounds for i in range(rounds)):
            yield final * (1 - (1 - done) ** 3 if self.schedule == "gradual" else done)

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        """Prune and finetune in rounds."""
        teacher = load_teacher(self.teacher, ctx, f"pass {self.name()}") or model.clone()
        ctx = dataclasses.replace(ctx, data=ctx.dataset(self.data, model, purpose="pruning"))
        work, stay = model, 1.0
        rows: list[dict[str, Any]] = []
        shares = list(self.shares())
        for index, gone in enumerate(shares, 1):
            ctx.progress.say(f"round {index} of {len(shares)}: {gone:.1%} gone")
            pruned = self._pruning(self._field(gone, stay))(work, ctx)
            finetuning = self._finetuning(index, last=index == len(shares), teacher=teacher)
            work, stay = finetuning(pruned, ctx), self._left(pruned, gone, rows)
            trained = _noted(work, "validation", "steps", "stopped")
            rows.append({"gone": round(gone, 6), **_noted(pruned, "sparsity", "macs"), **trained})
            if trained.get("stopped") == "interrupted":
                ctx.progress.say(f"ends after round {index} of {len(shares)}")
                break
        return Rewrite(work.ir, (), {"rounds": rows})

    def _goal(self) -> tuple[str, float]:
        """Return the field that says how much, and the share that goes."""
        for name in ("macs", "latency"):
            if getattr(self, name) is not None:
                return name, 1 - getattr(self, name)
        if self.ratio is not None:
            return "ratio", self.ratio
        return "sparsity", 0.5 if self.sparsity is None else self.sparsity

    def _field(self, gone: float, stay: float) -> float:
        """Return the field's value for a round, for channels relative to the round before."""
        kind, _ = self._goal()
        if kind == "sparsity":
            return gone
        left = min((1 - gone) / stay, 0.999)
        return 1 - left if kind == "ratio" else left

    def _left(self, pruned: Model, gone: float, rows: list[dict[str, Any]]) -> float:
        """Return the share that is left of the original; multiply-accumulates are counted."""
        if self._goal()[0] != "macs":
            return 1 - gone
        macs = _noted(pruned, "macs").get("macs")
        first = rows[0]["macs"][0] if rows else macs[0] if macs else 0
        return macs[1] / first if macs and first else 1 - gone

    def _pruning(self, value: float) -> Pass:
        kind, _ = self._goal()
        pass_type = PruneMagnitude if kind == "sparsity" else PruneChannels
        return pass_type.from_json({**self.prune, kind: value})

    def _finetuning(self, index: int, *, last: bool, teacher: Model | None) -> Finetune:
        """Return the finetuning of a round; only the last may fold weights that others train."""
        fields = dict(self.finetune)
        if fields.get("checkpoint"):
            fields["checkpoint"] = f"{fields['checkpoint']}.{index}"
        if not last:
            fields["fold"] = False
        return Finetune.from_json(fields).with_fields(teacher=teacher)


def _noted(model: Model, *names: str) -> dict[str, Any]:
    """Return those of these figures that the last pass noted."""
    notes = model.lineage[-1].notes
    return {name: notes[name] for name in names if name in notes}
