"""A parent for each command, which survives what kills the command and says what happened.

onnxruntime ends the process (SIGABRT, SIGSEGV) on some models and never returns from others. So the
command runs in a child that is forked before anything heavy is imported, which costs a few
milliseconds; the parent waits, passes signals on, and turns a death into one message and exit code
2. Only where the system has what it needs (Linux and others with `sigtimedwait`); elsewhere
commands run without it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from trimtab.core.watch import Note, watch_by

#: Signals that a user or a job runner sends, which go on to the child.
_PASSED_ON = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
#: Deaths that are the program's own and not somebody's wish.
_CRASHES = ("SIGABRT", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGKILL", "SIGSYS", "SIGTRAP")
_LOOK_SECONDS = 0.5
#: Times the seconds of a call that it may wait without computing.
_IDLE_FACTOR = 10
_USER = 0  # si_code of a signal from `kill`; the terminal's own reach the child as well


def supervise() -> int | None:
    """Fork; return None in the child, which goes on, and the exit code in the parent, later."""
    if not hasattr(os, "fork") or not hasattr(signal, "sigtimedwait"):
        return None
    wanted = {getattr(signal, name) for name in _PASSED_ON}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*wanted, signal.SIGCHLD})
    note, scratch, parent = Note(), _scratch(), os.getpid()
    try:
        child = os.fork()
    except OSError:  # no process to be had: the command may still work
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return None
    if child == 0:
        if scratch is not None:
            os.environ["TMPDIR"] = str(scratch)
        _die_with(parent)
        watch_by(note)
        _limit_memory()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return None
    try:
        status, hung = _wait(child, wanted, note)
    finally:
        if scratch is not None:
            _remove(scratch)
    return _exit_code(os.waitstatus_to_exitcode(status), note, hung=hung)


def _wait(child: int, wanted: set[int], note: Note) -> tuple[int, bool]:
    """Wait for the child; return its status, and whether it was killed because it hung."""
    watch = CallWatch(child, note)
    hung = False
    while True:
        found = signal.sigtimedwait({*wanted, signal.SIGCHLD}, _LOOK_SECONDS)
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status, hung
        if found is not None and found.si_signo in wanted and found.si_code <= _USER:
            os.kill(child, found.si_signo)
        if watch.late() and not hung:
            hung = True
            os.kill(child, signal.SIGKILL)


class CallWatch:
    """Watch over what a call of the child has taken, in time that it could really use.

    Time counts as the child computes, so that it may share its processors with others, and as this
    process sees it pass, so that both may be stopped (Ctrl-Z, a laptop that sleeps).
    """

    def __init__(self, child: int, note: Note) -> None:
        self.child, self.note = child, note
        self.call = 0
        self.computed = self.waited = self.seen = 0.0

    def late(self) -> bool:
        """Return whether the call that runs now has used up its time."""
        now = time.monotonic()
        since, self.seen = min(now - self.seen, 2 * _LOOK_SECONDS), now
        call, seconds, _ = self.note.read()
        if not call or call != self.call:
            self.call, self.waited, self.computed = call, 0.0, _computed(self.child)
            return False
        self.waited += since
        if self.waited <= seconds:
            return False
        idle = self.waited > _IDLE_FACTOR * seconds  # waits for what never comes
        return idle or _computed(self.child) - self.computed > seconds


def _computed(process: int) -> float:
    """Return the seconds of processor time of a process; the clock where the system tells none."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return time.monotonic()


def _exit_code(code: int, note: Note, *, hung: bool) -> int:
    """Return the exit code for that of the child, with a message where it was killed."""
    if code >= 0:
        return code
    _, seconds, doing = note.read()
    running = doing if note.read()[0] else ""
    name = signal.Signals(-code).name
    if hung:
        what = f"{running}: does not end within {seconds:.0f} s, and was stopped"
        hint = "Give smaller inputs; TRIMTAB_HANG_SECONDS=600 waits longer"
    elif name in _CRASHES:
        what = f"{running or 'the command'}: the process died of {name}"
        hint = (
            "The system may have ended it for its memory: give fewer samples or smaller inputs"
            if name == "SIGKILL"
            else "onnxruntime or ONNX crashes on this model; no output was written. Try what "
            "`trimtab simplify` makes of it, which has a newer operator set"
        )
    else:  # somebody ended it: end in the same way
        signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
        os.kill(os.getpid(), -code)
        return 128 - code
    from trimtab.core.text import printable

    with contextlib.suppress(OSError):
        sys.stderr.write(f"trimtab: {printable(what)}. {hint}\n")
        sys.stderr.flush()
    return 2


def _die_with(parent: int) -> None:
    """Let the system end this process when its parent is killed, where it can (Linux)."""
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it is gone already
        os._exit(2)


def _limit_memory() -> None:
    """Refuse this process more memory than the machine has: an error that can be told.

    Without a limit a request for a terabyte may be granted, and the system ends the process, or
    another one, when the memory is used.
    """
    with contextlib.suppress(ImportError, OSError, ValueError, AttributeError):
        import resource

        have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if soft == resource.RLIM_INFINITY:
            resource.setrlimit(resource.RLIMIT_DATA, (have, hard))


def _scratch() -> Path | None:
    """Make the folder of temporary files, which the parent removes however the child ends."""
    above = os.environ.get("TMPDIR") or os.environ.get("TEMP") or os.environ.get("TMP") or "/tmp"  # noqa: S108
    folder = Path(above) / f"trimtab-{os.getpid()}-{time.time_ns():x}"
    try:
        folder.mkdir(0o700)
    except OSError:
        return None
    return folder


def _remove(scratch: Path) -> None:
    """Remove the folder; it is empty after most commands."""
    try:
        scratch.rmdir()
    except OSError:
        import shutil

        shutil.rmtree(scratch, ignore_errors=True)
