"""Students of a teacher: networks of their own, or the teacher with channels taken out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.core.callables import is_callable_spec
from trimtab.core.context import Context
from trimtab.core.errors import OptionError
from trimtab.core.model import Model

if TYPE_CHECKING:
    from trimtab.passes.base import Pass

_PRUNED = "pruned:"
#: Learning rates for random weights: ten times those for a trained model.
RATES = {"adamw": 1e-3, "sgd": 0.1}


@dataclasses.dataclass(frozen=True)
class Student:
    """Name and starting point of a student.

    Attributes:
        spec: an .onnx file, which starts from its weights; `module:callable`, which starts at
            random or from `weights`; or pruned:0.5, the teacher with that share of its
            multiply-accumulates left.
        weights: file of a state dict for a module.
    """

    spec: str
    weights: str | None = None

    @property
    def share(self) -> float | None:
        """Share of the teacher's multiply-accumulates, for one that is pruned from it.

        Raises:
            OptionError: it is not a share.
        """
        if not self.spec.startswith(_PRUNED):
            return None
        text = self.spec.removeprefix(_PRUNED)
        if not re.fullmatch(r"0?\.\d+", text) or float(text) == 0:
            raise OptionError(
                f"{text!r} is not a share between 0 and 1",
                where=self.spec,
                hint="pruned:0.5 leaves half of the teacher's multiply-accumulates",
            )
        return float(text)

    @property
    def random(self) -> bool:
        """True where it starts from random weights."""
        named = self.share is None and not Path(self.spec).exists()
        return named and is_callable_spec(self.spec) and self.weights is None

    def open(self, above: Model, left: float, ctx: Context) -> Model:
        """Open the student before it learns.

        Args:
            above: model that it learns from: the teacher, or the student before it.
            left: share of the teacher's multiply-accumulates that `above` has.
            ctx: random seed of weights, data for pruning.

        Raises:
            OptionError: it would be no smaller than what it is pruned from.
        """
        from trimtab.passes import find

        from .open_model import open_model

        if self.share is None:
            if self.random:
                _seed(ctx.seed)
            return open_model(self.spec, weights=self.weights, trainable=True)
        if self.weights is not None:
            raise OptionError("has the teacher's weights", where=self.spec, hint="Omit --weights")
        if self.share >= left:
            raise OptionError(
                f"is not smaller than the one before it, at {left:g}",
                where=self.spec,
                hint="Name students of falling size",
            )
        return find("prune-channels").from_json({"macs": self.share / left})(above, ctx)


def _seed(seed: int) -> None:
    """Seed random weights, so that they are the same next time."""
    try:
        import torch
    except ModuleNotFoundError:
        return  # opening the module reports what to install
    torch.default_generator.manual_seed(seed)


def distill_in_steps(
    teacher: Model, students: Sequence[Student], how: Pass, ctx: Context
) -> tuple[Model, Model]:
    """Let each student learn from the one before it, the first from the teacher.

    Args:
        teacher: model that the first student learns from.
        students: students of falling size; the last one is the result.
        how: finetuning of each; its checkpoint gets the student's number appended where there are
            several.
        ctx: data, seed, progress.

    Returns:
        The last student, before and after it learned.

    Raises:
        KeyboardInterrupt: interrupted before the last student's turn.
    """
    above, left = teacher, 1.0
    for student in students:  # report an invalid name before any training
        student.share  # noqa: B018
    for index, student in enumerate(students, 1):
        begun = student.open(above, left, ctx)
        ctx.progress.say(f"student {index} of {len(students)}: {student.spec}")
        step = how.with_fields(teacher=above, **_fields(how, student, index, len(students)))
        after = step(begun, ctx)
        if index == len(students):
            return begun, after
        if after.lineage[-1].notes.get("stopped") == "interrupted":
            raise KeyboardInterrupt
        above, left = after, student.share or left
    raise OptionError("names no student", where="--student")


def _fields(how: Pass, student: Student, index: int, count: int) -> dict[str, Any]:
    """Return the fields that differ from student to student."""
    fields: dict[str, Any] = {}
    checkpoint = getattr(how, "checkpoint", None)
    if checkpoint and count > 1:
        fields["checkpoint"] = f"{checkpoint}.{index}"
    configured = how.to_json()
    if student.random and "batch_norm" not in configured:
        fields["batch_norm"] = "trained"
    if student.random and "learning_rate" not in configured:
        fields["learning_rate"] = RATES[getattr(how, "optimizer", "adamw")]
    return fields
