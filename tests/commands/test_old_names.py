"""Old names of passes go on working as commands and in recipes."""

from __future__ import annotations

from pathlib import Path

import graphs
import pytest

from trimtab.cli import main
from trimtab.core.model import Model
from trimtab.passes import ALIASES


@pytest.mark.parametrize("name", ALIASES)
def test_an_old_name_of_a_pass_is_a_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0
    assert f"trimtab {name}" in capsys.readouterr().out


def test_an_old_command_writes_the_same_bytes(tmp_path: Path) -> None:
    graphs.cnn().save(tmp_path / "float.onnx")
    for name in ("apply-forms", "apply-rewrites"):
        assert main([name, str(tmp_path / "float.onnx"), "-o", str(tmp_path / f"{name}.onnx")]) == 0
    old, new = (Model.load(tmp_path / f"{n}.onnx") for n in ("apply-forms", "apply-rewrites"))
    assert old.digest == new.digest


def test_an_old_name_in_a_recipe_is_read(tmp_path: Path) -> None:
    graphs.cnn().save(tmp_path / "float.onnx")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: {tmp_path / 'float.onnx'}\npasses: [simplify, apply-forms]\n")
    assert main(["run", str(recipe), "-o", str(tmp_path / "out")]) == 0
    assert "apply-rewrites" in (tmp_path / "out" / "recipe.yaml").read_text()
