"""The loop of the pass `finetune`."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model

from ...graph.batch_norm_fold import fold_norms
from ...graph.batch_norm_unfold import Restored, restore_norms
from . import checkpoint, state
from .augment import Augment, augmentation_for
from .batches import Batches, Taken, channels_last, estimate, make_batches, to_tensors
from .environment import (
    FEW_STEPS,
    default_terms,
    device_of,
    fastest_threads,
    no_gradient,
    short,
    surroundings,
    without_gradient,
)
from .interrupts import Interrupts
from .log import News
from .losses import Loss
from .module import TorchGraph, to_module
from .norms import settle_norms
from .optimizer import Optimizer
from .schedules import share
from .teacher import Taught, cache_of, make_teacher, match_features, match_inputs, match_outputs
from .weights import write_back

if TYPE_CHECKING:
    from ..finetune import Finetune

#: Where teacher outputs are kept, an augmented item has so many views unless told otherwise.
CACHED_VIEWS = 4


def finetune(
    how: Finetune, model: Model, teacher: Model, data: Dataset, ctx: Context
) -> tuple[Model, dict[str, Any]]:
    """Train a model as a `Finetune` says.

    Returns:
        The model with its new weights, and figures for the report.

    Raises:
        TrimtabError: teacher, data or graph do not fit.
    """
    device = device_of(how.device)
    with surroundings(ctx.seed, device, how.threads):
        run = Training(how, model, teacher, data, ctx, device)
        run.choose_threads()
        run.train()
        trained = write_back(run.model, run.module.cpu())
        if how.fold and how.batch_norm != "frozen" and not run.kept.clusters:
            trained, folded = fold_norms(trained)
            run.report |= {"folded": folded} if folded else {}
        return trained, run.report


class Training:
    """One run: the module, what it learns from, and how far it is."""

    def __init__(
        self,
        how: Finetune,
        model: Model,
        teacher: Model,
        data: Dataset,
        ctx: Context,
        device: torch.device,
    ) -> None:
        self.how, self.begun, self.teacher, self.ctx, self.device = how, model, teacher, ctx, device
        past = " ".join(step.pass_name for step in model.lineage)
        pruned, clustered = "prune" in past, how.keep_clusters and "cluster" in past
        norms: list[Restored] = []
        # Folding gives each channel a factor of its own, and no two weights would stay equal.
        if how.batch_norm == "restored" and not clustered:
            model, norms = restore_norms(model)
        self.model = model
        self.data, self.features = data, match_features(how.features, model, teacher)
        self.batches: Batches = make_batches(model, data, how.validation, how.batch, ctx.seed)
        mine = [name for name, _ in self.features]
        self.module: TorchGraph = to_module(model, mine).to(device)
        # Convolutions are faster so, by a sixth.
        self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        learning = how.batch_norm in {"trained", "restored"}
        self.module.mode.batch_norm = "trained" if learning else "frozen"
        self.module.mode.dropout = how.dropout
        terms = how.terms() or default_terms(model, data, features=bool(self.features))
        self.augment = self._augment(taught=set(terms) != {"ce"})
        self.loss, self.teach = self._lesson(terms, how.threads)
        self.kept = state.Kept(
            self.module, zeros=how.keep_zeros, pruned=pruned, clustered=clustered
        )
        settle_norms(self.module, norms, self.batches, device)
        self.first = next(iter(self.batches.stream(0)))
        with torch.no_grad():
            feeds = to_tensors(self.first.batch, device)
            # Past what is kept: these feeds are no view of their items.
            wanted = self.teach.teach(feeds) if self.teach else {}
            self.loss.prepare(self.module.run(feeds), wanted)
        self.optimizer = Optimizer(how, self.module, self.loss)
        self.average = state.Average(self.module, how.ema) if how.ema else None
        self.step, self.stalled, self.stopped, self.spent = 0, 0, "done", 0.0
        self.best, self.best_loss, self.best_step = state.snapshot(self.module), math.inf, 0
        self.given = math.inf
        self.news = News(ctx.progress, self.batches.size)
        self.report: dict[str, Any] = {"loss": terms, "weights": len(self.module.weights)}
        self.report |= {"restored": len(norms)} if norms else {}

    def _augment(self, *, taught: bool) -> Augment:
        how, source = (
            augmentation_for(self.model, self.how.augment, taught=taught),
            self.data.source,
        )
        views = self.how.views or (CACHED_VIEWS if self.how.cache else 0)
        return Augment(how, self.ctx.seed, views, 0 if source.batched else source.count)

    def _lesson(self, terms: dict[str, float], threads: int) -> tuple[Loss, Taught | None]:
        """The loss and what runs the teacher; labels alone need none, whatever its outputs are."""
        how, outputs = self.how, [(o.name, o.name) for o in self.model.outputs]
        if set(terms) == {"ce"}:
            return Loss(terms, how.temperature, outputs, self.features), None
        pairs = match_outputs(self.model, self.teacher, how.match)
        inputs = match_inputs(self.model, self.teacher, how.match)
        taps = [theirs for _, theirs in self.features]
        teach = make_teacher(self.teacher, taps, inputs, self.device, threads)
        say = self.ctx.progress.say
        disk = cache_of(how.cache, self.teacher, self.data, taps, self.augment, say)
        loss = Loss(terms, how.temperature, pairs, self.features)
        return loss, Taught(teach, self.augment, disk, self.device)

    def choose_threads(self) -> None:
        """On the CPU, unless told how many, as many as make steps fastest."""
        long = self.total >= FEW_STEPS or self.how.time is not None
        if self.how.threads or self.device.type != "cpu" or not long:
            return
        before = state.snapshot(self.module)
        chosen = fastest_threads(lambda: self._gradient(self.first))
        self.optimizer.forget()
        state.restore(self.module, before)
        torch.set_num_threads(chosen)
        if self.teach is not None and chosen > 1:
            inputs = match_inputs(self.model, self.teacher, self.how.match)
            taps = [theirs for _, theirs in self.features]
            self.teach.teach = make_teacher(self.teacher, taps, inputs, self.device, chosen)
        self.report["threads"] = chosen

    @property
    def total(self) -> float:
        """Steps to take; without end where only a time is given."""
        how = self.how
        if how.steps is not None:
            return how.steps
        if how.epochs is None and how.time is not None:
            return math.inf
        return max(math.ceil((how.epochs or 1) * self.batches.per_epoch), 1)

    def train(self) -> None:
        """All steps; afterwards the module holds the best weights."""
        checkpoint.resume(self)
        try:
            with Interrupts(self.ctx.progress.say) as interrupts:
                if self.step == 0:
                    self._validate()
                    self.given = self.best_loss
                self._steps(interrupts)
            if interrupts.asked:
                self._interrupted()
        except KeyboardInterrupt:
            self._interrupted()
        state.restore(self.module, self.best)
        self.module.eval()
        self.report |= {
            "steps": self.step,
            "best_step": self.best_step,
            "validation": [short(self.given), short(self.best_loss)],
            "items": [len(self.batches.training), len(self.batches.validation)],
            "augment": self.augment.how,
            "stopped": self.stopped,
        }

    def _interrupted(self) -> None:
        self.stopped = "interrupted"
        checkpoint.save(self)
        self.ctx.progress.say("interrupted: the best weights so far are kept")

    def _steps(self, interrupts: Interrupts) -> None:
        total, limit = self.total, self.how.seconds()
        every = self.how.evaluate_every or self.batches.per_epoch
        start = saved = time.monotonic() - self.spent
        count = None if total == math.inf else int(total) - self.step
        if self.stopped != "done":
            return
        stream = self.batches.stream(self.step)
        self.news.start(self.step, self._done(total, limit))
        for taken in self.ctx.progress.track(stream, "finetune", count):
            self.spent = time.monotonic() - start
            done = self._done(total, limit)
            if interrupts.asked or done >= 1 or not self._step(taken, done):
                break
            self.news.tell(self.step, done, self.optimizer.rate)
            if self.step % every == 0 and not self._improves(done):
                break
            if time.monotonic() - saved > 60 * self.how.checkpoint_minutes:
                saved = time.monotonic()
                checkpoint.save(self)
            if self.step >= total:
                break
        if interrupts.asked:
            return
        if self.step % every and self.stopped == "done":
            self._validate()
        checkpoint.save(self)

    def _done(self, total: float, limit: float | None) -> float:
        """Share of the training that is done, by steps or by time, whichever ends it first."""
        return max(self.step / total, self.spent / limit if limit else 0.0)

    def _step(self, taken: Taken, done: float) -> bool:
        rate = share(self.how.schedule, done, self.how.warmup)
        loss = self._gradient(taken)
        if not math.isfinite(loss):
            place = f"batch {self.step % self.batches.per_epoch} of epoch {taken.epoch}"
            self.stopped = f"loss is {loss} at step {self.step}, {place}: {taken}"
            self.ctx.progress.say(f"{self.stopped}; the last good weights are kept")
            return False
        if self.step == 0:
            self._tell_untrained()
        self.news.add(loss)
        self.optimizer.step(rate)
        self.kept.restore()
        self.step += 1
        if self.average:
            self.average.update()
        return True

    def _tell_untrained(self) -> None:
        """Say which weights no gradient reaches, where operators are why."""
        names, operators = without_gradient(self.model, self.module)
        if names and operators:
            self.report["untrained"] = names
            self.ctx.progress.say(
                f"no gradient reaches {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}: "
                f"{', '.join(operators)} let none through"
            )

    def _gradient(self, taken: Taken) -> float:
        """Gradients of one batch; the loss."""
        feeds = to_tensors(taken.batch, self.device)
        feeds = self.augment(feeds, self.augment.view(taken.epoch), taken.rows)
        self.module.train()
        self.optimizer.zero()
        loss = self._loss(feeds, taken)
        if not loss.requires_grad:
            raise no_gradient(self.model)
        torch.autograd.backward(loss)
        return float(loss.item())

    def _loss(self, feeds: dict[str, Tensor], taken: Taken) -> Tensor:
        wanted = self.teach(feeds, taken) if self.teach else {}
        half = self.how.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            made = self.module.run(channels_last(feeds))
        loss: Tensor = self.loss(made, wanted, taken.batch.labels)
        return loss

    def _improves(self, done: float) -> bool:
        """Validate; whether to go on."""
        if self._validate(done):
            self.stalled = 0
            return True
        self.stalled += 1
        if self.how.schedule == "plateau":
            self.optimizer.factor /= 3
        if self.how.patience and self.stalled >= self.how.patience:
            self.stopped = f"no improvement in {self.stalled} validations"
            return False
        return True

    def _validate(self, done: float = 1.0) -> bool:
        """Loss on the items held back; whether it is the lowest, then the weights are kept."""
        with state.swapped(self.module, self.average.weights if self.average else None):
            if self.how.batch_norm == "re-estimated":
                estimate(self.module, self.batches, self.device)
            self.module.eval()
            total, rows = 0.0, 0
            with torch.no_grad():
                for taken in self.batches.held_back():
                    loss = self._loss(to_tensors(taken.batch, self.device), taken)
                    total, rows = total + loss.item() * taken.batch.size, rows + taken.batch.size
            value = total / rows if rows else math.inf
            better = value < self.best_loss
            if better:
                self.best, self.best_loss = state.snapshot(self.module), value
                self.best_step = self.step
        self.news.validated(self.step, value, done, self.optimizer.rate, better=better)
        return better
