"""The teacher: outputs and features that the student is held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from trimtab.core.errors import ModelError
from trimtab.core.model import Model
from trimtab.core.session import SessionConfig, build_session, run, with_outputs

from .module import to_module
from .taps import tensor_named

Teach = Callable[[dict[str, Tensor]], dict[str, Tensor]]
Pairs = list[tuple[str, str]]


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
        hint="Give the model that this one was made from, or --match order where the names differ",
    )


def match_features(features: Sequence[str], student: Model, teacher: Model) -> Pairs:
    """The student's and the teacher's inner tensors, each named itself or by what makes it."""
    pairs = [(mine, theirs or mine) for mine, _, theirs in (f.partition("=") for f in features)]
    return [(tensor_named(student, mine), tensor_named(teacher, theirs)) for mine, theirs in pairs]


def make_teacher(teacher: Model, taps: Sequence[str], device: torch.device, threads: int) -> Teach:
    """What runs the teacher: onnxruntime on the CPU, where it is faster, else torch."""
    if device.type != "cpu":
        module = to_module(teacher, taps).to(device)

        def on_device(feeds: dict[str, Tensor]) -> dict[str, Tensor]:
            with torch.no_grad():
                return module.run(feeds)

        return on_device
    session = build_session(with_outputs(teacher, taps), SessionConfig(threads=max(threads, 1)))

    def on_cpu(feeds: dict[str, Tensor]) -> dict[str, Tensor]:
        made = run(session, {n: np.ascontiguousarray(t.numpy()) for n, t in feeds.items()})
        return {name: torch.from_numpy(array) for name, array in made.items()}

    return on_cpu
