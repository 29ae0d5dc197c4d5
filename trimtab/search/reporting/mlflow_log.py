"""Export of an outcome to mlflow, where that is installed: figures, constraints, and files."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from trimtab.core.errors import MissingExtraError

from ..ranking import drop
from ..result import OutcomeData, Result


def need_mlflow() -> Any:
    """Import mlflow.

    Raises:
        MissingExtraError: mlflow is not installed.
    """
    try:
        import mlflow
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "--mlflow needs mlflow, which is not installed",
            hint="Install it with: pip install mlflow-skinny",
        ) from error
    return mlflow


def log_outcome(outcome: OutcomeData, folder: str | Path) -> None:
    """Log to the active run, or to a new one where there is none.

    Constraints become parameters, figures metrics, and the files that `save_outcome` wrote to the
    folder artifacts.
    """
    mlflow = need_mlflow()
    active = mlflow.active_run() is not None
    with nullcontext() if active else mlflow.start_run(run_name="trimtab optimize"):
        mlflow.log_params({k: str(v) for k, v in outcome.constraints.to_json().items()})
        mlflow.log_metrics({k: float(v) for k, v in outcome.effort.items()})
        if outcome.chosen is not None:
            mlflow.log_param("chosen", outcome.chosen.name)
            mlflow.log_metrics(_reached(outcome.chosen, outcome.original))
        mlflow.log_artifacts(str(folder))


def _reached(chosen: Result, original: Result) -> dict[str, float]:
    reached = {"size_bytes": float(chosen.size_bytes)}
    if chosen.test is not None:
        reached |= {chosen.test.metric: chosen.test.value, "drop": drop(chosen, original, "test")}
    comparison = chosen.confirmation or chosen.comparison
    if comparison is not None:
        reached |= {"speedup": comparison.ratio, "speedup_low": comparison.low}
    return reached
