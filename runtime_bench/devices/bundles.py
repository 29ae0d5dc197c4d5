"""A model and its inputs as files for a device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx

from trimtab.core.errors import ModelError
from trimtab.core.model import Model
from trimtab.core.ort.session import Feeds

from ..measure.subject import Subject
from ..measure.values import Measurement
from .agent_store import FEEDS, MODEL


def model_files(subject: Subject, folder: Path) -> list[tuple[str, Path]]:
    """Return the files of a model, with their names on a device.

    Args:
        subject: a file, or a model in memory, which is written below the folder first.
        folder: scratch folder.

    Raises:
        ModelError: the model keeps weights outside its own folder.
    """
    path = subject.source
    if isinstance(path, Model):
        place = folder / subject.digest
        place.mkdir(exist_ok=True)
        path = path.save(place / MODEL)
    names = sorted(_beside(onnx.load(path, load_external_data=False)))
    for name in names:
        if Path(name).name != name or name == MODEL:
            raise ModelError(
                f"keeps weights in {name!r}, outside its own folder",
                where=str(path),
                hint="Save it again, as `trimtab simplify` does, and measure that file",
            )
    return [(MODEL, path), *((name, path.parent / name) for name in names)]


def feeds_file(feeds: Feeds, folder: Path) -> Path:
    """Write the inputs of one run below the folder, without pickle."""
    path = folder / FEEDS
    plain = {n: a.astype(str) if a.dtype == object else a for n, a in feeds.items()}
    np.savez(path, **plain)  # type: ignore[arg-type] # its stub takes names for options
    return path


def read_feeds(file: Path | BinaryIO) -> Feeds:
    """Read inputs that `feeds_file` wrote."""
    with np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def with_identity(found: Measurement, subject: Subject) -> Measurement:
    """Return the measurement with name, digest and size of the model as known here."""
    return replace(found, model=subject.name, digest=subject.digest, size_bytes=subject.size_bytes)


def _beside(proto: onnx.ModelProto) -> set[str]:
    """Return the names of the files that hold weights."""
    return {
        entry.value
        for tensor in proto.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
