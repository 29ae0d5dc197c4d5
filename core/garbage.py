"""Pauses of Python's garbage collector while large graphs are copied and walked."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def gc_paused() -> Iterator[None]:
    """Pause the garbage collector.

    A graph consists of reference cycles that stay alive, and each collection walks all of them
    again, which makes linear work quadratic: a chain of 4,800 nodes takes twice as long.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
