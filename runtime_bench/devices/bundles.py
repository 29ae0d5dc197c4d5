"""A model and its inputs as files for a device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trimtab.core.errors import ModelError
from trimtab.core.model import Model

from ..measure.subject import Subject, weight_files
from ..measure.values import Measurement
from .agent_store import MODEL


def model_files(subject: Subject, folder: Path) -> list[tuple[str, Path]]:
    """Return the files of a model, with their names on a device.

    A model in memory is written below the scratch folder first.

    Raises:
        ModelError: the model keeps weights outside its own folder.
    """
    path = subject.onnx
    if isinstance(path, Model):
        place = folder / subject.digest
        place.mkdir(exist_ok=True)
        path = path.save(place / MODEL)
    names = sorted(weight_files(path))
    for name in names:
        if Path(name).name != name or name == MODEL:
            raise ModelError(
                f"keeps weights in {name!r}, outside its own folder",
                where=str(path),
                hint="Save it again, as `trimtab simplify` does, and measure that file",
            )
    return [(MODEL, path), *((name, path.parent / name) for name in names)]


def with_identity(found: Measurement, subject: Subject) -> Measurement:
    """Return the measurement with name, digest and size of the model as known here."""
    return replace(found, model=subject.name, digest=subject.digest, size_bytes=subject.size_bytes)
