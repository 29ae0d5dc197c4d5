from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx.parser
import pytest
from int8_graphs import normal, residual

from trimtab.cli import main
from trimtab.core.context import Context
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import SessionConfig
from trimtab.core.sources.preprocess import Preprocess
from trimtab.core.target import Target
from trimtab.packaging.folder import NOT_RUN, Package, write_package
from trimtab.packaging.places import PLACES, place_of
from trimtab.passes.quantization.static import QuantizeStatic

ROOT = Path(__file__).parent.parent.parent
HOW = Preprocess("crop:8", "bgr", 1.0, (1.0, 2.0, 3.0), (4.0,), "nhwc")


def packaged(model: Model, place: str, folder: Path, **options: Any) -> dict[str, Any]:
    made = Package(model, place_of(place), random_feeds(model), SessionConfig(), **options)
    return write_package(made, folder)


def int8(target: str) -> Model:
    made = residual()
    return QuantizeStatic()(made, Context(target=Target.named(target), data=normal(made, rows=4)))


@pytest.mark.parametrize(("place", "ort"), [*((p, False) for p in PLACES), ("mobile", True)])
def test_a_package_has_what_its_place_needs_and_python_proves_it(
    place: str, ort: bool, tmp_path: Path
) -> None:
    found = packaged(residual(), place, tmp_path / "out", preprocess=HOW, ort=ort)
    folder = tmp_path / "out"
    assert json.loads((folder / "manifest.json").read_text()) == found
    assert found["samples"]["python/run.py"]["ran"].startswith("as expected")
    assert found["model"] == ("model.ort" if ort else "model.onnx")
    for path, known in found["samples"].items():
        assert known["ran"] == NOT_RUN or path == "python/run.py"
        text = (folder / path).read_text()
        assert "$MODEL" not in text
        assert path.endswith(("txt", "html")) or found["model"] in text or "manifest.json" in text
    for name, digest in found["checksums"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert found["sizes"]["model"] == (folder / found["model"]).stat().st_size
    assert found["preprocess"]["way"] == "crop"
    assert found["model"] in (folder / "README.md").read_text()


@pytest.mark.slow
def test_required_operators_are_those_of_the_graph_that_runs(tmp_path: Path) -> None:
    """The optimizer's own operators are among them, and those of x64 only where x64 runs."""
    server = packaged(residual(), "server", tmp_path / "server")["operators"]
    web = packaged(residual(), "web", tmp_path / "web", ort=True)["operators"]
    assert "com.microsoft.nchwc:Conv" in server
    assert "ai.onnx:Conv" in server
    assert not [name for name in web if "nchwc" in name]
    phone = packaged(int8("arm64"), "mobile", tmp_path / "mobile", ort=True)["operators"]
    assert "com.microsoft:QLinearAdd" in phone
    assert "int8_t" in (tmp_path / "mobile" / "required_operators.config").read_text()


@pytest.mark.slow
def test_the_sample_says_where_the_outputs_are_others(tmp_path: Path) -> None:
    found = packaged(residual(), "server", tmp_path / "out")
    output = tmp_path / "out" / found["outputs"][0]["file"]
    output.write_bytes(bytes(output.stat().st_size))
    done = subprocess.run(
        [sys.executable, tmp_path / "out/python/run.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "NOT as expected" in done.stdout


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("packaged_sample", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_sample_prepares_pictures_as_the_data_were(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="needs Pillow: pip install trimtab[images]")
    from PIL import Image

    from trimtab.packaging.folder import _preparation

    packaged(residual(), "server", tmp_path / "out")
    sample = loaded(tmp_path / "out/python/run.py")
    pixels = np.random.default_rng(0).integers(0, 256, (37, 61, 3), np.uint8)
    picture = Image.fromarray(pixels)
    ways = ("letterbox:24x40", "letterbox-corner:32", "crop:16@20", "stretch:9", "")
    for how in (HOW, *(Preprocess(way) for way in ways), replace(HOW, colour="grey", mean=())):
        sample.PACKAGE["preprocess"] = json.loads(json.dumps(_preparation(how)))
        np.testing.assert_array_equal(sample.prepare(picture), how(picture))


def modules_of_node() -> Path:
    given = os.environ.get("TRIMTAB_NODE_MODULES")
    folder = Path(given) if given else ROOT / "out/node/node_modules"
    if shutil.which("node") is None or not (folder / "onnxruntime-web").is_dir():
        pytest.skip("needs node and onnxruntime-web: npm install --prefix out/node onnxruntime-web")
    return folder


@pytest.mark.parametrize("kind", ["float", "int8", "ort"])
def test_the_sample_in_javascript_runs(kind: str, tmp_path: Path) -> None:
    modules = modules_of_node()
    model = int8("x64-avx512-vnni") if kind == "int8" else residual()
    packaged(model, "web", tmp_path / "out", ort=kind == "ort")
    (tmp_path / "out" / "node_modules").symlink_to(modules)
    done = subprocess.run(
        ["node", "web/run.mjs"], cwd=tmp_path / "out", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("as expected")


def test_the_sample_in_cpp_runs(tmp_path: Path) -> None:
    given = os.environ.get("TRIMTAB_ONNXRUNTIME")
    if given is None or shutil.which("cmake") is None:
        pytest.skip(
            "needs cmake, and TRIMTAB_ONNXRUNTIME=FOLDER with onnxruntime's include and lib"
        )
    packaged(residual(), "server", tmp_path / "out")
    build = ["cmake", "-S", "cpp", "-B", "build", f"-DONNXRUNTIME={given}"]
    for words in (build, ["cmake", "--build", "build"], ["build/run", "."]):
        subprocess.run(words, cwd=tmp_path / "out", check=True)


@pytest.mark.slow
def test_the_command_packages_what_optimize_wrote(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "optimized"
    folder.mkdir()
    residual().save(folder / "model.onnx")
    rows = np.random.default_rng(0).normal(size=(4, 8, 12, 12)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=rows)
    (folder / "budgets.yaml").write_text(
        "model: model.onnx\ndata: ../data.npz\nbudgets: {size: 9MB}\n"
    )
    assert main(["package", str(folder), "-o", str(tmp_path / "out"), "--for", "server"]) == 0
    assert "python/run.py: as expected" in capsys.readouterr().out
    first = np.frombuffer((tmp_path / "out/example/input_0.bin").read_bytes(), np.float32)
    np.testing.assert_array_equal(first, rows[:1].ravel())


TEXT = (
    '<ir_version: 8, opset_import: ["": 17]> t (string[1] x) => (string[1] y) { y = Identity (x) }'
)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--for", "phone"], "unknown place 'phone'"),
        (["--for", "web", "-o", "full"], "exists and is not empty"),
        (["--for", "web", "text.onnx"], "is not a tensor of numbers"),
    ],
)
def test_what_cannot_be_packaged_is_one_message(
    words: list[str], said: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").touch()
    residual().save(tmp_path / "m.onnx")
    onnx.save(onnx.parser.parse_model(TEXT), "text.onnx")
    model = [] if "text.onnx" in words else ["m.onnx"]
    output = [] if "-o" in words else ["-o", "out"]
    assert main(["package", *model, *words, *output]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full", "m.onnx", "text.onnx"]
