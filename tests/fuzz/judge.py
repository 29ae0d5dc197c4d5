"""Commands on one mutant, each in a process of its own, and what may not happen there."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import onnx

from .mutations import SECRET, write_mutant

COMMANDS = {
    "simplify": ["simplify", "m.onnx", "-o", "out.onnx"],
    "dynamic": ["quantize-dynamic", "m.onnx", "-o", "out.onnx"],
    "half": ["half", "m.onnx", "-o", "out.onnx"],
    "magnitude": ["prune-magnitude", "m.onnx", "-o", "out.onnx"],
    "prune": ["prune-channels", "m.onnx", "-o", "out.onnx", "--ratio", "0.3"],
    "weights": ["quantize-weights", "m.onnx", "-o", "out.onnx"],
    "forms": ["apply-forms", "m.onnx", "-o", "out.onnx"],
    "doctor": ["doctor", "m.onnx", "--no-profile", "--threads", "1"],
}
#: Seconds of processor time (other work on the machine makes no hang) and bytes that are too many.
HANG_SECONDS, MOST_BYTES = 60.0, 3 << 30
#: Seconds after which a run is ended even though it computes nothing.
KILL_SECONDS = 600.0
#: Address space of a run: more than may be used, less than would hurt the machine.
LIMIT_BYTES = 8 << 30
BAD_WORDS = ("bug of", "Traceback", "unexpected ", "core dumped")


@dataclass(frozen=True)
class Fault:
    """Something that may not happen: mutant, what was done to it, command, and what happened."""

    number: int
    made: str
    command: str
    what: str

    def __str__(self) -> str:
        return f"mutant {self.number} ({self.made}) {self.command}: {self.what}"


def judge(number: int, commands: list[str]) -> list[Fault]:
    """Return the faults of these commands on a mutant."""
    faults = []
    for command in commands:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as top:
            folder = Path(top) / "downloads"
            for path in (folder, Path(top) / "tmp", Path(top) / "cwd"):
                path.mkdir()
            made = write_mutant(number, folder)
            (Path(top) / "secret.bin").write_bytes(SECRET * 40)
            (Path(top) / "cwd" / "secret.bin").write_bytes(SECRET * 40)
            faults += [Fault(number, made, command, w) for w in _run(Path(top), command)]
    return faults


def _run(top: Path, command: str) -> list[str]:
    cwd, folder = top / "cwd", top / "downloads"
    arguments = [str(folder / a) if a == "m.onnx" else a for a in COMMANDS[command]]
    before = _files(top)
    log = top / "log"
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _be_the_command(arguments, cwd, top, log)
    code, peak, computed = _wait(pid, start)
    seconds = time.monotonic() - start
    text = log.read_text(errors="replace")
    wrong = []
    if code < 0:
        wrong.append(f"dies of signal {-code} after {seconds:.0f} s")
    elif code not in {0, 1, 2, 3, 4}:
        wrong.append(f"exit code {code}")
    if computed > HANG_SECONDS or seconds > KILL_SECONDS:
        wrong.append(f"takes {computed:.0f} s of processor time, {seconds:.0f} s in all")
    if peak > MOST_BYTES:
        wrong.append(f"takes {peak / 1e9:.1f} GB")
    said = [line for line in text.splitlines() if any(word in line for word in BAD_WORDS)]
    wrong += [f"says {said[-1][:400]}"] if said else []
    if any(c in text for c in "\x1b\x07\u202e"):
        wrong.append("sends control characters")
    if code != 0 and not text.strip():
        wrong.append("says nothing")
    return wrong + _judge_files(top, before, code)


def _judge_files(top: Path, before: set[str], code: int) -> list[str]:
    new = sorted(_files(top) - before - {"log"})
    wrong = [f"leaves {name}" for name in new if name != "cwd/out.onnx"]
    out = top / "cwd" / "out.onnx"
    if code != 0 and out.exists():
        wrong.append("writes an output and fails")
    if out.exists():
        data = out.read_bytes()
        if SECRET[:19] in data:
            wrong.append("reads a file from outside")
        try:
            onnx.ModelProto.FromString(data)
        except Exception:  # noqa: BLE001
            wrong.append("writes half a file")
    return wrong


def _files(top: Path) -> set[str]:
    return {str(p.relative_to(top)) for p in top.rglob("*")}


def _be_the_command(arguments: list[str], cwd: Path, top: Path, log: Path) -> None:
    """Run the program in this forked process, as it runs when a user starts it."""
    code = 70
    try:
        os.setsid()
        os.chdir(cwd)
        os.environ["TMPDIR"] = tempfile.tempdir = str(top / "tmp")
        os.environ.pop("TRIMTAB_HANG_SECONDS", None)
        file = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout, sys.stderr = (os.fdopen(os.dup(f), "w", buffering=1) for f in (1, 2))
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.argv = ["trimtab", *arguments]
        from trimtab.cli import main

        tempfile.tempdir = None
        code = main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 2
    except BaseException as error:  # noqa: BLE001
        os.write(2, f"Traceback: {type(error).__name__} {error}".encode())
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _wait(pid: int, start: float) -> tuple[int, int, float]:
    """Return exit code (below 0 for a signal), peak of memory, and seconds of processor time."""
    while time.monotonic() - start < KILL_SECONDS:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            break
        time.sleep(0.005)
    else:
        os.killpg(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
    # Those of the command itself, a child of this process's child, are in the sum.
    computed = usage.ru_utime + usage.ru_stime
    return os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024, computed


def warm() -> None:
    """Import what commands need, once; no session is built, so no thread is lost by the forks."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # noqa: F401

    import trimtab.passes as passes

    for name in passes.names():
        with contextlib.suppress(Exception):
            if name not in {"recover", "finetune", "distill"}:
                passes.find(name)
    shutil.which("true")
