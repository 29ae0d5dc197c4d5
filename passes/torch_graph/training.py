"""The loop of the pass `recover`."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trimtab.core.context import Context
from trimtab.core.dataset import Batch, Dataset
from trimtab.core.model import Model

from . import state
from .batches import Batches, augmented, channels_last, make_batches, to_tensors
from .losses import Loss
from .module import TorchGraph, to_module
from .optimizer import Optimizer
from .schedules import share
from .surroundings import (
    default_terms,
    device_of,
    identity_of,
    no_gradient,
    short,
    surroundings,
)
from .teacher import Teach, make_teacher, match_features, match_outputs
from .weights import write_back

if TYPE_CHECKING:
    from trimtab.passes.recover import Recover


def recover(
    how: Recover, model: Model, teacher: Model, data: Dataset, ctx: Context
) -> tuple[Model, dict[str, Any]]:
    """Train a model as a `Recover` says.

    Returns:
        The model with its new weights, and figures for the report.

    Raises:
        TrimtabError: teacher, data or graph do not fit.
    """
    device = device_of(how.device)
    with surroundings(ctx.seed, device, how.threads):
        run = _Run(how, model, teacher, data, ctx, device)
        if how.threads == 0 and device.type == "cpu":
            run.choose_threads()
        run.train()
        return write_back(model, run.module.cpu()), run.report


class _Run:
    def __init__(
        self,
        how: Recover,
        model: Model,
        teacher: Model,
        data: Dataset,
        ctx: Context,
        device: torch.device,
    ) -> None:
        self.how, self.model, self.ctx, self.device = how, model, ctx, device
        self.batches: Batches = make_batches(model, data, how.validation, how.batch, ctx.seed)
        features = match_features(how.features, model, teacher)
        self.module: TorchGraph = to_module(model, [mine for mine, _ in features]).to(device)
        # Convolutions are faster so, by a sixth.
        self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.module.mode.batch_norm = "trained" if how.batch_norm == "trained" else "frozen"
        self.module.mode.dropout = how.dropout
        terms = how.terms() or default_terms(model, data, features=bool(features))
        self.loss, self.teach = self._lesson(terms, teacher, features)
        past = " ".join(step.pass_name for step in model.lineage)
        pruned, clustered = "prune" in past, how.keep_clusters and "cluster" in past
        self.kept = state.Kept(
            self.module, zeros=how.keep_zeros, pruned=pruned, clustered=clustered
        )
        self.identity = identity_of(how, model, teacher, data, ctx.seed)
        self.first = next(iter(self.batches.stream(0)))
        with torch.no_grad():
            feeds = to_tensors(self.first, device)
            self.loss.prepare(self.module.run(feeds), self.teach(feeds))
        self.optimizer = Optimizer(how, self.module, self.loss)
        self.average = state.Average(self.module, how.ema) if how.ema else None
        self.step, self.stalled, self.stopped = 0, 0, "done"
        self.best, self.best_loss, self.best_step = state.snapshot(self.module), math.inf, 0
        self.given = math.inf
        self.report: dict[str, Any] = {"loss": terms, "weights": len(self.module.weights)}

    def _lesson(
        self, terms: dict[str, float], teacher: Model, features: list[tuple[str, str]]
    ) -> tuple[Loss, Teach]:
        """The loss and what runs the teacher; labels alone need none, whatever its outputs are."""
        how, outputs = self.how, [(o.name, o.name) for o in self.model.outputs]
        if set(terms) == {"ce"}:
            return Loss(terms, how.temperature, outputs, features), lambda feeds: feeds
        pairs = match_outputs(self.model, teacher, how.match)
        teach = make_teacher(teacher, [t for _, t in features], self.device, how.threads)
        return Loss(terms, how.temperature, pairs, features), teach

    def choose_threads(self) -> None:
        """As many as make two steps fastest: on a busy machine that may be one."""
        before = state.snapshot(self.module)
        spent = {}
        for count in sorted({1, max(torch.get_num_threads() // 2, 1), torch.get_num_threads()}):
            torch.set_num_threads(count)
            self._gradient(self.first, 0)
            start = time.perf_counter()
            for _ in range(2):
                self._gradient(self.first, 0)
            spent[count] = time.perf_counter() - start
        self.optimizer.forget()
        state.restore(self.module, before)
        torch.set_num_threads(min(spent, key=lambda c: spent[c]))

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
        self._resume()
        try:
            if self.step == 0:
                self._validate()
                self.given = self.best_loss
            self._steps()
        except KeyboardInterrupt:
            self.stopped = "interrupted"
            self._save()
            self.ctx.progress.say("interrupted: the best weights so far are kept")
        state.restore(self.module, self.best)
        self.module.eval()
        self.report |= {
            "steps": self.step,
            "best_step": self.best_step,
            "validation": [short(self.given), short(self.best_loss)],
            "items": [len(self.batches.training), len(self.batches.validation)],
            "stopped": self.stopped,
        }

    def _steps(self) -> None:
        total, limit = self.total, self.how.seconds()
        every = self.how.evaluate_every or self.batches.per_epoch
        start = saved = time.monotonic()
        count = None if total == math.inf else int(total) - self.step
        stream = self.batches.stream(self.step)
        for batch in self.ctx.progress.track(stream, "recover", count):
            passed = time.monotonic() - start
            done = max(self.step / total, passed / limit if limit else 0.0)
            if done >= 1:
                break
            if not self._step(batch, done):
                break
            if self.step % every == 0 and not self._improves():
                break
            if time.monotonic() - saved > 60 * self.how.checkpoint_minutes:
                saved = time.monotonic()
                self._save()
            if self.step >= total:
                break
        if self.step % every and self.stopped == "done":
            self._validate()
        self._save()

    def _step(self, batch: Batch, done: float) -> bool:
        rate = share(self.how.schedule, done, self.how.warmup)
        loss = self._gradient(batch, self.step)
        if not math.isfinite(loss):
            self.stopped = f"loss is {loss} at step {self.step}, rows of {self._where()}"
            self.ctx.progress.say(f"{self.stopped}; the last good weights are kept")
            return False
        self.optimizer.step(rate)
        self.kept.restore()
        self.step += 1
        if self.average:
            self.average.update()
        return True

    def _where(self) -> str:
        epoch, batch = divmod(self.step, self.batches.per_epoch)
        return f"batch {batch} of epoch {epoch}"

    def _gradient(self, batch: Batch, step: int) -> float:
        """Gradients of one batch; the loss."""
        feeds = to_tensors(batch, self.device)
        generator = torch.Generator().manual_seed(self.ctx.seed * 1_000_003 + step)
        feeds = augmented(feeds, self.how.augment, generator)
        self.module.train()
        self.optimizer.zero()
        loss = self._loss(feeds, batch)
        if not loss.requires_grad:
            raise no_gradient(self.model)
        torch.autograd.backward(loss)
        return float(loss.item())

    def _loss(self, feeds: dict[str, Tensor], batch: Batch) -> Tensor:
        wanted = self.teach(feeds)
        half = self.how.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            made = self.module.run(channels_last(feeds))
        loss: Tensor = self.loss(made, wanted, batch.labels)
        return loss

    def _improves(self) -> bool:
        """Validate; whether to go on."""
        if self._validate():
            self.stalled = 0
            return True
        self.stalled += 1
        if self.how.schedule == "plateau":
            self.optimizer.factor /= 3
        if self.how.patience and self.stalled >= self.how.patience:
            self.stopped = f"no improvement in {self.stalled} validations"
            return False
        return True

    def _validate(self) -> bool:
        """Loss on the items held back; whether it is the lowest, then the weights are kept."""
        with state.swapped(self.module, self.average.weights if self.average else None):
            if self.how.batch_norm == "re-estimated":
                self._estimate()
            self.module.eval()
            total, rows = 0.0, 0
            with torch.no_grad():
                for batch in self.batches.held_back():
                    loss = self._loss(to_tensors(batch, self.device), batch)
                    total, rows = total + loss.item() * batch.size, rows + batch.size
            value = total / rows if rows else math.inf
            better = value < self.best_loss
            if better:
                self.best, self.best_loss = state.snapshot(self.module), value
                self.best_step = self.step
        rate = self.optimizer.rate
        self.ctx.progress.say(
            f"step {self.step}: validation loss {value:.5g}"
            f"{' (best)' if better else ''}, rate {rate:.2g}"
        )
        return better

    def _estimate(self) -> None:
        """Statistics of BatchNormalization as the mean over some training batches."""
        mode = self.module.mode
        self.module.train()
        mode.batch_norm = "trained"
        try:
            with torch.no_grad():
                for count, batch in enumerate(self.batches.stream(0), 1):
                    mode.momentum = 1 / count  # a mean over all batches
                    self.module.run(to_tensors(batch, self.device))
                    if count >= min(self.batches.per_epoch, 20):
                        break
        finally:
            mode.batch_norm, mode.momentum = "frozen", 0.1

    def _save(self) -> None:
        if self.how.checkpoint is None:
            return
        problem = state.save_checkpoint(
            Path(self.how.checkpoint),
            {
                "digest": self.identity,
                "weights": state.snapshot(self.module),
                "average": self.average.weights if self.average else None,
                "count": self.average.count if self.average else 0,
                "loss": self.loss.state_dict(),
                "optimizer": self.optimizer.state(),
                "best": self.best,
                "numbers": [self.step, self.best_step, self.stalled, self.best_loss, self.given],
                "random": torch.get_rng_state(),
            },
        )
        if problem:
            self.ctx.progress.say(problem)

    def _resume(self) -> None:
        if not (self.how.resume and self.how.checkpoint):
            return
        found = state.load_checkpoint(Path(self.how.checkpoint), self.identity)
        if found is None:
            return
        state.restore(self.module, found["weights"])
        if self.average and found["average"]:
            self.average.weights, self.average.count = found["average"], found["count"]
        self.loss.load_state_dict(found["loss"])
        self.optimizer.load(found["optimizer"])
        self.best = found["best"]
        self.step, self.best_step, self.stalled, self.best_loss, self.given = found["numbers"]
        torch.set_rng_state(found["random"])
