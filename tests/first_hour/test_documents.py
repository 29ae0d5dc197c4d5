"""A stranger's first hour: the blocks of the tutorials and of the README run as they are written.

A block with a title is written to that file; one of `bash` is run in the same folder. A comment
`<!-- not run: why -->` before a block says what it lacks here. Searches and measurements are
shorter than a reader's, and a gate that comes to no decision is as good as one that held.

`make first-hour` runs all of them, in some minutes; `make test` those that train nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import documents
import numpy as np
import pytest
import yaml

from trimtab.models.digits import digits_cnn

TUTORIALS = sorted((documents.ROOT / "docs" / "tutorials").glob("*.md"))
TUTORIALS_IN_CELLS = sorted((documents.ROOT / "docs" / "tutorials").glob("*.ipynb"))
#: Exit code for that of a command: 3 and 4 are of gates that are undecided.
UNDECIDED = "$? == 3 || $? == 4 ? 0 : $?"
#: Tutorials that take half a minute and more.
LONG = {"image-classifier", "sentence-encoder", "detector", "speech-stream"}
pytestmark = pytest.mark.slow
with_time = pytest.mark.skipif(
    not os.environ.get("TRIMTAB_FIRST_HOUR"), reason="takes long: `make first-hour` runs it"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the examples of the checkout, and `trimtab` among the commands."""
    (tmp_path / "examples").symlink_to(documents.ROOT / "examples")
    commands = tmp_path / ".bin"
    commands.mkdir()
    for name, module in (("python", ""), ("trimtab", "-m trimtab")):
        script = commands / name
        script.write_text(f'#!/bin/sh\n"{sys.executable}" {module} "$@" || exit $(({UNDECIDED}))\n')
        script.chmod(0o755)
    return tmp_path


def run(code: str, folder: Path) -> int:
    """Run lines of bash in a folder; returns the exit code of the first that fails."""
    path = os.pathsep.join([str(folder / ".bin"), os.environ["PATH"]])
    roots = [str(documents.ROOT), str(folder)]
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(roots)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    sys.stdout.write("\n".join([code, done.stdout, done.stderr]))
    return done.returncode


@pytest.mark.parametrize(
    "tutorial",
    [pytest.param(t, id=t.stem, marks=[with_time] if t.stem in LONG else []) for t in TUTORIALS],
)
def test_a_tutorial_runs_as_written(tutorial: Path, folder: Path) -> None:
    pytest.importorskip("tokenizers", reason="needs tokenizers")
    pytest.importorskip("PIL", reason="needs pillow")
    for block in documents.blocks(tutorial.read_text(encoding="utf-8")):
        if block.title:
            path = folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.code, encoding="utf-8")
            if block.language == "yaml":
                assert isinstance(yaml.safe_load(block.code), dict)
        elif block.not_run:
            assert block.language == "bash"
        else:
            assert block.language == "bash", f"neither a file nor commands: {block.code}"
            assert run(hurried(block.code), folder) == 0


@with_time
@pytest.mark.parametrize("notebook", TUTORIALS_IN_CELLS, ids=lambda path: path.stem)
def test_the_cells_of_a_notebook_run_in_their_order(notebook: Path, folder: Path) -> None:
    cells = [text for kind, text in documents.notebook_cells(notebook) if kind == "code"]
    (folder / "cells.py").write_text("\n".join(cells), encoding="utf-8")
    assert run("python cells.py", folder) == 0
    assert (folder / "out" / "model.onnx").exists()


def hurried(code: str) -> str:
    """Return commands that try one candidate, and measure without processes of their own."""
    quick = r"\1 --in-process --max-time 1s"
    code = re.sub(r"(?m)^(trimtab bench .*?)(?: --max-time \w+)?$", quick, code)
    return re.sub(r"(?m)^(trimtab optimize .*)$", r"\1 --trials 1", code)


@with_time
def test_the_commands_of_the_readme_run_as_written(folder: Path) -> None:
    _files_of_a_reader(folder)
    text = (documents.ROOT / "README.md").read_text(encoding="utf-8")
    blocks = list(documents.blocks(text))
    for block in blocks:
        if block.language == "yaml":
            (folder / "budgets.yaml").write_text(block.code, encoding="utf-8")
    code = "\n".join(
        f"```\n{b.code}```" for b in blocks if not b.not_run and b.language != "python"
    )
    lines = [line for line, _ in documents.command_lines(code)]
    assert len(lines) >= 7
    for line in lines:
        # This network is not trained: a search may find nothing, and a gate that it is not good.
        allowed = {0, 1} if line.split()[1] in {"optimize", "gate"} else {0}
        if line.startswith("trimtab gate") and not (folder / "out" / "model.onnx").exists():
            shutil.copy(folder / "int8.onnx", folder / "out" / "model.onnx")
        assert run(hurried(line), folder) in allowed


def _files_of_a_reader(folder: Path) -> None:
    """Write what the README's commands are about: a factory, weights and data."""
    from safetensors.torch import save_file

    package = folder / "mypackage"
    package.mkdir()
    (package / "net.py").write_text(
        "from trimtab.models.digits import DigitsCnn\n\n\n"
        "def make_net():\n    net = DigitsCnn(10, (8, 16), 0.0)\n"
        "    from torch import nn\n    net.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)\n"
        "    return net\n"
    )
    from torch import nn

    net = digits_cnn(widths=(8, 16))
    net.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    save_file(net.state_dict(), folder / "net.safetensors")
    random = np.random.default_rng(0)
    for name, count in (("calib", 32), ("eval", 64)):
        pictures = random.normal(size=(count, 3, 32, 32)).astype(np.float32)
        np.savez(folder / f"{name}.npz", input=pictures, labels=random.integers(0, 10, count))
