"""A model and its inputs as files that go to a device, and what comes back under its name here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from trimtab.core.errors import ModelError
from trimtab.core.model import Model
from trimtab.core.ort.session import Feeds

from ..measure.subject import Subject
from ..measure.values import Measurement
from .agent_store import FEEDS, MODEL


def model_files(subject: Subject, folder: Path) -> list[tuple[str, Path]]:
    """The files of a model, by the names that they get on a device.

    Args:
        subject: a file, or a model that is written below the folder first.
        folder: for that.

    Raises:
        ModelError: it keeps weights elsewhere than beside itself.
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
                f"keeps weights in {name!r}, not beside itself",
                where=str(path),
                hint="Write it anew, as `trimtab simplify` does, and measure that",
            )
    return [(MODEL, path), *((name, path.parent / name) for name in names)]


def feeds_file(feeds: Feeds, folder: Path) -> Path:
    """Inputs of one run, written without pickle."""
    path = folder / FEEDS
    plain = {n: a.astype(str) if a.dtype == object else a for n, a in feeds.items()}
    np.savez(path, **plain)  # type: ignore[arg-type] # its stub takes names for options
    return path


def named(found: Measurement, subject: Subject) -> Measurement:
    """With what the model is called and weighs here."""
    return replace(found, model=subject.name, digest=subject.digest, size_bytes=subject.size_bytes)


def _beside(proto: onnx.ModelProto) -> set[str]:
    """Names of the files that hold weights."""
    return {
        entry.value
        for tensor in proto.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
