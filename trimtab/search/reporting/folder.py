"""The folder that a search writes: model, recipe, evidence, budgets for CI, and the frontier."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

from trimtab.core.errors import OutputError
from trimtab.core.files import check_folder, check_output_file, write_text, writing

from ..result import OutcomeData, Result
from .budgets import budgets_text

FRONTIER = "frontier"
#: File of an original that is not a file: a module, or a model in memory.
ORIGINAL = "float.onnx"


def check_output(folder: str | Path, *sources: str, force: bool = False) -> None:
    """Refuse a folder that cannot be written before hours are spent, not after.

    Raises:
        OutputError: it cannot be made or written, its disk is full, or a source is one of the files
            that will be written there.
    """
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise OutputError("is a file, not a folder", where=str(folder), hint="Name a folder")
    if not force:
        check_output_file(path / "model.onnx", *sources, parents=True)
    check_folder(path)


def save_outcome(outcome: OutcomeData, folder: str | Path) -> list[Path]:
    """Write `model.onnx`, `recipe.yaml`, `budgets.yaml`, `frontier/` and `result.json`.

    Each file appears whole or not at all; `result.json` comes last, so that where it exists all
    files that it names exist too. Budgets are left out where neither the original nor the data can
    be found again.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    outcome, written = _with_original(outcome, folder)
    if outcome.chosen is not None and outcome.chosen.recipe is not None:
        written.append(outcome.model.save(folder / "model.onnx"))
        written.append(outcome.chosen.recipe.save(folder / "recipe.yaml"))
        text, path = budgets_text(outcome, folder), folder / "budgets.yaml"
        if text is not None:
            write_text(path, text)
            written.append(path)
    written += _save_frontier(outcome, folder)
    path = folder / "result.json"
    write_text(path, json.dumps(outcome.to_json(), indent=1) + "\n")
    return [*written, path]


def _with_original(outcome: OutcomeData, folder: Path) -> tuple[OutcomeData, list[Path]]:
    """Save an original that is not a file, and return the outcome with recipes that name it."""
    model = outcome.original.model
    if model is None or outcome.chosen is None or Path(model.name).is_file():
        return outcome, []
    path = model.save(folder / ORIGINAL)

    def named(result: Result) -> Result:
        if result.recipe is None:
            return result
        return replace(result, recipe=replace(result.recipe, model=str(path)))

    results = {id(r): named(r) for r in outcome.results}
    chosen = results.get(id(outcome.chosen), named(outcome.chosen))
    return replace(outcome, results=tuple(results.values()), chosen=chosen), [path]


def file_name(name: str) -> str:
    """Return a candidate's name as a file name: `pruned to 70%, int8` is `pruned-to-70-int8`."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-") or "candidate"


def _save_frontier(outcome: OutcomeData, folder: Path) -> list[Path]:
    """Save the Pareto-optimal models beside the chosen one; remove those of an earlier search."""
    with writing(folder):
        shutil.rmtree(folder / FRONTIER, ignore_errors=True)
    written = []
    for result in outcome.frontier:
        if result is not outcome.chosen and result.recipe is not None:
            assert result.model is not None
            path = folder / FRONTIER / file_name(result.name)
            written.append(result.model.save(f"{path}.onnx"))
            written.append(result.recipe.save(f"{path}.recipe.yaml"))
    return written
