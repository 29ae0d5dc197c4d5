"""Training as a pass: what pruning or rounding cost comes back, in the graph that lost it.

The graph becomes a torch module whose parameters are its initializers, learns from the float
original (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015) or from labels, and
its weights go back to where they were. A graph with Q/DQ pairs trains through them.
"""

from __future__ import annotations

import dataclasses
import re
import time as clock
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import onnx_ir as ir
from onnx_ir.passes import common

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import ModelError, OptionError, unknown
from trimtab.core.model import Model

from ..base import Declined, Pass, Rewrite
from .torch_graph.roles import Weight, find_roles

#: The teacher that is the model a recipe started from.
ORIGINAL = "original"
#: Steps of the two runs by which the time of a step is found.
PROBES = (4, 24)
TERMS = ("kd", "ce", "mse", "cosine", "features")
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Finetune(Pass):
    """Train the weights, on labels or against a teacher, and keep what does best on unseen items.

    Zeros stay zeros, quantized graphs train through their rounding with learned step sizes
    (quantization-aware training), and the weights that end up in the file are those with the
    lowest loss on a part of the data that was not trained on, the given ones included.

    Attributes:
        data: training data; the context's where none is named. Labels are needed for ce only.
        teacher: the model to learn from, in most cases the float original: a file, or `original`
            for the model that the recipe started from. Where none is named, the model itself as it
            was given.
        match: whether outputs are matched to the teacher's by name or by order.
        loss: terms, each a name or name:weight. kd is the divergence from the teacher's softened
            classes, ce the cross-entropy with the labels, mse the squared distance from the
            teacher's outputs as a share of their square, cosine the angle between them, features
            the same as mse for inner tensors. Where none is given, kd for labelled classes, else
            mse; features too where some are named.
        temperature: that softens both sides of kd.
        features: inner tensors to hold against the teacher's, as name or name=teacher's name; each
            the name of a tensor, of its node, or of the submodule that ends with it (layer4).
        epochs: times that every training item is seen; 1 where neither this nor steps nor time is
            given.
        steps: number of steps instead.
        time: longest time to train, as in 90s, 20m or 1h; with steps or epochs, whichever is first.
        batch: items in a step; that of the model where it is fixed.
        optimizer: adamw, or sgd with Nesterov momentum.
        learning_rate: the highest; 0.0001 for adamw and 0.01 for sgd where not given, which suit a
            model that was trained before.
        momentum: of sgd.
        weight_decay: pull of kernels towards zero; norms, biases and step sizes are left alone.
        schedule: how the learning rate falls: cosine to zero, step to a tenth at a half and at
            three quarters, one-cycle up and down, plateau to a third where validation does not
            improve, or constant.
        warmup: share of the training in which the learning rate rises.
        clip: longest gradient; none is cut where it is 0.
        ema: decay of a running average of the weights, which is what is validated and kept; 0 for
            none.
        validation: share of the data that is held back to choose the weights by.
        evaluate_every: steps between two validations; once an epoch where not given.
        patience: validations without improvement after which training stops; never where 0.
        batch_norm: statistics of BatchNormalization are frozen, re-estimated before and after
            training, or trained with the batches; restored puts norms back behind convolutions
            that they were folded into, and trains with these. A network that lost much comes back
            further so, at rates near those of a fresh network: sgd, a learning rate of 0.05.
        fold: whether BatchNormalization that was trained, restored or re-estimated is folded into
            the layer before it afterwards.
        dropout: rate of the graph's Dropout while it trains; as the graph says where not given.
        keep_zeros: weights that are exactly zero stay so.
        keep_clusters: weights that cluster-weights made equal stay so.
        learn_steps: whether step sizes of quantizers are trained (LSQ).
        augment: images are mirrored or shifted at random, for the teacher as well. auto does both
            to colour images where a teacher answers, shifts them where labels do, and leaves
            everything else as it is.
        views: ways in which an item is augmented over all epochs; without end where 0, or 4 where
            the teacher's outputs are kept.
        cache: folder to keep the teacher's outputs in, for later epochs and later runs.
        precision: of the arithmetic while it trains.
        device: where it trains; a GPU where torch sees one.
        threads: of torch on the CPU; 0 times a few steps of a run of 200 or more and takes what is
            fastest, else one. The last digits depend on it, and the lineage tells it.
        checkpoint: file that the state is written to now and then.
        checkpoint_minutes: time between two of these.
        resume: go on from the checkpoint where there is one.
    """

    needs_data: ClassVar[bool] = True

    data: Dataset | None = None
    teacher: Model | str | None = None
    match: Literal["name", "order"] = "name"
    loss: tuple[str, ...] = ()
    temperature: float = 4.0
    features: tuple[str, ...] = ()
    epochs: float | None = None
    steps: int | None = None
    time: str | None = None
    batch: int = 64
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float | None = None
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "step", "one-cycle", "plateau", "constant"] = "cosine"
    warmup: float = 0.05
    clip: float = 1.0
    ema: float = 0.0
    validation: float = 0.1
    evaluate_every: int | None = None
    patience: int = 0
    batch_norm: Literal["frozen", "re-estimated", "trained", "restored"] = "frozen"
    fold: bool = True
    dropout: float | None = None
    keep_zeros: bool = True
    keep_clusters: bool = True
    learn_steps: bool = True
    augment: Literal["auto", "none", "mirror", "shift", "both"] = "auto"
    views: int = 0
    cache: str | None = None
    precision: Literal["float32", "bf16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 0
    checkpoint: str | None = None
    checkpoint_minutes: float = 10.0
    resume: bool = False

    def __post_init__(self) -> None:
        where = f"pass {self.name()}"
        for name, fits, wanted in (
            ("temperature", self.temperature > 0, "above 0"),
            ("epochs", self.epochs is None or self.epochs > 0, "above 0"),
            ("steps", self.steps is None or self.steps > 0, "above 0"),
            ("batch", self.batch > 0, "above 0"),
            ("learning_rate", self.learning_rate is None or self.learning_rate > 0, "above 0"),
            ("momentum", 0 <= self.momentum < 1, "from 0 to below 1"),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
            ("warmup", 0 <= self.warmup < 1, "from 0 to below 1"),
            ("clip", self.clip >= 0, "0 or more"),
            ("ema", 0 <= self.ema < 1, "from 0 to below 1"),
            ("validation", 0 < self.validation < 1, "between 0 and 1"),
            ("evaluate_every", self.evaluate_every is None or self.evaluate_every > 0, "above 0"),
            ("patience", self.patience >= 0, "0 or more"),
            ("dropout", self.dropout is None or 0 <= self.dropout < 1, "from 0 to below 1"),
            ("threads", self.threads >= 0, "0 or more"),
            ("views", self.views >= 0, "0 or more"),
            ("checkpoint_minutes", self.checkpoint_minutes > 0, "above 0"),
        ):
            if not fits:
                value = getattr(self, name)
                raise OptionError(f"{name} is {value!r}, must be {wanted}", where=where)
        if self.epochs is not None and self.steps is not None:
            raise OptionError("takes epochs or steps, not both", where=where)
        if self.resume and not self.checkpoint:
            raise OptionError("resume needs the checkpoint to go on from", where=where)
        if "features" in self.terms() and not self.features:
            raise OptionError("the loss term features needs some named in `features`", where=where)
        self.seconds()

    def terms(self) -> dict[str, float]:
        """Weight of each loss term that was asked for.

        Raises:
            OptionError: no such term, or no number.
        """
        found: dict[str, float] = {}
        for text in self.loss:
            name, _, weight = text.partition(":")
            if name not in TERMS:
                raise unknown("loss term", name, TERMS, where=f"pass {self.name()}")
            try:
                found[name] = float(weight or 1)
            except ValueError:
                raise OptionError(f"{weight!r} is no weight", where=f"loss term {name}") from None
        return found

    def seconds(self) -> float | None:
        """The longest time to train.

        Raises:
            OptionError: it is no duration.
        """
        if self.time is None:
            return None
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", self.time.strip())
        if match is None:
            raise OptionError(
                f"{self.time!r} is no duration",
                where=f"pass {self.name()}, field 'time'",
                hint="Write it as 90s, 20m or 1h",
            )
        return float(match[1]) * _UNITS[match[2]]

    def decides_by_time(self) -> bool:
        """Whether it trains for a time, in which another run takes another number of steps."""
        return self.time is not None

    def resolved(self, model: Model, ctx: Context) -> Finetune:
        """The same for the number of steps that fit into the time, by the time that a few take."""
        seconds = self.seconds()
        if seconds is None:
            return self
        self._timed(model, ctx, 1)  # imports and caches, which are paid once, are no step's time
        few, more = (self._timed(model, ctx, steps) for steps in PROBES)
        # Never less than a part of what steps took at most: a stutter in the first of two short
        # probes would make steps seem free.
        each = max((more - few) / (PROBES[1] - PROBES[0]), more / PROBES[1] / 4)
        fixed = max(0.0, few - PROBES[0] * each)
        steps = max(1, int((seconds - fixed) / each))
        if self.steps is not None:
            steps = min(steps, self.steps)
        return self.with_fields(time=None, epochs=None, steps=steps)

    def _timed(self, model: Model, ctx: Context, steps: int) -> float:
        """Seconds that so many steps take, with all that belongs to them."""
        start = clock.monotonic()
        self.with_fields(time=None, epochs=None, steps=steps)(model, ctx)
        return clock.monotonic() - start

    def to_json(self) -> dict[str, Any]:
        """Its fields that differ from their defaults; a teacher in memory by where it came from."""
        plain = super().to_json()
        if isinstance(self.teacher, Model):
            plain["teacher"] = self.teacher.name
        return plain

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        """Train a clone of the graph."""
        common.LiftConstantsToInitializersPass(lift_all_constants=False)(model.ir)
        weights = find_roles(model.graph)
        if not {w.role for w in weights.values()} & {"kernel", "vector"}:
            reason = "holds no weights that could be trained"
            return Rewrite(model.ir, (Declined(model.name, reason),))
        _refuse_half(model, weights)
        from . import torch_graph

        data = ctx.dataset(self.data, model, purpose="recovery")
        trained, report = torch_graph.finetune(self, model, self._teacher(model, ctx), data, ctx)
        return Rewrite(trained.ir, (), report)

    def _teacher(self, model: Model, ctx: Context) -> Model:
        if self.teacher is None:
            return dataclasses.replace(model.clone(), name=model.name)
        if self.teacher == ORIGINAL:
            if ctx.original is None:
                raise OptionError(
                    "teacher is `original`, and there is none outside of a recipe",
                    where=f"pass {self.name()}",
                    hint="Name its file",
                )
            return ctx.original
        return self.teacher if isinstance(self.teacher, Model) else Model.load(self.teacher)


def _refuse_half(model: Model, weights: dict[str, Weight]) -> None:
    for name, weight in weights.items():
        tensor = model.graph.initializers[name].const_value
        half = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
        if tensor is not None and tensor.dtype in half and weight.role == "kernel":
            raise ModelError(
                f"weight {name!r} is {tensor.dtype.name.lower()}, too coarse for small steps",
                where=model.name,
                hint="Train the float32 model and convert it afterwards; or use precision=bf16",
            )
