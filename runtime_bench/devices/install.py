"""Install trimtab on a device without internet, from wheels collected here."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from trimtab.core.cache import LINUX_CACHE_ROOT
from trimtab.core.errors import OptionError, RunError
from trimtab.core.progress import Progress

from .check import (
    PYTHON,
    SPACE_BYTES,
    DeviceCheck,
    check,
    required_distributions,
    requirements,
    version_here,
)
from .ssh import Ssh

#: Oldest C library that wheels are made for, and the names that such wheels had before.
_OLDEST_LIBC, _OLD_NAMES = 17, {17: "manylinux2014"}
_WHEEL = re.compile(r"[A-Za-z0-9_.+!]+(-[A-Za-z0-9_.+!]+){4,5}\.whl")
#: Seconds for one wheel to get there, and for the installation.
_SECONDS = 900.0
#: Programs for the device's Python, standard library only; names come as words, data by pipe.
_FOLDER = f"""
import hashlib, json, os, pathlib, sys
folder = pathlib.Path({LINUX_CACHE_ROOT}) / "wheels"
folder.mkdir(parents=True, exist_ok=True)
"""
_LIST = (
    _FOLDER
    + """
known = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.whl")}
print("TRIMTAB" + json.dumps({"folder": str(folder), "known": known}))
"""
)
_RECEIVE = (
    _FOLDER
    + """
part = folder / (sys.argv[1] + ".part")
part.write_bytes(sys.stdin.buffer.read())
os.replace(part, folder / sys.argv[1])
"""
)


def install(device: Ssh, progress: Progress, wheels: Path | None = None) -> DeviceCheck:
    """Install trimtab and its requirements on a device, and check the device again.

    Its Python needs pip, but no internet: wheels come from a folder, or are downloaded here.

    Raises:
        OptionError: the folder has no wheel of trimtab.
        RunError: the device is unfit, a wheel is not available, or pip fails there.
    """
    found = check(device)
    _require_fit(found)
    if wheels is not None:
        return _install_wheels(device, progress, _wheels_in(wheels))
    with tempfile.TemporaryDirectory(prefix="trimtab-wheels-") as name:
        system = f"{found.facts['machine']}, {' '.join(found.facts['libc'])}"
        progress.say(f"downloading wheels for Python {_python(found.facts)} on {system}")
        return _install_wheels(device, progress, download_wheels(found.facts, Path(name)))


def download_wheels(facts: Mapping[str, Any], folder: Path) -> list[Path]:
    """Download wheels of trimtab and its requirements, in the versions used here where possible.

    They suit the `python`, `machine` and `libc` among the facts of the device.

    Raises:
        RunError: pip finds no wheel for that system.
    """
    _own_wheel(folder)
    same = [
        f"{name}=={known}" for name in required_distributions() if (known := version_here(name))
    ]
    where = [
        *("--only-binary=:all:", "--python-version", _python(facts), "--implementation", "cp"),
        *(word for tag in platforms(facts) for word in ("--platform", tag)),
        *("--dest", str(folder)),
    ]
    try:
        _pip("download", *where, *same)
    except RunError:  # an older or newer Python may have no wheel of these
        _pip("download", *where, *requirements())
    return sorted(folder.glob("*.whl"))


def platforms(facts: Mapping[str, Any]) -> list[str]:
    """Return the platform tags of the wheels that a device takes, the newest first (PEP 600).

    Raises:
        RunError: its C library is not the GNU one.
    """
    name, known = facts["libc"]
    major, _, minor = known.partition(".")
    if name != "glibc" or major != "2" or not minor.isdigit():
        raise RunError(
            f"its C library is {name or 'not known'} {known}".rstrip() + ", not glibc 2",
            where="device install",
            hint="Collect wheels for it yourself and name their folder: --wheels FOLDER",
        )
    tags = []
    for step in range(int(minor), _OLDEST_LIBC - 1, -1):
        tags.append(f"manylinux_2_{step}_{facts['machine']}")
        if step in _OLD_NAMES:
            tags.append(f"{_OLD_NAMES[step]}_{facts['machine']}")
    return tags


def _require_fit(found: DeviceCheck) -> None:
    python, free = tuple(found.facts["python"]), found.facts["free"]
    if python < PYTHON:
        raise RunError(found.problems[0], where=str(found.device))
    if free < SPACE_BYTES:
        raise RunError(
            f"{free >> 20} MB are free there, the install takes {SPACE_BYTES >> 20}",
            where=str(found.device),
            hint="Free some, or name an interpreter on a larger disk: ssh://...?python=",
        )


def _wheels_in(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.whl")) if folder.is_dir() else []
    if not any(path.name.startswith("trimtab-") for path in found):
        raise OptionError(
            "has no wheel of trimtab" if found else "is not a folder of wheels",
            where=f"--wheels {folder}",
            hint="pip download --only-binary=:all: --platform ... --dest FOLDER trimtab",
        )
    return found


def _install_wheels(device: Ssh, progress: Progress, wheels: Sequence[Path]) -> DeviceCheck:
    there = json.loads(device.output([device.python, "-c", _LIST]).partition("TRIMTAB")[2])
    rebuilt = False
    for path in wheels:
        if not _WHEEL.fullmatch(path.name):
            raise OptionError(
                f"{path.name!r} is not a valid name of a wheel", where=str(path.parent)
            )
        data = path.read_bytes()
        if there["known"].get(path.name) == hashlib.sha256(data).hexdigest():
            continue
        progress.say(f"sending {path.name}, {len(data) / 1e6:.1f} MB")
        device.output([device.python, "-c", _RECEIVE, path.name], data, _SECONDS)
        rebuilt |= path.name.startswith("trimtab-")
    progress.say("installing there")
    pip = [device.python, "-m", "pip", "install", "--quiet", "--no-index"]
    lacks_runtime = check(device).facts["packages"].get("onnxruntime") is None
    wanted = "trimtab[cpu]" if lacks_runtime else "trimtab"
    where = ["--find-links", there["folder"], wanted]
    device.output([*pip, "--upgrade", *where], seconds=_SECONDS)
    if rebuilt:  # another build of the version that was there already
        device.output([*pip, "--force-reinstall", "--no-deps", *where], seconds=_SECONDS)
    return check(device)


def _own_wheel(folder: Path) -> None:
    """Make a wheel of this trimtab, from its sources where it runs from them."""
    origin = distribution("trimtab").read_text("direct_url.json")
    source = json.loads(origin)["url"] if origin else ""
    if source.startswith("file://"):
        _pip("wheel", "--no-deps", "--wheel-dir", str(folder), url2pathname(urlsplit(source).path))
    else:
        wanted = f"trimtab=={version('trimtab')}"
        _pip("download", "--no-deps", "--only-binary=:all:", "--dest", str(folder), wanted)


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words, "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise RunError(
            f"pip found no wheels for the device: {done.stderr.strip().rpartition(chr(10))[2]}",
            where="device install",
            hint="Collect them where there is internet, and name their folder: --wheels FOLDER",
        )


def _python(facts: Mapping[str, Any]) -> str:
    return ".".join(map(str, facts["python"][:2]))
