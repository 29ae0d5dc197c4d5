from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest

from trimtab.core.errors import MissingExtraError
from trimtab.core.runtime import runtime

ROOT = Path(__file__).parent.parent.parent


def test_trimtab_requires_no_build_of_onnxruntime_and_each_extra_brings_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert not [r for r in project["dependencies"] if r.startswith("onnxruntime")]
    builds = {"cpu", "gpu", "directml", "openvino", "qnn", "webgpu"}
    brings = {
        name: {re.split(r"[<>=]", r)[0] for r in wanted if r.startswith("onnxruntime")}
        for name, wanted in extras.items()
    }
    assert {name for name, found in brings.items() if found} == builds
    for name in builds:
        assert len({r for r in brings[name] if "-ep-" not in r and r != "onnxruntime-qnn"}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("command", [["providers"], ["bench", "m.onnx"]])
def test_no_build_is_one_message_and_exit_2(command: list[str], tmp_path: Path) -> None:
    model = (
        '<ir_version: 8, opset_import: ["": 17]> m (float[1] x) => (float[1] y) { y = Relu (x) }'
    )
    hide = (
        "import sys, onnx.parser; "
        f"onnx.save(onnx.parser.parse_model({model!r}), 'm.onnx'); "
        "from importlib.abc import MetaPathFinder\n"
        "class Hide(MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'onnxruntime': raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
        f"from trimtab.cli import main; sys.exit(main({command!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", hide], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("trimtab: onnxruntime is not installed. Install the build")
    assert done.stderr.count("\n") == 1


def test_what_an_uninstalled_build_leaves_behind_is_told(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
    with pytest.raises(MissingExtraError, match="of two builds one was uninstalled"):
        runtime()
