"""Functions as contenders: pipelines with what comes before and after a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trimtab.core.callables import is_callable_spec
from trimtab.core.errors import OptionError
from trimtab.core.ort.session import Feeds

from ...machine.placement import Placement
from ..timing import Runs
from ..workers.protocol import Message
from ..workers.worker_process import WorkerProcess
from .pacing import stabilize
from .program import Program


@dataclass(frozen=True)
class Function(Program):
    """A function without parameters, `module:callable`, each call of which is a run.

    Where it returns a callable, such as a pipeline with its model loaded, that is called instead.

    Raises:
        OptionError: the text is not `module:callable`.
    """

    def __post_init__(self) -> None:
        if is_callable_spec(self.text):
            return
        module, _, name = self.text.partition(":")
        hint = "Write it as package.module:callable"
        if module.endswith(".py"):
            hint = f"Did you mean '{Path(module).stem}:{name or 'run'}'?"
        raise OptionError(f"{self.text!r} is not a valid callable", where="callable", hint=hint)

    def files(self) -> Iterator[Path]:
        """See `Program`; the module's file, where it lies in the folder."""
        stem = Path(self.folder, *self.text.partition(":")[0].split("."))
        places = (stem.with_suffix(".py"), stem / "__init__.py")
        yield from (path for path in places if path.is_file())

    def contender(self, limit_seconds: float) -> FunctionContender:
        """See `Program`."""
        return FunctionContender(self, limit_seconds)


class FunctionContender:
    """A function in a process of its own, which is renewed with all that its module holds.

    Errors are RunErrors, but an InputError where the name does not lead to a function.
    """

    always_new = False
    placement: Placement | None = None

    def __init__(self, function: Function, limit_seconds: float) -> None:
        self.name, self.worker, self.limit_seconds = function.text, None, limit_seconds
        self._folder = str(Path(function.folder).resolve())
        self._process = self._start()

    def warm(self, feeds: Feeds) -> float:
        """See `Contender`; there are no feeds."""
        del feeds
        return float(self._load())

    def renew(self) -> None:
        """See `Contender`; in a new process."""
        self._process.close()
        self._process = self._start()
        self._load()
        stabilize(self, on_device=False)

    def time(self, runs: int) -> Runs:
        """See `Contender`."""
        answer = self._ask("run", do="time", runs=runs)
        return Runs.from_json(answer)

    def close(self) -> None:
        """See `Contender`."""
        self._process.close()

    def _start(self) -> WorkerProcess:
        return WorkerProcess("", "function_worker", "Call it by hand: python ends there")

    def _load(self) -> int:
        message = {"do": "load", "spec": self.name, "folder": self._folder}
        return int(self._ask("run for the first time", **message)["ns"])

    def _ask(self, doing: str, **message: object) -> Message:
        return self._process.ask(self.name, doing, self.limit_seconds, **message)
