"""A content-addressed store of the models, qualities and comparisons that a search has made.

An entry is a folder that appears by one atomic rename, so that a killed process leaves no half of
one and two processes that make the same entry do not disturb each other: the second finds the place
taken and throws its own away. An entry that cannot be read is made again. A full disk costs the
cache, not the search.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from trimtab.core.errors import InputError, OutputError, TrimtabError
from trimtab.core.files import writing
from trimtab.core.model import Model
from trimtab.core.progress import Progress, Silent
from trimtab.core.runtime import runtime

T = TypeVar("T")
#: Version of the layout below the root. Folders of other formats are left alone.
FORMAT = 1
_MODEL, _VALUE = "model.onnx", "value.json"
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}


def key_of(kind: str, **parts: Any) -> str:
    """Hash a kind of work and everything that its result depends on, versions included."""
    text = json.dumps({"kind": kind, **parts, **versions()}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def key_of_feeds(feeds: Mapping[str, Any]) -> dict[str, Any]:
    """Return shapes and types of feeds as part of a key: their values change no cost."""
    return {name: [list(array.shape), str(array.dtype)] for name, array in feeds.items()}


@functools.cache
def versions() -> Mapping[str, str]:
    """Return what makes other numbers when it changes: packages, and the sources of this one."""
    import onnx

    return {
        "trimtab": importlib.metadata.version("trimtab"),
        "sources": _sources(Path(__file__).parent.parent),
        "onnx": onnx.__version__,
        "onnxruntime": runtime().__version__,
    }


def _sources(package: Path) -> str:
    """Hash all files that make or judge models: between two releases the version stays the same."""
    digest = hashlib.sha256()
    for folder in ("core", "passes", "exporter", "runtime_bench"):
        for path in sorted((package / folder).resolve().rglob("*.py")):
            digest.update(f"{path.name}:".encode() + path.read_bytes())
    return digest.hexdigest()


class ResultStore:
    """Models and JSON values by key, in memory and, where there is a root, on disk."""

    def __init__(self, root: Path | None, progress: Progress | None = None) -> None:
        self.root = None if root is None else root / "search" / f"format-{FORMAT}"
        self.progress = progress or Silent()
        self.made = self.reused = 0
        self._models: dict[str, Model] = {}
        self._values: dict[str, Any] = {}
        if self.root is not None:
            self._open(self.root)

    def model(self, key: str, make: Callable[[], Model]) -> Model:
        """Return the model under a key, made where there is none yet."""
        if key not in self._models:
            found = self._read_model(key)
            self._count(reused=found is not None)
            self._models[key] = found if found is not None else self._keep_model(key, make())
        return self._models[key]

    def value(self, key: str, make: Callable[[], Any]) -> Any:
        """Return the JSON value under a key, made where there is none yet."""
        found = self.known(key)
        self._count(reused=found is not None)
        return found if found is not None else self.keep(key, make())

    def known(self, key: str) -> Any | None:
        """Return the JSON value under a key; None where there is none."""
        if key not in self._values:
            found = self._read(key, lambda place: json.loads((place / _VALUE).read_text()))
            if found is None:
                return None
            self._values[key] = found
        return self._values[key]

    def keep(self, key: str, value: Any) -> Any:
        """Store a JSON value under a key and return it."""
        self._values[key] = value
        self._write(key, lambda folder: (folder / _VALUE).write_text(json.dumps(value)))
        return value

    def _count(self, *, reused: bool) -> None:
        self.reused += reused
        self.made += not reused

    def _open(self, root: Path) -> None:
        with writing(root):
            root.mkdir(parents=True, exist_ok=True)
        remove_leftovers(root)
        others = sorted(p.name for p in root.parent.iterdir() if p.name != root.name)
        if others:
            found = f"cache of another format in {root.parent} ({', '.join(others)})"
            self.progress.say(f"{found}: left alone; remove it to free its space")

    def _place(self, key: str) -> Path | None:
        return None if self.root is None else self.root / key[:2] / key[2:]

    def _read(self, key: str, read: Callable[[Path], T]) -> T | None:
        place = self._place(key)
        if place is None or not place.is_dir():
            return None
        try:
            return read(place)
        except (InputError, OSError, ValueError):
            shutil.rmtree(place, ignore_errors=True)  # cut short by a crash of the machine
            return None

    def _read_model(self, key: str) -> Model | None:
        return self._read(key, lambda place: Model.load(place / _MODEL))

    def _keep_model(self, key: str, model: Model) -> Model:
        self._write(key, lambda folder: model.save(folder / _MODEL))
        # Return what a later run will read: the same bytes, whether from the disk or from here.
        found = self._read_model(key)
        return model if found is None else replace(found, name=model.name)

    def _write(self, key: str, fill: Callable[[Path], object]) -> None:
        place = self._place(key)
        if place is None:
            return
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=place.parent))
            try:
                scratch.chmod(0o755)
                fill(scratch)
                for path in scratch.iterdir():
                    _flush(path)
                _rename(scratch, place)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        except (OSError, OutputError) as error:
            self.root = None
            self.progress.say(f"the cache cannot be written, the search goes on without: {error}")


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _rename(scratch: Path, place: Path) -> None:
    """Give a finished folder its name; another process may have been first."""
    try:
        scratch.rename(place)
    except OSError as error:
        if error.errno not in _TAKEN:
            raise


def remove_leftovers(root: Path, older_than_s: float = 3600.0) -> None:
    """Remove scratch folders that killed processes left; fresh ones may be another process's."""
    for path in root.glob("*/.new-*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > older_than_s:
                shutil.rmtree(path, ignore_errors=True)


def source_of(function: Any) -> str:
    """Hash the file that a callable comes from; its name where the file is not known."""
    import inspect

    try:
        return hashlib.sha256(Path(inspect.getfile(function)).read_bytes()).hexdigest()
    except (TypeError, OSError, TrimtabError):
        return f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', '')}"
