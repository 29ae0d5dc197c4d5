"""Light install: packages, megabytes, seconds, and wheels for an ARM board.

    python benchmarks/project/light_install.py [--python 3.11]

Makes a virtual environment, installs this checkout without extras, and runs `import trimtab` and
`trimtab bench --help` in it. For the board every dependency is resolved and downloaded as a wheel
for manylinux aarch64; none of it is run.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import requires
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64")
#: Packages of every environment, which are not counted.
SHARED = {"pip", "setuptools", "wheel"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=f"{sys.version_info[0]}.{sys.version_info[1]}")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trimtab-light-") as name:
        folder = Path(name)
        run(sys.executable, "-m", "venv", str(folder / "venv"))
        python = str(folder / "venv" / "bin" / "python")
        empty = megabytes(folder / "venv")
        start = time.monotonic()
        run(
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "-c",
            str(ROOT / "constraints.txt"),
            str(ROOT),
        )
        seconds = time.monotonic() - start
        run(python, "-c", "import trimtab")
        run(str(folder / "venv" / "bin" / "trimtab"), "bench", "--help")
        listed = json.loads(run(python, "-m", "pip", "list", "--format", "json"))
        packages = sorted(p["name"] for p in listed if p["name"] not in SHARED)
        assert "torch" not in packages
        grown = megabytes(folder / "venv") - empty
        wheels = board_wheels(folder / "wheels", args.python)
    print(", ".join(packages))
    print(f"for aarch64: {', '.join(wheels)}")
    print(
        f"FIGURE packages={len(packages)} megabytes={grown:.0f} seconds={seconds:.0f} "
        f"aarch64_wheels={len(wheels)}"
    )


def board_wheels(folder: Path, python: str) -> list[str]:
    """Download the wheels that pip would install on a board, and return their names."""
    needed = [r for r in requires("trimtab") or [] if "extra ==" not in r]
    platforms = [word for p in PLATFORMS for word in ("--platform", p)]
    run(
        *(sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"),
        *("--python-version", python, "--implementation", "cp", *platforms),
        *("--dest", str(folder), "-c", str(ROOT / "constraints.txt"), *needed),
    )
    return sorted(re.split(r"-\d", path.name, maxsplit=1)[0] for path in folder.glob("*.whl"))


def megabytes(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6


def run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
