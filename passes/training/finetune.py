"""Fine-tuning as a pass: training restores the accuracy that pruning or rounding cost.

The graph becomes a torch module whose parameters are its initializers, learns from the float
original (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015) or from labels, and
its weights are written back. A graph with Q/DQ pairs trains through them.
"""

from __future__ import annotations

import dataclasses
import time as clock
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes import common

from trimtab.core.context import Context
from trimtab.core.errors import ModelError
from trimtab.core.model import Model

from ..base import Pass, Rewrite
from ..graph.declined import Declined
from ..graph.quantized import refuse_integers
from ..teacher import load_teacher
from .torch_graph.options import FinetuneOptions
from .torch_graph.roles import TrainableWeight, find_trainable_weights

#: Steps of the two runs that measure the time of a step.
PROBES = (4, 24)


@dataclass(frozen=True)
class Finetune(FinetuneOptions, Pass):
    """Train the weights, on labels or against a teacher, and keep what does best on unseen items.

    Zeros stay zeros, quantized graphs train through their rounding with learned step sizes
    (quantization-aware training), and the file gets the weights with the lowest loss on a part of
    the data that was not trained on, be it those before the first step. `FinetuneOptions` lists
    the fields.
    """

    needs_data: ClassVar[bool] = True
    in_float32: ClassVar[bool] = True

    def decides_by_time(self) -> bool:
        """Return whether a time limits training, in which another run takes other steps."""
        return self.time is not None

    def resolved(self, model: Model, ctx: Context) -> Finetune:
        """Return the pass with the steps that fit into its time, by the time that a few take."""
        seconds = self.seconds()
        if seconds is None:
            return self
        self._timed(model, ctx, 1)  # imports and caches are paid once
        few, more = (self._timed(model, ctx, steps) for steps in PROBES)
        # At least a quarter of the upper bound: a stutter in the first of two short probes would
        # make steps seem free.
        each = max((more - few) / (PROBES[1] - PROBES[0]), more / PROBES[1] / 4)
        fixed = max(0.0, few - PROBES[0] * each)
        steps = max(1, int((seconds - fixed) / each))
        if self.steps is not None:
            steps = min(steps, self.steps)
        return self.with_fields(time=None, epochs=None, steps=steps)

    def _timed(self, model: Model, ctx: Context, steps: int) -> float:
        """Return the seconds of a run of so many steps, its preparation included."""
        start = clock.monotonic()
        self.with_fields(time=None, epochs=None, steps=steps)(model, ctx)
        return clock.monotonic() - start

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        """Train a clone of the graph."""
        refuse_integers(model, "Train the float model that it was made from, or one of Q/DQ pairs")
        common.LiftConstantsToInitializersPass(lift_all_constants=False)(model.ir)
        weights = find_trainable_weights(model.graph)
        if not {w.role for w in weights.values()} & {"kernel", "vector"}:
            declined = Declined(model.name, "has no weights that could be trained")
            return Rewrite(model.ir, (declined,))
        _refuse_bfloat16(model, weights)
        from . import torch_graph

        data = ctx.dataset(self.data, model, purpose="recovery")
        trained, report = torch_graph.train_graph(self, model, self._teacher(model, ctx), data, ctx)
        return Rewrite(trained.ir, (), report)

    def _teacher(self, model: Model, ctx: Context) -> Model:
        given = load_teacher(self.teacher, ctx, f"pass {self.name()}")
        return dataclasses.replace(model.clone(), name=model.name) if given is None else given


def _refuse_bfloat16(model: Model, weights: dict[str, TrainableWeight]) -> None:
    for name, weight in weights.items():
        tensor = model.graph.initializers[name].const_value
        coarse = tensor is not None and tensor.dtype == ir.DataType.BFLOAT16
        if coarse and weight.role == "kernel":
            raise ModelError(
                f"weight {name!r} is bfloat16, too coarse for small steps",
                where=model.name,
                hint="Train the float32 model; --precision bf16 trains it in that type",
            )
