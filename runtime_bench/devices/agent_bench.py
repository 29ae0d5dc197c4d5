"""Bench on a device by its agent: models are sent once, all samples come back."""

from __future__ import annotations

import contextlib
import getpass
import platform
import queue
import shutil
import tempfile
import time
from pathlib import Path
from typing import BinaryIO, cast

from trimtab.core.errors import RunError
from trimtab.core.ort.session import Feeds
from trimtab.core.progress import Progress, Silent

from ..measure.feeds import write_feeds
from ..measure.subject import Subject
from ..measure.workers.protocol import Inbox, Message, send, unpack_error
from .agent import PROTOCOL, timing_to_json
from .agent_store import FEEDS, digest_of
from .base import RemoteBench, RemoteCall
from .bundles import model_files
from .transport import Device

AGENT = ("-P", "-m", "trimtab.runtime_bench.devices.agent")
#: Seconds a device may be silent: while its interpreter starts, while a large model is loaded.
START_SECONDS, SILENT_SECONDS = 60.0, 600.0
#: Seconds between two tries to lock a device.
POLL_SECONDS = 1.0
_CHUNK = 1 << 20


class AgentBench(RemoteBench):
    """A device, locked until the bench is closed; waiting and temperatures are reported.

    Raises:
        RunError: it cannot be reached, or lacks something; the message says what to do.
    """

    def __init__(self, device: Device, progress: Progress | None = None) -> None:
        self.device, self.progress = device, progress or Silent()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        self._folder = tempfile.TemporaryDirectory(prefix="trimtab-device-")
        self._sent: dict[str, str] = {}
        self._process = device.start([device.python, *AGENT], self._log)
        self._answers = Inbox(cast("BinaryIO", self._process.stdout))
        try:
            self.facts = self._ask(START_SECONDS, do="hello")
            self._check_protocol()
            self._wait_for_lock()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the device: its agent ends with the pipe."""
        with contextlib.suppress(OSError, ValueError):
            cast("BinaryIO", self._process.stdin).close()
        try:
            self._process.wait(timeout=5)
        except Exception:  # noqa: BLE001 - it is ended in any case
            self._process.kill()
            self._process.wait()
        self._log.close()
        self._folder.cleanup()

    def request(self, call: RemoteCall) -> Message:
        """See `RemoteBench`; models and feeds are sent unless the device has them."""
        models = [self._send_model(s) for s in call.subjects]
        feeds, how = self._send_feeds(call.feeds), timing_to_json(call.how)
        message = {"do": call.command, "models": models, "feeds": feeds, "how": how, **call.options}
        return self._run(call.progress, message)

    def _check_protocol(self) -> None:
        if self.facts.get("protocol") != PROTOCOL:
            raise RunError(
                f"has trimtab {self.facts.get('trimtab')}, which does not understand this version",
                where=str(self.device),
                hint=f"Run there: {self.device.python} -m pip install --upgrade trimtab",
            )

    def _wait_for_lock(self) -> None:
        who = f"{getpass.getuser()}@{platform.node()}"
        reported = False
        while (holder := self._ask(START_SECONDS, do="lock", who=who)["holder"]) is not None:
            if not reported:
                since = time.strftime("%H:%M:%S", time.localtime(holder.get("since", 0)))
                name = holder.get("who", "another run")
                self.progress.say(f"{self.device}: in use by {name} since {since}; waiting")
                reported = True
            time.sleep(POLL_SECONDS)

    def _run(self, progress: Progress, message: Message) -> Message:
        """Run a long command, reporting progress; Ctrl-C ends it there, with partial results."""
        before = self.facts.get("temperature")
        self._send(message)
        while True:
            try:
                answer = self._next(progress)
            except KeyboardInterrupt:
                self._send({"do": "stop"})
                continue
            if answer is not None:
                after = answer.get("temperature")
                if before is not None and after is not None:
                    temperatures = f"{before:.0f} degrees Celsius before, {after:.0f} after"
                    progress.say(f"{self.device}: {temperatures}")
                return answer

    def _ask(self, seconds: float, **message: object) -> Message:
        self._send(message)
        while (answer := self._next(self.progress, seconds)) is None:
            pass
        return answer

    def _send(self, message: Message) -> None:
        try:
            send(cast("BinaryIO", self._process.stdin), message)
        except (OSError, ValueError):
            raise self._broken() from None

    def _next(self, progress: Progress, seconds: float = SILENT_SECONDS) -> Message | None:
        """Return the next answer, None where it was progress."""
        try:
            found = self._answers.get(seconds)
        except queue.Empty:
            raise RunError(
                f"said nothing for {seconds:.0f} s", where=str(self.device), hint="Is it still on?"
            ) from None
        except RunError as error:
            raise RunError(
                "answers with something other than trimtab's agent",
                where=str(self.device),
                hint=f"Does its shell print something at login? ({error.what})",
            ) from error
        if found is None:
            raise self._broken()
        if "said" in found:
            progress.say(str(found["said"]))
            return None
        if "progress" in found:
            return None
        if "error" in found:
            raise unpack_error(found)
        return found

    def _broken(self) -> RunError:
        try:
            code = self._process.wait(timeout=5)
        except Exception:  # noqa: BLE001 - it hangs: no exit code
            code = -1
        return self.device.failure(self._log, code)

    def _send_model(self, subject: Subject) -> str:
        if subject.digest not in self._sent:
            files = model_files(subject, Path(self._folder.name))
            self._sent[subject.digest] = self._put(files)
        return self._sent[subject.digest]

    def _send_feeds(self, feeds: Feeds) -> str:
        return self._put([(FEEDS, write_feeds(feeds, Path(self._folder.name) / FEEDS))])

    def _put(self, files: list[tuple[str, Path]]) -> str:
        digest = digest_of(files)
        if not self._ask(START_SECONDS, do="missing", digests=[digest])["digests"]:
            return digest
        sizes = [[name, path.stat().st_size] for name, path in files]
        self._send({"do": "put", "digest": digest, "files": sizes})
        stream = cast("BinaryIO", self._process.stdin)
        try:
            for _, path in files:
                with path.open("rb") as file:
                    shutil.copyfileobj(file, stream, _CHUNK)
            stream.flush()
        except (OSError, ValueError):
            raise self._broken() from None
        while self._next(self.progress) is None:
            pass
        return digest
