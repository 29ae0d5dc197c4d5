"""Repeated runs of one session that write their results into the same memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import RunError
from .refusals import runtime_errors
from .session import Feeds, Outputs, run


class RepeatedRuns:
    """Repeated runs of a session; results are valid until the run after the next.

    Allocating every result of every run takes longer than some networks compute, and makes the heap
    grow. Two sets of arrays are written in turn, so one can be read while the next is computed.

    Args:
        session: built by `build_session`, on the CPU.
        outputs: names of the wanted outputs.
    """

    def __init__(self, session: Any, outputs: Sequence[str]) -> None:
        self._session, self._outputs = session, list(outputs)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._sets: list[Outputs] = []
        self._bound = True

    def run(self, feeds: Feeds) -> Outputs:
        """Run once and return the results by output name; new shapes of feeds get new memory.

        Raises:
            RunError: onnxruntime refuses the feeds, or fails.
        """
        if not self._outputs:
            return {}
        shapes = {name: array.shape for name, array in feeds.items()}
        if shapes != self._shapes:
            self._shapes, self._sets = shapes, []
        if len(self._sets) < 2 or not self._bound:
            made = run(self._session, feeds, self._outputs)
            self._sets = [*self._sets[-1:], made]
            return made
        try:
            self._write(feeds, self._sets[0])
        except RunError:
            # Where shapes of results depend on values, each run needs memory of its own.
            self._bound, self._sets = False, []
            return run(self._session, feeds, self._outputs)
        self._sets.reverse()
        return self._sets[1]

    def _write(self, feeds: Feeds, arrays: Outputs) -> None:
        with runtime_errors("session.run"):
            binding = self._session.io_binding()
            for name, array in feeds.items():
                binding.bind_cpu_input(name, np.ascontiguousarray(array))
            for name, array in arrays.items():
                binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            self._session.run_with_iobinding(binding)
