"""Pauses of Python's collector while graphs are walked, and freed memory that goes back."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Callable, Iterator

#: Bytes from which a block is memory of its own, which goes back to the system once it is freed.
OWN_BLOCK = 4 << 20
#: Bytes that are free at the end of the heap before they go back.
FREE_AT_END = 32 << 20
#: Parameters of glibc's `mallopt`.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
#: The C library's function that gives free pages back, where a command asked for that.
_trims: list[Callable[[int], int]] = []


def return_freed_memory() -> None:
    """Let this process give large blocks back to the system once they are freed, where it can.

    glibc raises the size of what it gives back to that of the largest block that was freed, up to
    32 MB. Freed tensors then stay in the heap, between smaller things that live on: a network of 4
    MB took 715 MB instead of 480. It holds for the whole process, so a command alone asks for it;
    MALLOC_MMAP_THRESHOLD_ has precedence.
    """
    if sys.platform != "linux" or "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library has no such function
        system = ctypes.CDLL(None)
        system.mallopt(_MMAP_THRESHOLD, OWN_BLOCK)
        system.mallopt(_TRIM_THRESHOLD, FREE_AT_END)
        _trims[:] = [system.malloc_trim]


def drop_candidate() -> None:
    """Collect the graph of a candidate that is no longer needed, and give its pages back.

    A graph is a cycle of references: its weights stay until the collector comes, between whose
    turns several candidates pile up. Only in a process that asked by `return_freed_memory`; what
    lives there at the first call is not looked at again.
    """
    if not _trims:
        return
    gc.collect()
    if not gc.get_freeze_count():
        gc.freeze()
        atexit.register(gc.unfreeze)  # what is left at the end is told as a leak by some libraries
    _trims[0](0)


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
