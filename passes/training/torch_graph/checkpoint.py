"""A training run to a file, and on from there."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from . import state

if TYPE_CHECKING:
    from .training import Training

#: Fields that say for how long and where, not what.
_SURROUNDINGS = (
    "resume",
    "checkpoint",
    "checkpoint_minutes",
    "data",
    "teacher",
    "time",
    "threads",
    "cache",
)


def save(run: Training) -> None:
    """Write the checkpoint, where one is wanted; a full disk is said and no reason to end."""
    if run.how.checkpoint is None:
        return
    content = {
        "digest": _identity(run),
        "weights": state.snapshot(run.module),
        "average": run.average.weights if run.average else None,
        "count": run.average.count if run.average else 0,
        "loss": run.loss.state_dict(),
        "optimizer": run.optimizer.state(),
        "best": run.best,
        "numbers": [run.step, run.best_step, run.stalled, run.best_loss, run.given, run.spent],
        "stopped": run.stopped,
        "random": torch.get_rng_state(),
    }
    problem = state.save_checkpoint(Path(run.how.checkpoint), content)
    if problem:
        run.ctx.progress.say(problem)


def resume(run: Training) -> None:
    """Go on from the checkpoint, where one is wanted and there.

    Raises:
        ModelError: it is of another run.
    """
    how = run.how
    if not (how.resume and how.checkpoint):
        return
    found = state.load_checkpoint(Path(how.checkpoint), _identity(run), run.device)
    if found is None:
        return
    state.restore(run.module, found["weights"])
    if run.average and found["average"]:
        run.average.weights, run.average.count = found["average"], found["count"]
    run.loss.load_state_dict(found["loss"])
    run.optimizer.load(found["optimizer"])
    run.best = found["best"]
    run.step, run.best_step, run.stalled, run.best_loss, run.given, run.spent = found["numbers"]
    torch.set_rng_state(found["random"].cpu())
    # A run that ended by itself does not begin to train again; an interrupted one does.
    run.stopped = "done" if found["stopped"] == "interrupted" else found["stopped"]
    run.ctx.progress.say(f"goes on from step {run.step} of {how.checkpoint}")


def _identity(run: Training) -> str:
    """What a checkpoint belongs to: everything but how long it trains and where things are."""
    plain = {k: v for k, v in run.how.to_json().items() if k not in _SURROUNDINGS}
    parts = [
        json.dumps(plain, sort_keys=True),
        run.begun.digest,
        run.teacher.digest,
        run.data.digest,
        str(run.ctx.seed),
        str(run.augment.views),
    ]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()
