"""Facts about a device and what it lacks, found with nothing but its Python."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from trimtab.core.errors import RunError
from trimtab.core.ort.builds import BUILDS

from .ssh import Ssh

#: Oldest interpreter that trimtab runs on, and space that its light install takes.
PYTHON, SPACE_BYTES = (3, 11), 600 << 20
_CPU_EXTRA = re.compile(r"extra == ['\"]cpu['\"]")
#: Runs there, whatever is installed: no import beyond the standard library.
_PROBE = """
import json, os, platform, shutil, sys
from importlib import metadata
def known(name):
    for each in %s if name == "onnxruntime" else [name]:
        try:
            return metadata.version(each)
        except metadata.PackageNotFoundError:
            pass
home = os.path.expanduser("~")
print("TRIMTAB" + json.dumps({
    "python": list(sys.version_info[:3]), "machine": platform.machine(),
    "system": platform.system() + " " + platform.release(), "executable": sys.executable,
    "libc": platform.libc_ver(),
    "free": shutil.disk_usage(home).free, "writable": os.access(home, os.W_OK),
    "packages": {name: known(name) for name in %s},
}))
"""


@dataclass(frozen=True)
class DeviceCheck:
    """Result of a look at a device.

    Attributes:
        facts: its description of itself.
        problems: missing things with their remedy, most urgent first.
        remarks: differences that may affect the figures.
    """

    device: Ssh
    facts: Mapping[str, Any]
    problems: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def ready(self) -> bool:
        """True where it can measure."""
        return not self.problems


def check(device: Ssh) -> DeviceCheck:
    """Find out what a device is and what it lacks.

    Raises:
        RunError: it cannot be reached, or has no Python.
    """
    names = ["trimtab", *required_distributions()]
    said = device.output([device.python, "-c", _PROBE % (json.dumps(BUILDS), json.dumps(names))])
    _, mark, answer = said.partition("TRIMTAB")
    if not mark:
        raise RunError(
            "its Python answers with something other than expected",
            where=str(device),
            hint=f"Is {device.python} a Python? It said: {said.strip()[:200]}",
        )
    facts: dict[str, Any] = json.loads(answer.splitlines()[0])
    return DeviceCheck(device, facts, tuple(_problems(device, facts)), tuple(_remarks(facts)))


def required_distributions() -> list[str]:
    """Return the names of the distributions that a device needs."""
    return [distribution_name(r) for r in requirements()]


def requirements() -> list[str]:
    """Return the requirements of trimtab on a device: no extra but the usual onnxruntime."""
    stated = requires("trimtab") or []
    needed = [r for r in stated if "extra ==" not in r]
    runtimes = [r.partition(";")[0].strip() for r in stated if _CPU_EXTRA.search(r)]
    return list(dict.fromkeys([*needed, *runtimes]))


def distribution_name(requirement: str) -> str:
    """Return the distribution that a requirement names."""
    return re.split(r"[\s<>=!~;\[(]", requirement, maxsplit=1)[0]


def _problems(device: Ssh, facts: Mapping[str, Any]) -> list[str]:
    python, packages = tuple(facts["python"]), facts["packages"]
    if python < PYTHON:
        newest = ".".join(map(str, PYTHON))
        return [
            f"its Python is {'.'.join(map(str, python))}, {newest} is needed: install one, "
            "and name it as ssh://...?python=/path/to/python3"
        ]
    found = []
    lacks = [name for name, known in packages.items() if known is None]
    if lacks and facts["free"] < SPACE_BYTES:
        found.append(
            f"{facts['free'] >> 20} MB are free, the install takes {SPACE_BYTES >> 20}: free some"
        )
    if not facts["writable"]:
        found.append("its home folder cannot be written: set TRIMTAB_CACHE there to one that can")
    if "trimtab" in lacks:
        found.append(
            f"it lacks {', '.join(lacks)}: run there: {device.python} -m pip install "
            "'trimtab[cpu]'; without internet there, from here: trimtab device install"
        )
    elif lacks:
        found.append(
            f"it lacks {', '.join(lacks)}: run there: {device.python} -m pip install "
            f"{' '.join(lacks)}"
        )
    return found


def _remarks(facts: Mapping[str, Any]) -> list[str]:
    found = []
    for name in ("trimtab", "onnxruntime"):
        there, here = facts["packages"].get(name), version_here(name)
        if there and here and there != here:
            found.append(f"{name} is {there} there and {here} here: kernels and speed may differ")
    return found


def version_here(name: str) -> str | None:
    """Return the version of a distribution on this machine, None where it is not installed."""
    with contextlib.suppress(PackageNotFoundError):
        return version(name)
    return None


def check_lines(found: DeviceCheck) -> list[str]:
    """Return the result as lines of text."""
    facts = found.facts
    python = ".".join(map(str, facts["python"]))
    packages = ", ".join(f"{n} {v}" for n, v in facts["packages"].items() if v)
    lines = [
        f"{found.device}",
        f"  {facts['system']} on {facts['machine']}, Python {python} ({facts['executable']})",
        f"  {facts['free'] / 1e9:.1f} GB free; {packages or 'nothing of trimtab installed'}",
        *(f"  note: {text}" for text in found.remarks),
        *(f"  missing: {text}" for text in found.problems),
    ]
    return [*lines, "  ready to measure" if found.ready else "  not ready"]
