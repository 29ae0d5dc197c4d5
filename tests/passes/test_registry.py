"""The table of passes: what it names, what it imports, and the old names that go on working."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import graphs
import pytest

from trimtab import passes
from trimtab.core.errors import OptionError
from trimtab.passes.base import Pass
from trimtab.search.recipe import Recipe

FOLDER = Path(passes.__file__).parent


def scanned() -> dict[str, str]:
    """Each class of the folder that derives from `Pass`, by others too, and rewrites graphs."""
    classes: dict[str, tuple[ast.ClassDef, str]] = {}
    for path in sorted(FOLDER.rglob("*.py")):
        if "torch_graph" in path.parts:
            continue
        module = ".".join(path.relative_to(FOLDER).with_suffix("").parts)
        nodes = ast.parse(path.read_text()).body
        classes |= {node.name: (node, module) for node in nodes if isinstance(node, ast.ClassDef)}
    derived, before = {"Pass"}, 0
    while len(derived) > before:
        before = len(derived)
        derived |= {n for n, (c, _) in classes.items() if derived & set(map(ast.unparse, c.bases))}
    return {
        name: classes[name][1]
        for name in derived - {"Pass"}
        if any(
            isinstance(f, ast.FunctionDef) and f.name == "rewrite" for f in classes[name][0].body
        )
    }


@pytest.mark.slow
def test_the_table_is_what_a_scan_of_the_folder_finds() -> None:
    assert dict(passes._HOMES.values()) == scanned()
    for name, (kind, module) in passes._HOMES.items():
        found = getattr(importlib.import_module(f"trimtab.passes.{module}"), kind)
        assert issubclass(found, Pass)
        assert found.name() == name


def test_type_checkers_are_told_of_each_name() -> None:
    tree = ast.parse((FOLDER / "__init__.py").read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If))
    told = {a.name for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
    told |= {t.id for n in block.body if isinstance(n, ast.Assign) for t in n.targets}
    assert told | {"find", "names", "registry"} == set(passes.__all__)
    for name in passes.__all__:
        assert inspect.isclass(getattr(passes, name)) or callable(getattr(passes, name))


@pytest.mark.parametrize(("old", "new"), passes.ALIASES.items())
def test_an_old_name_of_a_pass_goes_on_working(old: str, new: str) -> None:
    assert passes.find(old) is passes.find(new)
    assert old not in passes.names()
    assert passes.registry()[old] is passes.find(new)
    assert old not in list(passes.registry())
    assert Recipe.from_json([old]) == Recipe.from_json([new])


def test_old_classes_are_the_new_ones() -> None:
    assert passes.Recover is passes.Finetune
    assert passes.ApplyForms is passes.ApplyRewrites


@pytest.mark.slow
def test_a_recipe_with_old_names_gives_the_bytes_that_the_new_names_give() -> None:
    old = Recipe.from_json(["simplify", {"apply-forms": {}}, "quantize-dynamic"])
    new = Recipe.from_json(["simplify", {"apply-rewrites": {}}, "quantize-dynamic"])
    model = graphs.transformer()
    assert old(model).to_bytes() == new(model).to_bytes()


def test_old_names_of_fields_are_read() -> None:
    old = passes.find("prune-gradually").from_json({"recover": {"epochs": 2}})
    assert old.to_json() == {"finetune": {"epochs": 2}}


def test_a_field_under_both_names_is_refused() -> None:
    with pytest.raises(OptionError, match="two names of one field"):
        passes.find("prune-gradually").from_json({"recover": {}, "finetune": {}})


def test_an_unknown_pass_names_the_nearest() -> None:
    with pytest.raises(OptionError, match="'recover'"):
        passes.find("recoverr")
    with pytest.raises(OptionError, match="simplify"):
        passes.find("simplfy")
    with pytest.raises(OptionError, match="Known: ") as far:
        passes.find("something else")
    assert "recover" not in str(far.value)


@pytest.mark.slow
def test_a_pass_imports_its_own_room_alone() -> None:
    code = (
        "import sys; from trimtab.passes import Simplify; "
        "print(sorted({m.split('.')[2] for m in sys.modules if m.startswith('trimtab.passes.')}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(ast.literal_eval(done.stdout)) <= {"base", "check", "graph", "simplify"}
