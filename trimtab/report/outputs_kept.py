"""Comparison of what a model answers before and after passes that lose something by design."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from trimtab.core.context import Context
from trimtab.core.errors import InputError, PassError, RunError
from trimtab.core.metrics.fidelity import fidelity_of
from trimtab.core.metrics.metric import Pooled
from trimtab.core.model import Model
from trimtab.core.ort.feeding import Feeding, feeding
from trimtab.core.ort.session import Outputs, SessionConfig, build_session, run

#: Items that are compared, and seconds after which no further one is.
ITEMS, SECONDS = 8, 20.0
#: Part of the answers below which, and squared relative error above which, a model is ruined.
FIDELITY, ERROR = 0.5, 0.2


@dataclass(frozen=True)
class OutputsKept:
    """Part of the original's answers that a model keeps.

    Attributes:
        fidelity: value of the metric of that name; of several outputs the worst.
        error: squared error relative to the output's size; of several outputs the largest.
        fed: what was fed.
    """

    fidelity: float
    error: float
    fed: str

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
        old, new = build_session(before, config), build_session(after, config)
        first, started = feeding(before, source, session=old), time.monotonic()
        wanted, got = [], []
        for number in range(count):
            fed = feeding(before, source, seed=number, session=old)
            wanted.append(_tensors(run(old, fed.feeds)))
            try:
                got.append(_tensors(run(new, fed.feeds)))
            except RunError as error:
                raise PassError(
                    f"the result does not run on {fed}: {error.what}",
                    where=before.name,
                    hint="This is a bug of trimtab; nothing was written. Please report it",
                ) from error
            if time.monotonic() - started > SECONDS:
                break
        if not wanted or not wanted[0]:
            raise InputError("no output is a tensor", where=before.name)
        metric = fidelity_of(before, wanted)
        assert metric.finish is not None
        found = metric.finish([metric.score(*pair) for pair in zip(got, wanted, strict=True)])
        assert isinstance(found, Pooled)
        loss = max((output.loss for output in found.outputs), default=0.0)
        return cls(found.value, loss, _told(first, len(wanted), data=ctx.data is not None))

    @property
    def ruined(self) -> bool:
        """True where most of the original's answers are lost."""
        return self.fidelity < FIDELITY or self.error > ERROR

    def __str__(self) -> str:
        return (
            f"against the original: fidelity {self.fidelity:.3f}, "
            f"squared relative error {self.error:.3g} (on {self.fed})"
        )


def _tensors(outputs: Outputs) -> Outputs:
    return {name: array for name, array in outputs.items() if isinstance(array, np.ndarray)}


def outputs_kept(before: Model, after: Model, ctx: Context) -> OutputsKept | str:
    """Return what a model keeps, or the reason why it cannot be told.

    Raises:
        PassError: the original runs on the inputs, and the result does not.
    """
    try:
        return OutputsKept.of(before, after, ctx)
    except (InputError, RunError) as error:
        return f"its outputs were not compared with the original's: {error}"


def _told(first: Feeding, count: int, *, data: bool) -> str:
    if data:
        return f"{count} items, {first.why}"
    return f"{count} random inputs: {first}; --data judges on real ones"
