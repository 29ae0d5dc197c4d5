"""Recipes: YAML round trip, refusals, the same bytes again."""

from __future__ import annotations

from pathlib import Path

import graphs
import numpy as np
import pytest

from trimtab.cli import main
from trimtab.core.errors import InputError, ModelError, OptionError
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.target import Target
from trimtab.passes import find
from trimtab.search.recipe import Recipe


def example() -> Recipe:
    prune = find("prune-magnitude").from_json({"sparsity": 0.25})
    return Recipe("mine", (find("simplify")(), prune), "a.onnx", "d", Target.named("arm64"), seed=3)


def test_yaml_round_trip(tmp_path: Path) -> None:
    recipe = example()
    assert Recipe.load(recipe.save(tmp_path / "r.yaml")) == recipe


def test_a_recipe_by_hand_is_a_list(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("- simplify\n- prune-magnitude: {sparsity: 0.5}\n")
    assert [p.name() for p in Recipe.load(path).passes] == ["simplify", "prune-magnitude"]
    assert Recipe.load(path).name == "r"


def test_another_model_is_refused() -> None:
    from graphs import cnn  # type: ignore[import-not-found]

    with pytest.raises(ModelError, match="not the model that recipe 'mine'"):
        example()(Model.from_proto(cnn()) if not isinstance(cnn(), Model) else cnn())


BAD = {
    "unknown pass": ("- simplifi", "Did you mean 'simplify'"),
    "unknown field": ("- prune-magnitude: {sparsty: 1}", "Did you mean 'sparsity'"),
    "wrong type": ("- prune-magnitude: {sparsity: lots}", "'lots' is not a number"),
    "no passes": ("name: x", "is not a recipe"),
    "unknown key": ("passes: []\nmodell: a", "Did you mean 'model'"),
    "no yaml": ("passes: [", "is not YAML"),
    "two in one": ("- {simplify: {}, prune-magnitude: {}}", "is not a pass"),
    "fields no mapping": ("- simplify: 3", "not a mapping"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_recipe_is_refused(case: str, tmp_path: Path) -> None:
    text, message = BAD[case]
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises((InputError, OptionError), match=message):
        Recipe.load(tmp_path / "r.yaml")


def test_a_missing_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        Recipe.load(tmp_path / "r.yaml")


def test_data_and_model_are_found_beside_the_recipe_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "recipes"
    folder.mkdir()
    graphs.mlp().save(folder / "float.onnx")
    feeds = {n: np.concatenate([a] * 3) for n, a in random_feeds(graphs.mlp()).items()}
    np.savez(folder / "calib.npz", **feeds)
    (folder / "r.yaml").write_text(
        "{model: float.onnx, passes: [quantize-static: {data: calib.npz}]}"
    )
    for place, recipe in ((folder, "r.yaml"), (tmp_path, "recipes/r.yaml"), (Path("/"), None)):
        monkeypatch.chdir(place)
        out = str(tmp_path / f"{place.name}.onnx")
        assert main(["run", recipe or str(folder / "r.yaml"), "-o", out]) == 0
    monkeypatch.chdir(tmp_path)
    written = Recipe.load("recipes/r.yaml").save(tmp_path / "elsewhere" / "recipe.yaml")
    assert main(["run", str(written), "-o", str(tmp_path / "again.onnx")]) == 0


def test_data_in_the_current_folder_are_found_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("calib.npz", x=np.zeros((3, 8), np.float32))
    Path("out").mkdir()
    Path("out/r.yaml").write_text("- quantize-static: {data: calib.npz}")
    [step] = Recipe.load("out/r.yaml").passes
    assert step.to_json()["data"]["data"] == "calib.npz"


def test_data_that_are_in_neither_folder_name_both(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("- quantize-static: {data: calib.npz}")
    with pytest.raises(InputError, match="neither in") as refused:
        Recipe.load(tmp_path / "r.yaml")
    assert str(tmp_path) in str(refused.value)
    assert str(Path.cwd()) in str(refused.value)
