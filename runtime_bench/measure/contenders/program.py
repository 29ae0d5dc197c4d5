"""Programs: what can be timed beside models, whole commands and functions of the user's."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .contender import Contender

#: Larger files are known by their size only: a digest must not take longer than a run.
LARGEST_BYTES = 64_000_000


@dataclass(frozen=True)
class Program(ABC):
    """Contestant that is not a model. It feeds itself, and brings its own contender.

    Attributes:
        text: command line, or `module:callable`, as written; its name in reports.
        folder: folder in which it runs; "" for the current one.
    """

    text: str
    folder: str = ""

    @abstractmethod
    def contender(self, limit_seconds: float) -> Contender:
        """Return a contender whose runs are ended after this time."""

    @abstractmethod
    def files(self) -> Iterable[Path]:
        """Return the files that are known to be part of it."""

    @property
    def digest(self) -> str:
        """Digest of the text and of the files known to be part of it."""
        total = hashlib.sha256(self.text.encode())
        for path in self.files():
            size = path.stat().st_size
            total.update(f"\n{path.name} {size}\n".encode())
            if size <= LARGEST_BYTES:
                total.update(path.read_bytes())
        return total.hexdigest()
