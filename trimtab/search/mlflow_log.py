"""Export of an outcome to mlflow, where that is installed: figures, constraints, and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trimtab.core.errors import MissingExtraError

from .ranking import drop
from .result import OutcomeData


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

    Args:
        outcome: its constraints become parameters, its figures metrics.
        folder: folder that `save_outcome` wrote; its files become artifacts.
    """
    mlflow = need_mlflow()
    active = mlflow.active_run()
    if active is None:
        with mlflow.start_run(run_name="trimtab optimize"):
            _log(mlflow, outcome, Path(folder))
    else:
        _log(mlflow, outcome, Path(folder))


def _log(mlflow: Any, outcome: OutcomeData, folder: Path) -> None:
    mlflow.log_params({k: str(v) for k, v in outcome.constraints.to_json().items()})
    mlflow.log_metrics({k: float(v) for k, v in outcome.effort.items()})
    chosen = outcome.chosen
    if chosen is not None:
        mlflow.log_param("chosen", chosen.name)
        reached = {"size_bytes": float(chosen.size_bytes)}
        if chosen.test is not None:
            reached[chosen.test.metric] = chosen.test.value
            reached["drop"] = drop(chosen, outcome.original, "test")
        comparison = chosen.confirmation or chosen.comparison
        if comparison is not None:
            reached |= {"speedup": comparison.ratio, "speedup_low": comparison.low}
        mlflow.log_metrics(reached)
    mlflow.log_artifacts(str(folder))
