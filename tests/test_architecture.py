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


def sources(layer: str) -> list[Path]:
    folder = ROOT / layer
    return sorted(folder.rglob("*.py"))


@pytest.mark.parametrize(
    ("link", "folder"),
    [
        *((f"trimtab/{folder}", folder) for folder in FOLDERS),
        *(
            (str(link.relative_to(ROOT)), "benchmarks/common")
            for link in sorted((ROOT / "benchmarks").glob("*/common"))
        ),
    ],
)
def test_each_link_resolves_to_its_folder(link: str, folder: str) -> None:
    path = ROOT / link
    assert path.is_symlink()
    assert not Path(path.readlink()).is_absolute()
    assert path.resolve() == ROOT / folder


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


@pytest.mark.slow
def test_listing_the_passes_needs_no_torch() -> None:
    code = (
        "import sys; from trimtab.passes import registry; registry(); print('torch' in sys.modules)"
    )
    assert run_python(code) == "False"


def test_every_public_name_exists() -> None:
    import trimtab

    assert [n for n in trimtab.__all__ if not hasattr(trimtab, n)] == []
    assert set(trimtab.__all__) == set(dir(trimtab))


@pytest.mark.slow
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


#: Modules that Windows does not have.
POSIX_ONLY = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}


def unguarded_imports(path: Path) -> set[str]:
    """Return the modules that an import of the file needs: not those in a `try` or a function."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
        elif not isinstance(node, ast.Try | ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += ast.iter_child_nodes(node)
    return found


@pytest.mark.slow
def test_windows_can_import_every_module() -> None:
    files = [path for layer in (*FOLDERS, "trimtab") for path in sources(layer)]
    wrong = {
        str(path.relative_to(ROOT)): extra
        for path in files
        if (extra := unguarded_imports(path) & POSIX_ONLY)
    }
    assert wrong == {}


#: `node.attributes["axis"].as_int() if ... else 1`, with the attribute fetched before or not.
BY_HAND = re.compile(
    r"\bin \w+\.attributes\b.*attributes\[|attributes\[.*\bin \w+\.attributes\b"
    r"|\bis None else \w+\.as_\w+"
)


def defaults_by_hand(tree: ast.AST) -> list[int]:
    """Lines of choices that ask whether a node has an attribute and read it."""
    choices = (n for n in ast.walk(tree) if isinstance(n, ast.IfExp | ast.BoolOp))
    return sorted(n.lineno for n in choices if BY_HAND.search(ast.unparse(n)))


@pytest.mark.slow
def test_a_default_of_an_attribute_is_not_spelled_by_hand() -> None:
    """`trimtab.passes.graph.queries.attr` and `node.attributes.get_int` take the default."""
    one_place = ROOT / "passes" / "graph" / "queries.py"
    found = {
        str(path.relative_to(ROOT)): lines
        for path in sources("passes")
        if path != one_place and (lines := defaults_by_hand(ast.parse(path.read_text())))
    }
    assert found == {}


@pytest.mark.parametrize(
    "text",
    [
        'node.attributes["axis"].as_int() if "axis" in node.attributes else 1',
        '"transA" in node.attributes and node.attributes["transA"].as_int()',
        "a.attributes[n].value if n in a.attributes else default",
        "0 if given is None else given.as_int()",
    ],
)
def test_defaults_by_hand_are_found(text: str) -> None:
    code = f"def f(node):\n    given = node.attributes.get('axis')\n    return {text}"
    assert defaults_by_hand(ast.parse(code)) == [3]


@pytest.mark.parametrize(
    "text", ['node.attributes.get_int("axis", 1)', 'node.attributes["perm"].as_ints()']
)
def test_what_is_no_default_by_hand_is_not_found(text: str) -> None:
    assert defaults_by_hand(ast.parse(f"def f(node):\n    return {text}")) == []
