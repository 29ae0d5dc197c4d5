"""Devices without Python, which take commands and files: by ssh, or by adb."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trimtab.core.errors import OptionError, RunError

from ..measure.workers.protocol import last_line
from .addresses import options, split
from .ssh import Ssh

#: Seconds for a command, and for a file.
COMMAND_SECONDS, FILE_SECONDS = 300.0, 600.0
_SERIAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")
_MASK = re.compile(r"[0-9a-fA-F]{1,16}")


class Shell(Protocol):
    """Runs commands and stores files on a device."""

    def run(self, words: Sequence[str], data: bytes = b"") -> str:
        """Run a command, its arguments passed on unchanged, and return its output.

        Raises:
            RunError: the command fails, or the device is gone.
        """

    def put(self, file: Path, place: str) -> None:
        """Copy a file there.

        Raises:
            RunError: the file cannot be written.
        """


@dataclass(frozen=True)
class SshShell:
    """Shell of a device by ssh."""

    device: Ssh

    def __str__(self) -> str:
        return str(self.device)

    def run(self, words: Sequence[str], data: bytes = b"") -> str:
        """See `Shell`."""
        return self.device.output(words, data, COMMAND_SECONDS)

    def put(self, file: Path, place: str) -> None:
        """See `Shell`."""
        write = ["sh", "-c", f"cat > {shlex.quote(place)}"]
        self.device.output(write, file.read_bytes(), FILE_SECONDS)


@dataclass(frozen=True)
class AdbShell:
    """Shell of the device of a serial number, by Android's adb, which must be on the PATH."""

    serial: str

    def __str__(self) -> str:
        return f"adb://{self.serial}"

    def run(self, words: Sequence[str], data: bytes = b"") -> str:
        """See `Shell`; adb joins its words with spaces for a shell there, so they are quoted."""
        return self._adb(["shell", shlex.join(words)], data, COMMAND_SECONDS)

    def put(self, file: Path, place: str) -> None:
        """See `Shell`."""
        self._adb(["push", str(file), place], b"", FILE_SECONDS)

    def _adb(self, words: Sequence[str], data: bytes, seconds: float) -> str:
        client = shutil.which("adb")
        if client is None:
            raise OptionError(
                "there is no adb on this machine",
                where=str(self),
                hint="Install Android's platform tools, and put adb on the PATH",
            )
        try:
            done = subprocess.run(  # noqa: S603 - the user's own device
                [client, "-s", self.serial, *words],
                input=data,
                capture_output=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RunError(f"did not answer within {seconds:.0f} s", where=str(self)) from None
        if done.returncode:
            raise self._failure(done.stderr or done.stdout)
        return done.stdout.decode(errors="replace")

    def _failure(self, said: bytes) -> RunError:
        text = said.decode(errors="replace")
        if "not found" in text and "device" in text:
            hint = "Is it attached, with USB debugging on? See: adb devices"
            return RunError("there is no such device", where=str(self), hint=hint)
        if "unauthorized" in text:
            hint = "Allow this computer on the device's screen"
            return RunError("it does not trust this computer yet", where=str(self), hint=hint)
        if "offline" in text:
            return RunError("it is offline", where=str(self), hint="Attach it again")
        if "No space left" in text:
            return RunError("its disk is full", where=str(self), hint="Free some space there")
        return RunError(f"said: {last_line(text)}", where=str(self))


@dataclass(frozen=True)
class BareDevice:
    """Device that measures by onnxruntime_perf_test alone.

    Attributes:
        shell: runs commands on it.
        perf_test: path there of the program, which its user built.
        folder: folder there for models, created where missing.
        taskset: hexadecimal mask of the CPUs to run on, as for `taskset`; empty for all.
    """

    shell: Shell
    perf_test: str
    folder: str
    taskset: str = ""

    @classmethod
    def parse(cls, address: str) -> BareDevice:
        """Parse ssh://user@host?perf_test=PATH or adb://SERIAL?perf_test=PATH[&taskset=f0].

        Raises:
            OptionError: the address is not valid.
        """
        parts = split(address, _FORM)
        adb = parts.scheme == "adb"
        known = ("perf_test", "folder", "taskset", *(() if adb else ("config",)))
        fields = options(address, known, _FORM)
        if "perf_test" not in fields:
            raise OptionError("names no onnxruntime_perf_test", where=address, hint=_FORM)
        if fields.get("taskset") and not _MASK.fullmatch(fields["taskset"]):
            raise OptionError(f"{fields['taskset']!r} is not a valid mask of CPUs", where=address)
        if adb:
            if not _SERIAL.fullmatch(parts.netloc):
                raise OptionError(
                    f"{parts.netloc!r} is not a valid serial number", where=address, hint=_FORM
                )
            shell: Shell = AdbShell(parts.netloc)
            folder = fields.get("folder", "/data/local/tmp/trimtab")
        else:
            config = f"?config={fields['config']}" if "config" in fields else ""
            shell = SshShell(Ssh.parse(f"{parts.scheme}://{parts.netloc}{config}"))
            folder = fields.get("folder", ".cache/trimtab/perf_test")
        return cls(shell, fields["perf_test"], folder, fields.get("taskset", ""))

    def __str__(self) -> str:
        return str(self.shell)


_FORM = "Write it as adb://SERIAL?perf_test=/data/local/tmp/onnxruntime_perf_test"
