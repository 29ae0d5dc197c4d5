"""Training loop of the pass `finetune`."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.metrics.recognition import output_kinds
from trimtab.core.model import Model

from ...graph.forms.batch_norm_fold import fold_norms
from ...graph.forms.batch_norm_unfold import Restored, restore_norms
from . import checkpoint, state
from .augment import Augment, resolve_augmentation
from .batches import (
    BatchSampler,
    DrawnBatch,
    channels_last,
    fitted_rows,
    make_batches,
    reestimate_batch_norm,
    to_tensors,
    weights_channels_last,
)
from .environment import (
    FEW_STEPS,
    default_terms,
    fastest_threads,
    no_gradient_error,
    select_device,
    six_digits,
    training_environment,
    weights_without_gradient,
)
from .interrupts import Interrupts
from .log import TrainingLog
from .losses import Loss
from .module import TorchGraph, to_module
from .norms import initialize_norms
from .optimizer import Optimizer
from .options import FinetuneOptions
from .schedules import learning_rate_share
from .teacher import (
    TeacherFunction,
    TeacherOutputs,
    match_features,
    match_inputs,
    match_outputs,
    open_cache,
    teacher_function,
)
from .weights import write_back

#: Views of an augmented item where teacher outputs are kept and `views` is not given.
CACHED_VIEWS = 4
#: Rows on which the teacher's outputs are measured.
MEASURED_ROWS = 64


def train_graph(
    options: FinetuneOptions, model: Model, teacher: Model, data: Dataset, ctx: Context
) -> tuple[Model, dict[str, Any]]:
    """Train a model as the options say.

    Returns:
        The model with its new weights, and figures for the report.

    Raises:
        TrimtabError: teacher, data or graph do not fit.
    """
    device = select_device(options.device)
    with training_environment(ctx.seed, device, options.threads):
        run = TrainingRun(options, model, teacher, data, ctx, device)
        run.choose_threads()
        run.train()
        trained = write_back(run.model, run.module.cpu())
        if options.fold and options.batch_norm != "frozen" and not run.constraints.clusters:
            trained, folded = fold_norms(trained)
            run.report |= {"folded": folded} if folded else {}
        return trained, run.report


class TrainingRun:
    """A module in training, the data and the teacher it learns from, and its progress."""

    def __init__(
        self,
        options: FinetuneOptions,
        model: Model,
        teacher: Model,
        data: Dataset,
        ctx: Context,
        device: torch.device,
    ) -> None:
        self.options, self.teacher, self.data = options, teacher, data
        self.ctx, self.device = ctx, device
        self.source = model
        past = " ".join(step.pass_name for step in model.lineage)
        pruned, clustered = "prune" in past, options.keep_clusters and "cluster" in past
        norms: list[Restored] = []
        # Folding gives each channel a factor of its own, and no two weights would stay equal.
        if options.batch_norm == "restored" and not clustered:
            model, norms = restore_norms(model)
        self.model = model
        self.features = match_features(options.features, model, teacher)
        self.batches: BatchSampler = make_batches(
            model, data, options.validation, options.batch, ctx.seed, fitted_rows(model, data)
        )
        own_features = [own for own, _ in self.features]
        self.module: TorchGraph = to_module(model, own_features).to(device)
        weights_channels_last(self.module)
        learning = options.batch_norm in {"trained", "restored"}
        self.module.mode.batch_norm = "trained" if learning else "frozen"
        self.module.mode.dropout = options.dropout
        terms = options.terms() or default_terms(model, data, features=bool(self.features))
        self.augment = self._make_augment(taught=set(terms) != {"ce"})
        self.loss, self.teacher_outputs = self._make_loss(terms, options.threads)
        self.constraints = state.WeightConstraints(
            self.module, zeros=options.keep_zeros, pruned=pruned, clustered=clustered
        )
        initialize_norms(self.module, norms, self.batches, device)
        self.first = next(iter(self.batches.stream(0)))
        with torch.no_grad():
            feeds = to_tensors(self.first.batch, device)
            # Not from the cache: these feeds are not a view of their items.
            wanted = self.teacher_outputs.compute(feeds) if self.teacher_outputs else {}
            self.loss.prepare(self.module.run(feeds), wanted)
            self._measure_teacher()
        self.optimizer = Optimizer(options, self.module, self.loss)
        self.average = state.WeightAverage(self.module, options.ema) if options.ema else None
        self.state, self.best = state.TrainingState(), state.snapshot(self.module)
        self.log = TrainingLog(ctx.progress, self.batches.size)
        self.report: dict[str, Any] = {"loss": terms, "weights": len(self.module.weights)}
        self.report |= {"restored": len(norms)} if norms else {}

    def _measure_teacher(self) -> None:
        """Tell the loss what the teacher's outputs are, and how large."""
        found: list[dict[str, Tensor]] = []
        batches = self.batches.validation_batches() if self.teacher_outputs else iter(())
        rows = 0
        for drawn in batches:
            assert self.teacher_outputs is not None
            found.append(self.teacher_outputs(to_tensors(drawn.batch, self.device), drawn))
            rows += drawn.batch.size
            if rows >= MEASURED_ROWS:
                break
        if found:
            outputs = [output.name for output in self.teacher.outputs]
            arrays = [{n: b[n].float().cpu().numpy() for n in outputs if n in b} for b in found]
            self.loss.measure(found, output_kinds(self.teacher, arrays))

    def _make_augment(self, *, taught: bool) -> Augment:
        mode = resolve_augmentation(self.model, self.options.augment, taught=taught)
        views = self.options.views or (CACHED_VIEWS if self.options.cache else 0)
        source = self.data.source
        return Augment(mode, self.ctx.seed, views, 0 if source.batched else source.count)

    def _make_loss(
        self, terms: dict[str, float], threads: int
    ) -> tuple[Loss, TeacherOutputs | None]:
        """Return the loss and what runs the teacher; a loss of labels alone needs none."""
        options = self.options
        if set(terms) == {"ce"}:
            outputs = [(o.name, o.name) for o in self.model.outputs]
            return Loss(terms, options.temperature, outputs, self.features), None
        matched = match_outputs(self.model, self.teacher, options.match)
        if terms.keys() - {"ce", "features"} and not any(
            output.dtype.is_floating_point() for output in self.model.outputs
        ):
            raise no_gradient_error(self.model)
        compute = self._teacher_function(threads)
        features = [theirs for _, theirs in self.features]
        cache = open_cache(
            options.cache, self.teacher, self.data, features, self.augment, self.ctx.progress.say
        )
        loss = Loss(terms, options.temperature, matched, self.features)
        return loss, TeacherOutputs(compute, self.augment, cache, self.device)

    def _teacher_function(self, threads: int) -> TeacherFunction:
        inputs = match_inputs(self.model, self.teacher, self.options.match)
        features = [theirs for _, theirs in self.features]
        return teacher_function(self.teacher, features, inputs, self.device, threads)

    def choose_threads(self) -> None:
        """Set the number of threads with which steps are fastest, unless one was given."""
        long = self.total >= FEW_STEPS or self.options.time is not None
        if self.options.threads or self.device.type != "cpu" or not long:
            return
        before = state.snapshot(self.module)
        chosen = fastest_threads(lambda: self._gradient(self.first))
        self.optimizer.reset()
        state.restore(self.module, before)
        torch.set_num_threads(chosen)
        if self.teacher_outputs is not None and chosen > 1:
            self.teacher_outputs.compute = self._teacher_function(chosen)
        self.report["threads"] = chosen

    @property
    def total(self) -> float:
        """Steps to take; infinite where only a time is given."""
        options = self.options
        if options.steps is not None:
            return options.steps
        if options.epochs is None and options.time is not None:
            return math.inf
        return max(math.ceil((options.epochs or 1) * self.batches.per_epoch), 1)

    def train(self) -> None:
        """Take all steps; afterwards the module holds the best weights."""
        self._resume()
        try:
            with Interrupts(self.ctx.progress.say) as interrupts:
                if self.state.step == 0:
                    self._validate()
                    self.state.initial_loss = self.state.best_loss
                self._take_steps(interrupts)
            if interrupts.requested:
                self._interrupted()
        except KeyboardInterrupt:
            self._interrupted()
        state.restore(self.module, self.best)
        self.module.eval()
        self.report |= {
            "steps": self.state.step,
            "best_step": self.state.best_step,
            "validation": [six_digits(self.state.initial_loss), six_digits(self.state.best_loss)],
            "items": [len(self.batches.training), len(self.batches.validation)],
            "augment": self.augment.mode,
            "stopped": self.state.stopped,
        }

    def _interrupted(self) -> None:
        self.state.stopped = "interrupted"
        self._save()
        self.ctx.progress.say("interrupted: the best weights so far are kept")

    def _checkpoint_digest(self) -> str:
        return checkpoint.identity(
            self.options.checkpoint_fields(),
            self.source.digest,
            self.teacher.digest,
            self.data.digest,
            str(self.ctx.seed),
            str(self.augment.views),
        )

    def _save(self) -> None:
        """Write the checkpoint where one is wanted; a full disk does not end training."""
        file = self.options.checkpoint
        problem = file and checkpoint.save(self, Path(file), self._checkpoint_digest())
        if problem:
            self.ctx.progress.say(problem)

    def _resume(self) -> None:
        file = self.options.checkpoint
        if not (self.options.resume and file):
            return
        if checkpoint.resume(self, Path(file), self._checkpoint_digest(), self.device):
            self.ctx.progress.say(f"resumed from step {self.state.step} of {file}")

    def _take_steps(self, interrupts: Interrupts) -> None:
        total, limit = self.total, self.options.seconds()
        every = self.options.evaluate_every or self.batches.per_epoch
        start = saved = time.monotonic() - self.state.spent
        count = None if total == math.inf else int(total) - self.state.step
        if self.state.stopped != "done":
            return
        stream = self.batches.stream(self.state.step)
        self.log.start(self.state.step, self._share_done(total, limit))
        for drawn in self.ctx.progress.track(stream, "finetune", count):
            self.state.spent = time.monotonic() - start
            done = self._share_done(total, limit)
            if interrupts.requested or done >= 1 or not self._step(drawn, done):
                break
            self.log.report_progress(self.state.step, done, self.optimizer.rate)
            if self.state.step % every == 0 and not self._validate_and_go_on(done):
                break
            if time.monotonic() - saved > 60 * self.options.checkpoint_minutes:
                saved = time.monotonic()
                self._save()
            if self.state.step >= total:
                break
        if interrupts.requested:
            return
        if self.state.step % every and self.state.stopped == "done":
            self._validate()
        self._save()

    def _share_done(self, total: float, limit: float | None) -> float:
        """Return the share of the training that is done, by steps or time, whichever is more."""
        return max(self.state.step / total, self.state.spent / limit if limit else 0.0)

    def _step(self, drawn: DrawnBatch, done: float) -> bool:
        """Take a step; return whether its loss is finite."""
        rate = learning_rate_share(self.options.schedule, done, self.options.warmup)
        loss = self._gradient(drawn)
        if not math.isfinite(loss):
            place = f"batch {self.state.step % self.batches.per_epoch} of epoch {drawn.epoch}"
            self.state.stopped = f"loss is {loss} at step {self.state.step}, {place}: {drawn}"
            self.ctx.progress.say(f"{self.state.stopped}; the last good weights are kept")
            return False
        if self.state.step == 0:
            self._report_untrained()
        self.log.add(loss)
        self.optimizer.step(rate)
        self.constraints.apply()
        self.state.step += 1
        if self.average:
            self.average.update()
        return True

    def _report_untrained(self) -> None:
        """Report the weights that no gradient reaches, where operators are the reason."""
        names, operators = weights_without_gradient(self.model, self.module)
        if names and operators:
            self.report["untrained"] = names
            self.ctx.progress.say(
                f"no gradient reaches {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}: "
                f"{', '.join(operators)} let none through"
            )

    def _gradient(self, drawn: DrawnBatch) -> float:
        """Compute the gradients of a batch; return its loss."""
        feeds = to_tensors(drawn.batch, self.device)
        feeds = self.augment(feeds, self.augment.view(drawn.epoch), drawn.rows)
        self.module.train()
        self.optimizer.zero_grad()
        loss = self._loss(feeds, drawn)
        if not loss.requires_grad:
            raise no_gradient_error(self.model)
        torch.autograd.backward(loss)
        return float(loss.item())

    def _loss(self, feeds: dict[str, Tensor], drawn: DrawnBatch) -> Tensor:
        wanted = self.teacher_outputs(feeds, drawn) if self.teacher_outputs else {}
        half = self.options.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            outputs = self.module.run(channels_last(feeds))
        loss: Tensor = self.loss(outputs, wanted, drawn.batch.labels)
        return loss

    def _validate_and_go_on(self, done: float) -> bool:
        """Validate; return whether patience lasts."""
        if self._validate(done):
            self.state.stalled = 0
            return True
        self.state.stalled += 1
        if self.options.schedule == "plateau":
            self.optimizer.factor /= 3
        if self.options.patience and self.state.stalled >= self.options.patience:
            self.state.stopped = f"no improvement in {self.state.stalled} validations"
            return False
        return True

    def _validate(self, done: float = 1.0) -> bool:
        """Compute the loss on the validation items; keep the weights where it is the lowest."""
        with state.swapped(self.module, self.average.weights if self.average else None):
            if self.options.batch_norm == "re-estimated":
                reestimate_batch_norm(self.module, self.batches, self.device)
            self.module.eval()
            total, rows = 0.0, 0
            with torch.no_grad():
                for drawn in self.batches.validation_batches():
                    loss = self._loss(to_tensors(drawn.batch, self.device), drawn)
                    total, rows = total + loss.item() * drawn.batch.size, rows + drawn.batch.size
            value = total / rows if rows else math.inf
            better = value < self.state.best_loss
            if better:
                self.best, self.state.best_loss = state.snapshot(self.module), value
                self.state.best_step = self.state.step
        rate = self.optimizer.rate
        self.log.report_validation(self.state.step, value, done, rate, better=better)
        return better
