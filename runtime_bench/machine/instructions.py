"""Counters of the kernel for this process: instructions, where machine and kernel give them.

Linux's perf_event_open(2). Virtual machines seldom pass the processor's counters on, and
`kernel.perf_event_paranoid` may forbid them; CPU time is counted by the kernel itself.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from dataclasses import dataclass

#: Number of the system call on each machine.
_CALLS = {"x86_64": 298, "aarch64": 241, "riscv64": 241}
#: Bytes of `perf_event_attr` in its first version, which every kernel knows.
_SIZE = 64
#: Count the threads that are started later as well, and nothing of kernel and hypervisor.
_FLAGS = (1 << 1) | (1 << 5) | (1 << 6)
#: Also read how long it was wanted and how long it counted: counters share the processor's few.
_FORMAT = 1 | 2


@dataclass(frozen=True)
class Event:
    """Type and configuration of a counter, of linux/perf_event.h."""

    type: int
    config: int


INSTRUCTIONS = Event(0, 1)
TASK_CLOCK = Event(1, 1)


class Counter:
    """Counter of the calling thread and of the threads that it starts from now on."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def open(cls, event: Event) -> Counter | None:
        """Open a counter; None where machine or kernel has none."""
        number = _CALLS.get(platform.machine()) if sys.platform == "linux" else None
        if number is None:
            return None
        fields = (event.type, _SIZE, event.config, 0, 0, _FORMAT, _FLAGS)
        attributes = ctypes.create_string_buffer(struct.pack("=IIQQQQQ", *fields), _SIZE)
        descriptor = ctypes.CDLL(None).syscall(number, attributes, 0, -1, -1, 0)
        return cls(descriptor) if descriptor >= 0 else None

    def read(self) -> int:
        """Return the count so far, scaled to all of the time that it was wanted."""
        value, wanted, counted = struct.unpack("=QQQ", os.read(self._descriptor, 24))
        return value * wanted // counted if counted else 0

    def close(self) -> None:
        """Close the counter."""
        os.close(self._descriptor)
