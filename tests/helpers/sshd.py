"""A real sshd on a loopback port, with its own keys and configuration."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@dataclass
class Server:
    """A running sshd.

    Attributes:
        address: as a user gives it, with configuration and interpreter.
        folder: of its files; `known_hosts` may be changed.
        process: of the server.
        port: that it listens on.
    """

    address: str
    folder: Path
    process: subprocess.Popen[bytes]
    port: int

    def stop(self) -> None:
        """Stop the server and every connection, as if a cable were pulled."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        for pid in children.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), 9)
        self.process.kill()
        self.process.wait()


def keygen(path: Path) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def sshd(folder: Path, cache: Path) -> Iterator[Server]:
    """Start a server, or skip the test where OpenSSH is missing."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip(
            "needs OpenSSH's server and client: apt-get install openssh-server openssh-client"
        )
    folder.chmod(0o700)
    for name in ("host", "user"):
        keygen(folder / name)
    Path("/run/sshd").mkdir(exist_ok=True) if os.getuid() == 0 else None
    port = free_port()
    (folder / "authorized_keys").write_text((folder / "user.pub").read_text())
    paths = os.pathsep.join(p for p in sys.path if p)
    (folder / "sshd_config").write_text(
        f"""Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized_keys
PidFile {folder}/pid
StrictModes no
UsePAM no
PasswordAuthentication no
SetEnv TRIMTAB_CACHE={cache} PYTHONPATH={paths} OMP_NUM_THREADS=1
"""
    )
    key = (folder / "host.pub").read_text().split()[:2]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {' '.join(key)}\n")
    (folder / "config").write_text(
        f"""Host *
IdentityFile {folder}/user
IdentitiesOnly yes
UserKnownHostsFile {folder}/known_hosts
GlobalKnownHostsFile /dev/null
"""
    )
    command = [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        _wait(port, process, folder / "log")
        user = getpass.getuser()
        query = f"?python={sys.executable}&config={folder}/config"
        yield Server(f"ssh://{user}@127.0.0.1:{port}{query}", folder, process, port)
    finally:
        process.kill()
        process.wait()


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(100):
        if process.poll() is not None:
            pytest.fail(f"sshd ended: {log.read_text()}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    pytest.fail("sshd does not listen")
