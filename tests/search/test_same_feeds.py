"""Budgets that `optimize` writes feed the gate as the search was fed: pictures, labels, states."""

from __future__ import annotations

import json
from pathlib import Path

import graphs
import numpy as np
import onnx
import pytest
from made_comparisons import made_comparisons
from onnx import TensorProto, helper

from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.passes import find
from trimtab.runtime_bench.gate.budget_file import load_gates
from trimtab.search.optimize import optimize, save_outcome
from trimtab.search.recipe import Recipe

RNG = np.random.default_rng(0)


def pictures(folder: Path) -> str:
    """Return a name of data: a folder of pictures with boxes, prepared for `graphs.cnn`."""
    image = pytest.importorskip("PIL.Image")
    (folder / "photos").mkdir()
    names = [f"{number}.png" for number in range(24)]
    for name in names:
        image.fromarray(RNG.integers(0, 255, (20, 30, 3), np.uint8)).save(folder / "photos" / name)
    notes = [{"image_id": i, "category_id": 1, "bbox": [1, 1, 4, 4]} for i in range(24)]
    listed = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    document = {"images": listed, "categories": [{"id": 1}], "annotations": notes}
    (folder / "coco.json").write_text(json.dumps(document))
    options = "resize=stretch:8&colour=bgr&scale=1/128&mean=1,1,1"
    return f"{folder / 'photos'}?labels={folder / 'coco.json'}&{options}"


def stream(folder: Path) -> tuple[Model, str]:
    """Return a model whose state has no telling name, and a name of data that tells it."""

    def floats(name: str, size: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size])

    weights = RNG.normal(size=(4, 4)).astype(np.float32) / 4
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Add", ["a", "before"], ["s"]),
        helper.make_node("Tanh", ["s"], ["after"]),
        helper.make_node("Mul", ["after", "after"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [floats("x", 4), floats("before", 4)],
        [floats("y", 4), floats("after", 4)],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    np.savez(folder / "steps.npz", x=RNG.normal(size=(60, 4)).astype(np.float32))
    return Model.from_proto(made), f"{folder / 'steps.npz'}?state=before=after"


@pytest.mark.parametrize("kind", ["pictures", "stream"])
def test_gate_is_fed_as_the_search_was(kind: str, tmp_path: Path) -> None:
    model, spec = stream(tmp_path) if kind == "stream" else (graphs.cnn(), pictures(tmp_path))
    path = model.save(tmp_path / "float.onnx")
    found = optimize(
        str(path),
        spec,
        metric="fidelity",
        recipes=[Recipe("float", (find("simplify")(),))],
        constraints={"max_drop": 1.0},
        measure=made_comparisons(2.0),
    )
    save_outcome(found, tmp_path / "out")
    text = (tmp_path / "out" / "budgets.yaml").read_text()
    assert str(tmp_path) not in text
    assert ("preprocess:" in text) == (kind == "pictures")
    [gate] = load_gates(tmp_path / "out" / "budgets.yaml")
    assert gate.data is not None
    fed, known = (Dataset.open(name).bind(model) for name in (gate.data, spec))
    assert fed.digest == known.digest
    assert (fed.stream is None) == (kind == "pictures")
    for a, b in zip(fed, known, strict=True):
        assert all(np.array_equal(a.feeds[name], b.feeds[name]) for name in b.feeds)
