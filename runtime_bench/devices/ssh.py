"""Devices reached by ssh: this system's OpenSSH client, with the user's keys and known hosts.

No name from a model or a device reaches a shell: the remote command is one quoted line, built from
the device's own entry alone; everything else travels through the pipes as data.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from trimtab.core.errors import OptionError, RunError

from ..measure.workers.protocol import last_line, logged, start_process
from .addresses import options, split

#: Seconds to connect.
CONNECT_SECONDS = 10
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:%-]*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_KNOWN = ("python", "config")
#: Words in the output of ssh or of the device, their meaning, and the remedy.
_SIGNS: tuple[tuple[str, str, str], ...] = (
    (
        "host key verification failed",
        "the device's host key is not the known one, or is not known yet",
        "Compare its fingerprint at the device (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), "
        "then connect once by hand: {command}",
    ),
    (
        "permission denied",
        "it refuses the login",
        "Set up a key that needs no question: ssh-copy-id; then try: {command}",
    ),
    ("could not resolve", "its host name cannot be resolved", "Check the name, or give an address"),
    ("connection refused", "nothing answers at that port", "Start sshd there, or give :port"),
    ("timed out", "it does not answer", "Is it on, and in this network? Try: {command}"),
    ("no route to host", "it cannot be reached", "Is it on, and in this network?"),
    (
        "no module named pip",
        "its Python has no pip",
        "Run there: {python} -m ensurepip, or install the system's package python3-pip",
    ),
    (
        "externally-managed-environment",
        "its Python is managed by the system, which does not allow installs into it",
        "Create one there: {python} -m venv ~/trimtab, and name it: "
        "ssh://...?python=/home/USER/trimtab/bin/python",
    ),
    (
        "no module named 'onnxruntime'",
        "it lacks onnxruntime",
        "Run there: {python} -m pip install 'trimtab[cpu]'",
    ),
    ("no module named", "it lacks trimtab", "Run there: {python} -m pip install 'trimtab[cpu]'"),
    (
        "not found",
        "it has no Python by that name",
        "Install Python 3.11 or newer there, or name it: ssh://...?python=/path/to/python3",
    ),
    (
        "no such file",
        "it has no Python by that name",
        "Name one that exists: ssh://...?python=/path/to/python3",
    ),
    ("no space left", "its disk is full", "Free some space there"),
)


@dataclass(frozen=True)
class Ssh:
    """Address of a device by ssh.

    Attributes:
        host: host name, IP address, or an alias of the user's ssh configuration.
        user: login name; empty for the configuration's.
        port: port; 0 for the configuration's.
        python: interpreter there that has trimtab.
        config: file of ssh configuration instead of the user's own.
    """

    host: str
    user: str = ""
    port: int = 0
    python: str = "python3"
    config: str = ""

    @classmethod
    def parse(cls, address: str) -> Ssh:
        """Parse ssh://user@host:port?python=/path/python3&config=/path/ssh_config.

        Raises:
            OptionError: the address is not valid.
        """
        parts = split(address, _FORM)
        if parts.scheme != "ssh" or not _HOST.fullmatch(parts.hostname or ""):
            raise OptionError(f"{address!r} is not a valid address of a device", hint=_FORM)
        if parts.username is not None and not _USER.fullmatch(parts.username):
            raise OptionError(f"{parts.username!r} is not a valid user name", where=address)
        if parts.password is not None or parts.path.strip("/"):
            raise OptionError("has more than user, host and port", where=address, hint=_FORM)
        fields = options(address, _KNOWN, _FORM)
        return cls(parts.hostname or "", parts.username or "", parts.port or 0, **fields)

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        return f"ssh://{user}{self.host}" + (f":{self.port}" if self.port else "")

    def command(self, words: Sequence[str]) -> list[str]:
        """Return the local command that runs a program there, its arguments passed on unchanged.

        Raises:
            OptionError: this machine has no ssh.
        """
        client = shutil.which("ssh")
        if client is None:
            raise OptionError("there is no ssh on this machine", hint="Install OpenSSH's client")
        options = [
            *(["-F", self.config] if self.config else []),
            *("-T", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"),
            *("-o", f"ConnectTimeout={CONNECT_SECONDS}"),
            *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
            *(["-p", str(self.port)] if self.port else []),
            *(["-l", self.user] if self.user else []),
        ]
        return [client, *options, "--", self.host, shlex.join(words)]

    def start(self, words: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a program there with pipes, out of reach of the terminal's Ctrl-C."""
        return start_process(self.command(words), log)

    def output(self, words: Sequence[str], data: bytes = b"", seconds: float = 60.0) -> str:
        """Run a program there and return its output.

        Raises:
            RunError: the device cannot be reached, or the program fails.
        """
        with tempfile.TemporaryFile() as log:
            process = self.start(words, log)
            try:
                out, _ = process.communicate(data, timeout=seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                raise RunError(f"did not answer within {seconds:.0f} s", where=str(self)) from None
            if process.returncode:
                raise self.failure(log, process.returncode)
        return out.decode(errors="replace")

    def failure(self, log: IO[bytes], code: int) -> RunError:
        """Return one error for the output of ssh, or of the program there, before it ended."""
        said = logged(log)
        by_hand = shlex.join(self.command(["true"])[:-1])
        for sign, what, hint in _SIGNS:
            if sign in said.lower():
                advice = hint.format(command=by_hand, python=self.python)
                return RunError(what, where=str(self), hint=advice)
        last = last_line(said)
        return RunError(
            f"its connection ended (exit code {code}){': ' + last if last else ''}",
            where=str(self),
            hint=f"Try by hand: {by_hand}",
        )


_FORM = "Write it as ssh://user@host or ssh://user@host:port"
