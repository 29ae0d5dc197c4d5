"""Teacher: outputs and features that the student is compared with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trimtab.core.dataset import Dataset
from trimtab.core.errors import ModelError
from trimtab.core.model import Model
from trimtab.core.ort.inner_outputs import with_outputs
from trimtab.core.ort.session import SessionConfig, build_session, run

from .augment import UNAUGMENTED, Augment
from .batches import DrawnBatch
from .intermediate_outputs import tensor_named
from .losses import NamePairs
from .module import to_module
from .teacher_cache import TeacherCache

TeacherFunction = Callable[[dict[str, Tensor]], dict[str, Tensor]]
#: Bytes of teacher outputs for validation items kept in memory; they never change.
_MEMORY_BYTES = 256 << 20


class TeacherOutputs:
    """Teacher outputs for a batch, from memory or disk where they are cached, else computed."""

    def __init__(
        self,
        compute: TeacherFunction,
        augment: Augment,
        disk: TeacherCache | None,
        device: torch.device,
    ) -> None:
        self.compute, self.augment, self.disk, self.device = compute, augment, disk, device
        self.plain: dict[int, dict[str, Tensor]] = {}
        self.left = _MEMORY_BYTES

    def __call__(self, feeds: dict[str, Tensor], drawn: DrawnBatch) -> dict[str, Tensor]:
        """Return outputs and features for augmented feeds."""
        view = UNAUGMENTED if drawn.epoch < 0 else self.augment.view(drawn.epoch)
        first = int(drawn.rows[0])
        if drawn.epoch < 0 and first in self.plain:
            return self.plain[first]
        made = self._from_disk(feeds, drawn, view) if self.disk else self.compute(feeds)
        size = sum(t.numel() * t.element_size() for t in made.values())
        if drawn.epoch < 0 and size <= self.left:
            self.plain[first], self.left = made, self.left - size
        return made

    def _from_disk(
        self, feeds: dict[str, Tensor], drawn: DrawnBatch, view: int
    ) -> dict[str, Tensor]:
        assert self.disk is not None
        found, whole = self.disk.get(view, drawn.rows), not self.augment.count
        if found is not None:
            arrays = {n: torch.from_numpy(a[0] if whole else a) for n, a in found.items()}
            return {n: a.to(self.device) for n, a in arrays.items()}
        made = self.compute(feeds)
        # NumPy has no bfloat16.
        plain = {n: t.float() if t.dtype == torch.bfloat16 else t for n, t in made.items()}
        stored = {n: t.detach().cpu().numpy() for n, t in plain.items()}
        self.disk.put(view, drawn.rows, stored, whole=whole)
        return made


def open_cache(
    folder: str | None,
    teacher: Model,
    data: Dataset,
    intermediate: Sequence[str],
    augment: Augment,
    say: Callable[[str], None],
) -> TeacherCache | None:
    """Open the cache in a folder for this teacher, data and augmentation; None without a folder."""
    if folder is None:
        return None
    views = [augment.mode, augment.seed] if augment.mode != "none" else []
    parts = json.dumps([teacher.digest, data.source.identity, list(intermediate), views])
    key = hashlib.sha256(parts.encode()).hexdigest()[:32]
    return TeacherCache(Path(folder), key, data.source.count, say)


def match_outputs(student: Model, teacher: Model, match: str) -> NamePairs:
    """Match the student's and the teacher's outputs, by name or by order.

    Raises:
        ModelError: they differ in number or names.
    """
    mine, theirs = ([o.name for o in m.outputs] for m in (student, teacher))
    if match == "order" and len(mine) == len(theirs):
        return list(zip(mine, theirs, strict=True))
    if match == "name" and set(mine) <= set(theirs):
        return [(name, name) for name in mine]
    raise ModelError(
        f"its outputs ({', '.join(theirs)}) are not those of the model ({', '.join(mine)})",
        where=teacher.name,
        hint="Give the model that this one was made from"
        + (", or --match order where the names differ" if len(mine) == len(theirs) else ""),
    )


def match_inputs(student: Model, teacher: Model, match: str) -> NamePairs:
    """Match the student's and the teacher's inputs, by name or by order.

    Raises:
        ModelError: the student's data lack an input of the teacher, or its type or size differs.
    """
    mine, theirs = student.inputs, teacher.inputs
    by_name = {spec.name: spec for spec in mine}
    if match == "order" and len(mine) == len(theirs):
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


def match_features(features: Sequence[str], student: Model, teacher: Model) -> NamePairs:
    """Match intermediate outputs, each named by tensor, node or submodule."""
    pairs = [f.partition("=") for f in features]
    return [(tensor_named(student, m), tensor_named(teacher, t or m)) for m, _, t in pairs]


def teacher_function(
    teacher: Model,
    intermediate: Sequence[str],
    inputs: NamePairs,
    device: torch.device,
    threads: int,
) -> TeacherFunction:
    """Return a function that runs the teacher: in onnxruntime on the CPU, else in torch.

    Args:
        teacher: model.
        intermediate: names of intermediate outputs to return beside its outputs.
        inputs: names of the student's inputs and of its own.
        device: device of the student.
        threads: threads of onnxruntime, which is faster than torch on the CPU.
    """
    if device.type != "cpu":
        module = to_module(teacher, intermediate).to(device)

        def on_device(feeds: dict[str, Tensor]) -> dict[str, Tensor]:
            with torch.no_grad():
                return module.run({theirs: feeds[mine] for mine, theirs in inputs})

        return on_device
    config = SessionConfig(threads=max(threads, 1))
    session = build_session(with_outputs(teacher, intermediate), config)

    def on_cpu(feeds: dict[str, Tensor]) -> dict[str, Tensor]:
        arrays = {t: np.ascontiguousarray(feeds[m].numpy()) for m, t in inputs}
        return {name: torch.from_numpy(array) for name, array in run(session, arrays).items()}

    return on_cpu
