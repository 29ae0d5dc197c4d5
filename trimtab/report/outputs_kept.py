"""Comparison of what a model answers before and after passes that lose something by design."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from trimtab.core.context import Context
from trimtab.core.data import Array, Floats, tensors
from trimtab.core.dataset import Dataset
from trimtab.core.errors import InputError, PassError, RunError
from trimtab.core.metrics.fidelity import fidelity_of
from trimtab.core.metrics.metric import Pooled
from trimtab.core.model import Model
from trimtab.core.ort.feeding import Feeding, FeedSource, feeding
from trimtab.core.ort.other_tokens import OtherTokens
from trimtab.core.ort.session import Outputs, SessionConfig, build_session, run
from trimtab.core.text import counted
from trimtab.passes.check import SPILL_BYTES

#: Items that are compared, and seconds after which no further one is.
ITEMS, SECONDS = 8, 20.0
#: Words for items whose tokens were drawn from the whole table.
OTHERS = "on tokens that the data lack"
#: Part of the answers below which, and squared relative error above which, a model is ruined.
FIDELITY, ERROR = 0.5, 0.2


@dataclass(frozen=True)
class OutputsKept:
    """Part of the original's answers that a model keeps.

    Attributes:
        fidelity: value of the metric of that name; of several outputs the worst.
        error: squared error relative to the output's size; of several outputs the largest.
        fed: what was fed.
        log_error: the same of the logarithms of probabilities, where inputs are random: noise is
            no word and no object, and all that is sure of nothing decides alike on it.
        interval: 95% interval of the fidelity; None where it is unknown.
        others: fidelity on tokens that the data lack; None where they have most.
    """

    fidelity: float
    error: float
    fed: str
    log_error: float = 0.0
    interval: tuple[float, float] | None = None
    others: float | None = None

    @classmethod
    def of(cls, before: Model, after: Model, ctx: Context) -> OutputsKept:
        """Run both on items of the data, else on random inputs.

        Raises:
            InputError: the original runs on nothing that is known or found.
            RunError: it fails on the data.
            PassError: the original runs on them, and the result does not.
        """
        source = ctx.source(before)
        count = ITEMS if ctx.data is None else min(ITEMS, len(ctx.data))
        config = SessionConfig.for_evaluation(ctx.target)
        # One after the other: of large models only one is in memory.
        fed, wanted = _answers(before, source, count, config)
        got = _answers_again(after, fed, config, before.name)
        wanted = wanted[: len(got)]
        if not wanted or not wanted[0]:
            raise InputError("no output is a tensor", where=before.name)
        found = _compared(before, got, wanted)
        loss = max((output.loss for output in found.outputs), default=0.0)
        told = _told(fed[0], len(wanted), ctx.data)
        logs = 0.0 if ctx.data else _log_error(wanted, got)
        others = None if ctx.data is None else _on_other_tokens(before, after, fed, config)
        return cls(found.value, loss, told, logs, found.interval, others)

    @property
    def ruined(self) -> bool:
        """True where most of the original's answers are lost."""
        lost = self.error > ERROR or self.log_error > ERROR
        return self.fidelity < FIDELITY or lost

    def __str__(self) -> str:
        return (
            f"against the original: fidelity {self.fidelity:.3f}, "
            f"squared relative error {self.error:.3g} (on {self.fed}){self._others()}"
        )

    def _others(self) -> str:
        return "" if self.others is None else f"; {self.others:.3f} {OTHERS}"

    @property
    def least(self) -> float:
        """Fidelity on the data, or on tokens that they lack where that is less."""
        return self.fidelity if self.others is None else min(self.fidelity, self.others)


def _compared(before: Model, got: Sequence[Outputs], wanted: Sequence[Outputs]) -> Pooled:
    metric = fidelity_of(before, wanted)
    assert metric.finish is not None
    found = metric.finish([metric.score(*pair) for pair in zip(got, wanted, strict=True)])
    assert isinstance(found, Pooled)
    return found


def _on_other_tokens(
    before: Model, after: Model, fed: Sequence[Feeding], config: SessionConfig
) -> float | None:
    """Return the fidelity with other tokens of the table; None where there are none."""
    tokens = OtherTokens.of(before, [each.feeds for each in fed])
    if not tokens:
        return None
    others = [replace(each, feeds=tokens.put_into(each.feeds, n)) for n, each in enumerate(fed)]
    wanted = _answers_again(before, others, config, before.name)
    got = _answers_again(after, others, config, before.name)
    count = min(len(got), len(wanted))
    return _compared(before, got[:count], wanted[:count]).value if count else None


def _answers(
    model: Model, source: FeedSource, count: int, config: SessionConfig
) -> tuple[list[Feeding], list[Outputs]]:
    """Return what the original is fed and what it answers, for half of the time at most."""
    if model.weight_bytes > SPILL_BYTES:  # which would be copied for a few runs
        config = config.for_one_run(model)
    session, started = build_session(model, config), time.monotonic()
    fed: list[Feeding] = []
    answers: list[Outputs] = []
    for number in range(count):
        fed.append(feeding(model, source, seed=number, session=session))
        answers.append(tensors(run(session, fed[-1].feeds)))
        if time.monotonic() - started > SECONDS / 2:
            break
    return fed, answers


def _answers_again(
    model: Model, fed: Sequence[Feeding], config: SessionConfig, where: str
) -> list[Outputs]:
    """Return what the result answers, for half of the time at most.

    Raises:
        PassError: it does not run on what the original ran on.
    """
    session, started = build_session(model, config), time.monotonic()
    answers: list[Outputs] = []
    for each in fed:
        try:
            answers.append(tensors(run(session, each.feeds)))
        except RunError as error:
            raise PassError(
                f"the result does not run on {each}: {error.what}",
                where=where,
                hint="This is a bug of trimtab; nothing was written. Please report it",
            ) from error
        if time.monotonic() - started > SECONDS / 2:
            break
    return answers


def _log_error(wanted: Sequence[Outputs], got: Sequence[Outputs]) -> float:
    """Return the squared error of log-probabilities by their variance, of the worst output."""
    worst = 0.0
    for name, truth in wanted[0].items():
        probabilities = truth.dtype.kind == "f" and truth.size > 1
        if not probabilities or truth.min() < 0 or truth.max() > 1:
            continue
        if any(outputs[name].shape != truth.shape for outputs in (*wanted, *got)):
            continue
        logs = [np.stack([_logs(outputs[name]) for outputs in part]) for part in (wanted, got)]
        variance = float(logs[0].var())
        worst = max(worst, float(np.square(logs[0] - logs[1]).mean()) / max(variance, 1e-12))
    return worst


def _logs(probabilities: Array) -> Floats:
    return np.log(np.clip(probabilities.astype(np.float64).reshape(-1), 1e-6, 1.0))


def outputs_kept(before: Model, after: Model, ctx: Context) -> OutputsKept | str:
    """Return what a model keeps, or the reason why it cannot be told.

    Raises:
        PassError: the original runs on the inputs, and the result does not.
    """
    try:
        return OutputsKept.of(before, after, ctx)
    except (InputError, RunError) as error:
        return f"its outputs were not compared with the original's: {error}"


def _told(first: Feeding, count: int, data: Dataset | None) -> str:
    if data is not None:
        held_out = " held out" if data.part == "held out" else ""
        return f"{counted(count, 'item')}{held_out}, {first.why}"
    return f"{count} random inputs: {first}; --data judges on real ones"
