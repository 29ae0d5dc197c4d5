"""Agent on a device: holds the device's lock, keeps models, and measures on request.

Started as `python -m trimtab.runtime_bench.devices.agent`, by ssh or anything else that joins two
pipes. It reads JSON commands from stdin, answers on stdout, and measures as a local bench does.
When stdin closes it ends, and its workers with it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from importlib.metadata import version
from typing import Any, BinaryIO, TypeVar

from trimtab.core.errors import RunError, TrimtabError
from trimtab.core.ort.session import SessionConfig
from trimtab.core.ort.telemetry import disable_telemetry
from trimtab.core.target import Target

from ..bench.bench import Bench, LocalBench, Timing
from ..bench.budgets import Budget
from ..machine.environment import Environment
from ..machine.system import number_after, read_text, temperature
from ..measure.feeds import read_feeds
from ..measure.workers.protocol import Message, pack_error, receive, send
from .agent_store import ModelStore
from .dispatch import CALLS, dispatch

#: Version of the messages; raised with each change of them.
PROTOCOL = 1
T = TypeVar("T")


class Agent:
    """Runs commands: the calls of a bench, and each method `do_*`, with arguments as keywords.

    The bytes of a file follow in the stream after the command that announces it.
    """

    def __init__(
        self,
        stream: BinaryIO,
        answer: Callable[[Message], None],
        store: ModelStore,
        bench: Bench | None = None,
    ) -> None:
        self.stream, self.send, self.store = stream, answer, store
        self.bench: Bench = bench or LocalBench()

    def answer(self, message: Message) -> Message:
        """Run one command and return its answer; an error becomes an answer as well."""
        arguments = dict(message)
        name = str(arguments.pop("do", ""))
        command = getattr(self, f"do_{name}", None)
        try:
            if name in CALLS:
                return self._measured(name, **arguments)
            if command is None:
                raise RunError("does not know that command", where="device")  # noqa: TRY301
            found: Message = command(**arguments)
        except TrimtabError as error:
            return pack_error(error)
        except MemoryError:
            return pack_error(RunError("runs out of memory", where="device"))
        except Exception as error:  # noqa: BLE001 - an agent must answer whatever happens
            return pack_error(RunError(f"{type(error).__name__}: {error}", where="device"))
        return found

    def do_hello(self) -> Message:
        """Return the version, machine and free space of this device."""
        return {
            "protocol": PROTOCOL,
            "trimtab": version("trimtab"),
            "environment": Environment.here().to_json(),
            "target": Target.detect().to_json(),
            "memory_bytes": available_memory(),
            "free_bytes": self.store.free_bytes(),
            "temperature": temperature(),
        }

    def do_lock(self, who: str) -> Message:
        """Lock the device, or return who holds it and since when."""
        return {"holder": self.store.lock(who)}

    def do_missing(self, digests: list[str]) -> Message:
        """Return the digests whose files are not here."""
        return {"digests": [d for d in digests if not self.store.has(d)]}

    def do_put(self, digest: str, files: list[list[Any]]) -> Message:
        """Store files, given as [name, size] each; their bytes follow in that order."""
        self.store.put(digest, [(str(name), int(size)) for name, size in files], self.stream)
        return {}

    def _measured(
        self, command: str, models: list[str], feeds: str, how: Message, **options: object
    ) -> Message:
        paths = [self.store.model(digest) for digest in models]
        arrays, timing = read_feeds(self.store.feeds(feeds)), timing_from_json(how)
        progress = ForwardedProgress(self.send)
        found = dispatch(self.bench, command, paths, arrays, timing, progress, **options)
        return found | ({"temperature": temperature()} if command in {"compare", "measure"} else {})


class ForwardedProgress:
    """Progress reported to the other side."""

    def __init__(self, answer: Callable[[Message], None]) -> None:
        self._send = answer

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """Yield the items, reporting how many have passed."""
        for count, item in enumerate(items, 1):
            yield item
            self._send({"progress": [label, count, total]})

    def say(self, text: str) -> None:
        """Report a line."""
        self._send({"said": text})


def timing_to_json(how: Timing) -> Message:
    """Return a timing as JSON values."""
    plain = dict(how.__dict__, config=how.config.to_json())
    return plain | {"budgets": [asdict(b) for b in how.budgets]}


def timing_from_json(value: Message) -> Timing:
    """Return the timing that `timing_to_json` wrote."""
    fields = dict(value, config=SessionConfig.from_json(value["config"]))
    return Timing(**fields | {"budgets": tuple(Budget(**b) for b in value["budgets"])})


def available_memory() -> int:
    """Return the available memory of this machine in bytes, 0 where it is not known."""
    return 1024 * (number_after(read_text("/proc/meminfo"), "MemAvailable:") or 0)


class Commands:
    """Commands read in a thread, so that a stop is seen during a measurement.

    The thread waits after each command until it has run, since file bytes may follow it; only
    during a measurement does it read on.
    """

    def __init__(self, stream: BinaryIO, gone: Callable[[], None]) -> None:
        self._stream, self._gone = stream, gone
        self._queue: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._ready = threading.Event()
        self._ready.set()
        self.busy = False
        threading.Thread(target=self._listen, daemon=True).start()

    def __iter__(self) -> Iterator[Message]:
        while True:
            message = self._queue.get()
            self.busy = message.get("do") in CALLS
            if self.busy:
                self._ready.set()
            yield message
            self.busy = False
            self._ready.set()

    def _listen(self) -> None:
        while True:
            self._ready.wait()
            message = receive(self._stream)
            if message is None:
                self._gone()
                return
            if message.get("do") == "stop":
                if self.busy:
                    os.kill(os.getpid(), signal.SIGINT)
                continue
            self._ready.clear()
            self._queue.put(message)


def main() -> None:
    """Serve on stdin and stdout; output of libraries goes to stderr instead."""
    disable_telemetry()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    guard = threading.Lock()

    def answer(message: Message) -> None:
        with guard:
            send(answers, message)

    # The parent process may have set this signal, which ends a measurement, to be ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    store = ModelStore.here()
    # The end of the process frees the lock and closes the workers' stdin, which ends them.
    commands = Commands(sys.stdin.buffer, lambda: os._exit(0))
    agent = Agent(sys.stdin.buffer, answer, store)
    for message in commands:
        found = agent.answer(message)
        with contextlib.suppress(OSError):
            answer(found | {"done": True})


if __name__ == "__main__":
    main()
