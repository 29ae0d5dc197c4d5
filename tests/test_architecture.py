"""Rules of the architecture that no linter knows: imports of folders, links, light imports."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("core", "exporter", "passes", "runtime_bench", "models")
# The folders that each folder may import.
ALLOWED = {
    "core": {"core"},
    "exporter": {"core", "exporter"},
    "passes": {"core", "passes"},
    "runtime_bench": {"core", "runtime_bench"},
    "models": {"core", "models"},
}
# The bench runs as a command and reads the command line's spellings of durations and sizes.
SHARED_TEXT = {"recipe", "report"}


def sources(layer: str) -> list[Path]:
    folder = ROOT / layer
    return sorted(folder.rglob("*.py"))


def imported_layers(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {n.split(".")[1] for n in names if n.startswith("trimtab.")}
    return found


@pytest.mark.parametrize("layer", ALLOWED)
def test_a_layer_imports_only_what_it_may(layer: str) -> None:
    allowed = ALLOWED[layer] | (SHARED_TEXT if layer == "runtime_bench" else set())
    wrong = {
        str(path.relative_to(ROOT)): extra
        for path in sources(layer)
        if (extra := imported_layers(path) - allowed)
    }
    assert wrong == {}


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_link_resolves_to_its_folder(folder: str) -> None:
    link = ROOT / "trimtab" / folder
    assert link.is_symlink()
    assert not Path(link.readlink()).is_absolute()
    assert link.resolve() == ROOT / folder


def test_every_package_is_installed() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {
        path.parent.relative_to(ROOT)
        for top in ("trimtab", *FOLDERS)
        for path in (ROOT / top).rglob("__init__.py")
        if "/trimtab/" not in str(path.relative_to(ROOT))
    }
    names = {
        str(f).replace("/", ".") if f.parts[0] == "trimtab" else "trimtab." + ".".join(f.parts)
        for f in folders
        if not (len(f.parts) > 1 and f.parts[0] == "trimtab" and f.parts[1] in FOLDERS)
    }
    assert names == set(config["packages"])


def test_each_configured_tool_is_installed_for_development() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    required = [
        *config["build-system"]["requires"],
        *config["project"]["optional-dependencies"]["dev"],
    ]
    # import-linter reads [tool.importlinter].
    names = {re.split(r"[\[<>=~ ]", entry)[0].replace("-", "") for entry in required}
    assert set(config["tool"]) <= names


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return done.stdout.strip()


def test_importing_trimtab_imports_nothing_heavy() -> None:
    code = (
        "import sys, trimtab; "
        "print([m for m in ('torch', 'onnxruntime', 'numpy') if m in sys.modules])"
    )
    assert run_python(code) == "[]"


def test_help_imports_neither_torch_nor_onnxruntime() -> None:
    code = (
        "import sys; from trimtab.cli import main; main(['--help']); "
        "print([m for m in ('torch','onnxruntime','numpy','onnx') if m in sys.modules])"
    )
    assert run_python(code).endswith("[]")


def test_listing_the_passes_needs_no_torch() -> None:
    code = (
        "import sys; from trimtab.passes import registry; registry(); print('torch' in sys.modules)"
    )
    assert run_python(code) == "False"


def test_every_public_name_exists() -> None:
    import trimtab

    assert [n for n in trimtab.__all__ if not hasattr(trimtab, n)] == []
    assert set(trimtab.__all__) == set(dir(trimtab))


def test_no_pass_of_torch_is_imported_by_the_light_install() -> None:
    """Modules that import torch at the top are imported only by those that need torch."""
    light = [*sources("core"), *sources("runtime_bench"), *sources("passes")]
    light = [path for path in light if "torch_graph" not in path.parts]
    top_level = {
        str(path.relative_to(ROOT))
        for path in light
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        and "torch" in ast.unparse(node).replace(".", " ").split()
    }
    assert {p for p in top_level if "trimtab.passes.training.torch_graph" not in p} == set()
