"""Options of the pass `finetune`, parsed and checked. Needs no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError, unknown
from trimtab.core.fields import Duration, File, Folder, to_plain
from trimtab.core.model import Model
from trimtab.core.units import duration

WHERE = "pass finetune"
TERMS = ("kd", "ce", "mse", "cosine", "features")
#: Fields that say for how long and where a model is trained, not to what.
_ENVIRONMENT = frozenset(
    ("data", "teacher", "time", "threads", "cache", "checkpoint", "checkpoint_minutes", "resume")
)


@dataclass(frozen=True)
class FinetuneOptions:
    """Data, loss, optimizer, schedule and bookkeeping of a training run.

    Attributes:
        data: training data (default: that of the run). Only ce needs labels.
        teacher: model to learn from, in most cases the float original: a file, or `original` for
            the model that the recipe started from (default: the input model itself).
        match: matching of outputs to the teacher's, by name or by order.
        loss: terms, each a name or name:weight. kd is the divergence from the teacher's softened
            classes, ce the cross-entropy with the labels, mse the squared distance from the
            teacher's outputs as a share of their square, cosine the angle between them, features
            mse for intermediate outputs (default: kd for labelled classes, else mse; features too
            where some are named).
        temperature: temperature that softens both sides of kd.
        features: intermediate outputs to compare with the teacher's, as name or name=teacher's
            name; each the name of a tensor, of its node, or of the submodule that ends with it
            (layer4).
        epochs: passes over the training items (default 1 where neither steps nor time is given).
        steps: number of steps, instead of epochs.
        time: longest training time, as in 90s, 20m or 1h; with steps or epochs, whichever ends
            first.
        batch: batch size; that of the model where it is fixed.
        optimizer: adamw, or sgd with Nesterov momentum.
        learning_rate: highest learning rate (default 0.0001 for adamw and 0.01 for sgd, which suit
            a model that was trained before).
        momentum: momentum of sgd.
        weight_decay: pull of kernels towards zero; norms, biases and step sizes are left alone.
        schedule: schedule of the learning rate: cosine to zero, step to a tenth at a half and at
            three quarters, one-cycle up and down, plateau to a third where validation does not
            improve, or constant.
        warmup: share of the training in which the learning rate rises.
        clip: norm to which gradients are clipped; 0 for no clipping.
        ema: decay of a running average of the weights, which is validated and kept instead; 0 for
            none.
        validation: share of the data held out to choose the weights by.
        evaluate_every: steps between two validations (default: once an epoch).
        patience: validations without improvement after which training stops; 0 for no limit.
        batch_norm: statistics of BatchNormalization are frozen, re-estimated before and after
            training, or trained with the batches; restored unfolds norms from the convolutions
            that they were folded into, and trains with these. A network that lost much recovers
            further so, at rates near those of a fresh network: sgd, a learning rate of 0.05.
        fold: folding of BatchNormalization that was trained, restored or re-estimated into the
            layer before it, after training.
        dropout: rate of the graph's Dropout in training (default: the graph's own).
        keep_zeros: keep weights zero that are exactly zero.
        keep_clusters: keep weights equal that cluster-weights made equal.
        learn_steps: train the step sizes of quantizers (LSQ).
        augment: random mirroring or shifting of images, for the teacher as well. auto does both to
            colour images where a teacher is the target, shifts them where labels are, and leaves
            everything else unchanged.
        views: augmented versions of an item over all epochs; 0 for a new one each epoch, or 4
            where the teacher's outputs are cached.
        cache: folder for the teacher's outputs, for later epochs and later runs.
        precision: precision of the arithmetic in training.
        device: device to train on; auto is a GPU where torch sees one.
        threads: torch's threads on the CPU; 0 times a few steps of a run of 200 or more and takes
            the fastest number, else one. The last digits depend on it; the lineage records it.
        checkpoint: file for the state of training.
        checkpoint_minutes: minutes between two checkpoints.
        resume: resume from the checkpoint where there is one.
    """

    data: Dataset | None = None
    teacher: Model | File | None = None
    match: Literal["name", "order"] = "name"
    loss: tuple[str, ...] = ()
    temperature: float = 4.0
    features: tuple[str, ...] = ()
    epochs: float | None = None
    steps: int | None = None
    time: Duration | None = None
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
    cache: Folder | None = None
    precision: Literal["float32", "bf16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 0
    checkpoint: File | None = None
    checkpoint_minutes: float = 10.0
    resume: bool = False

    def __post_init__(self) -> None:
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
                raise OptionError(f"{name} is {value!r}, must be {wanted}", where=WHERE)
        if self.epochs is not None and self.steps is not None:
            raise OptionError("takes epochs or steps, not both", where=WHERE)
        if self.resume and not self.checkpoint:
            raise OptionError("resume needs a checkpoint to resume from", where=WHERE)
        if "features" in self.terms() and not self.features:
            raise OptionError("the loss term features needs some named in `features`", where=WHERE)
        self.seconds()

    def terms(self) -> dict[str, float]:
        """Return the weight of each requested loss term.

        Raises:
            OptionError: an unknown term, or a weight that is not a number.
        """
        found: dict[str, float] = {}
        for text in self.loss:
            name, _, weight = text.partition(":")
            if name not in TERMS:
                raise unknown("loss term", name, TERMS, where=WHERE)
            try:
                found[name] = float(weight or 1)
            except ValueError:
                what = f"{weight!r} is not a valid weight"
                raise OptionError(what, where=f"loss term {name}") from None
        return found

    def seconds(self) -> float | None:
        """Return the longest training time.

        Raises:
            OptionError: it is not a valid duration.
        """
        if self.time is None:
            return None
        try:
            return duration(self.time)
        except OptionError as error:
            where, hint = f"{WHERE}, field 'time'", "Write it as 90s, 20m or 1h"
            raise OptionError(error.what, where=where, hint=hint) from error

    def checkpoint_fields(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults and change what is trained."""
        return {
            field.name: to_plain(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.name not in _ENVIRONMENT and getattr(self, field.name) != field.default
        }
