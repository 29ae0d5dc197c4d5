"""The teacher: outputs and features that the student is held against."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trimtab.core.errors import ModelError
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig, build_session, run, with_outputs

from .augment import PLAIN, Augment
from .batches import Taken
from .intermediate_outputs import tensor_named
from .module import to_module
from .teacher_cache import TeacherCache

if TYPE_CHECKING:
    from trimtab.core.dataset import Dataset

Teach = Callable[[dict[str, Tensor]], dict[str, Tensor]]
Pairs = list[tuple[str, str]]
#: Outputs for validation items are the same each time: up to so many bytes of them stay in memory.
_KEPT_BYTES = 256 << 20


class Taught:
    """The teacher's outputs for a batch: kept ones where there are, else computed.

    Args:
        teach: computes them.
        augment: says which view an epoch shows.
        disk: where they are kept between runs, if anywhere.
        device: that the student trains on.
    """

    def __init__(
        self, teach: Teach, augment: Augment, disk: TeacherCache | None, device: torch.device
    ) -> None:
        self.teach, self.augment, self.disk, self.device = teach, augment, disk, device
        self.plain: dict[int, dict[str, Tensor]] = {}
        self.left, self.computed, self.read = _KEPT_BYTES, 0, 0

    def __call__(self, feeds: dict[str, Tensor], taken: Taken) -> dict[str, Tensor]:
        """Outputs and features for the feeds as they were augmented."""
        view = PLAIN if taken.epoch < 0 else self.augment.view(taken.epoch)
        first = int(taken.rows[0])
        if taken.epoch < 0 and first in self.plain:
            return self.plain[first]
        made = self._from_disk(feeds, taken, view) if self.disk else self._computed(feeds)
        size = sum(t.numel() * t.element_size() for t in made.values())
        if taken.epoch < 0 and size <= self.left:
            self.plain[first], self.left = made, self.left - size
        return made

    def _computed(self, feeds: dict[str, Tensor]) -> dict[str, Tensor]:
        self.computed += 1
        return self.teach(feeds)

    def _from_disk(self, feeds: dict[str, Tensor], taken: Taken, view: int) -> dict[str, Tensor]:
        assert self.disk is not None
        found = self.disk.get(view, taken.rows)
        if found is not None:
            self.read += 1
            whole = not self.augment.count
            arrays = {n: a[0] if whole else a for n, a in found.items()}
            return {n: torch.from_numpy(a).to(self.device) for n, a in arrays.items()}
        made = self._computed(feeds)
        # bfloat16 is no type of NumPy's.
        plain = {n: t.float() if t.dtype == torch.bfloat16 else t for n, t in made.items()}
        arrays = {n: t.detach().cpu().numpy() for n, t in plain.items()}
        self.disk.put(view, taken.rows, arrays, whole=not self.augment.count)
        return made


def cache_of(
    folder: str | None,
    teacher: Model,
    data: Dataset,
    taps: Sequence[str],
    augment: Augment,
    say: Callable[[str], None],
) -> TeacherCache | None:
    """The cache in that folder, for this teacher, these data and this augmentation."""
    if folder is None:
        return None
    views = [augment.how, augment.seed] if augment.how != "none" else []
    parts = json.dumps([teacher.digest, data.source.identity, list(taps), views])
    key = hashlib.sha256(parts.encode()).hexdigest()[:32]
    return TeacherCache(Path(folder), key, data.source.count, say)


def match_outputs(student: Model, teacher: Model, how: str) -> Pairs:
    """The student's and the teacher's outputs, by name or by order.

    Raises:
        ModelError: they differ in number or names.
    """
    mine, theirs = ([o.name for o in m.outputs] for m in (student, teacher))
    if how == "order" and len(mine) == len(theirs):
        return list(zip(mine, theirs, strict=True))
    if how == "name" and set(mine) <= set(theirs):
        return [(name, name) for name in mine]
    raise ModelError(
        f"its outputs ({', '.join(theirs)}) are not those of the model ({', '.join(mine)})",
        where=teacher.name,
        hint="Give the model that this one was made from"
        + (", or --match order where the names differ" if len(mine) == len(theirs) else ""),
    )


def match_inputs(student: Model, teacher: Model, how: str) -> Pairs:
    """The student's and the teacher's inputs, by name or by order.

    Raises:
        ModelError: the teacher wants an input that the student's data do not have, or another
            type or size of it.
    """
    mine, theirs = student.inputs, teacher.inputs
    by_name = {spec.name: spec for spec in mine}
    if how == "order" and len(mine) == len(theirs):
        pairs = list(zip(mine, theirs, strict=True))
    elif all(spec.name in by_name for spec in theirs):
        pairs = [(by_name[spec.name], spec) for spec in theirs]
    else:
        raise ModelError(
            f"its inputs ({', '.join(map(str, theirs))}) are not those of the model "
            f"({', '.join(map(str, mine))})",
            where=teacher.name,
            hint="Give the model that this one was made from, or --match order for other names",
        )
    for a, b in pairs:
        sizes = zip(a.shape or (), b.shape or (), strict=False)
        differ = any(isinstance(m, int) and isinstance(t, int) and m != t for m, t in sizes)
        if a.dtype != b.dtype or differ or (a.shape and b.shape and len(a.shape) != len(b.shape)):
            raise ModelError(
                f"takes {b}, the model takes {a}",
                where=teacher.name,
                hint="Both see the same batches: give a teacher with the same inputs",
            )
    return [(a.name, b.name) for a, b in pairs]


def match_features(features: Sequence[str], student: Model, teacher: Model) -> Pairs:
    """The student's and the teacher's inner tensors, each named itself or by what makes it."""
    pairs = [(mine, theirs or mine) for mine, _, theirs in (f.partition("=") for f in features)]
    return [(tensor_named(student, mine), tensor_named(teacher, theirs)) for mine, theirs in pairs]


def make_teacher(
    teacher: Model, taps: Sequence[str], inputs: Pairs, device: torch.device, threads: int
) -> Teach:
    """What runs the teacher: onnxruntime on the CPU, where it is faster, else torch.

    Args:
        teacher: the model.
        taps: inner tensors that are wanted beside its outputs.
        inputs: names of the student's inputs and of its own.
        device: where.
        threads: of onnxruntime.
    """
    if device.type != "cpu":
        module = to_module(teacher, taps).to(device)

        def on_device(feeds: dict[str, Tensor]) -> dict[str, Tensor]:
            with torch.no_grad():
                return module.run({theirs: feeds[mine] for mine, theirs in inputs})

        return on_device
    session = build_session(with_outputs(teacher, taps), SessionConfig(threads=max(threads, 1)))

    def on_cpu(feeds: dict[str, Tensor]) -> dict[str, Tensor]:
        arrays = {t: np.ascontiguousarray(feeds[m].numpy()) for m, t in inputs}
        return {name: torch.from_numpy(array) for name, array in run(session, arrays).items()}

    return on_cpu
