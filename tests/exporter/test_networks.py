"""Whole networks: the reference ones, and all-MiniLM-L6-v2 with its score on STS-B."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from minilm import ROOT, example
from shared_data import shared

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError
from trimtab.core.metric import evaluate
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.core.target import Target
from trimtab.exporter import export, load_module
from trimtab.models import NETWORKS
from trimtab.passes import QuantizeDynamic, Simplify

Exported = Callable[[str], Model]

# The others are these networks with more layers or larger images.
SMALL = ("resnet20", "resnet18", "vgg16_cifar", "mobilenet_v2_cifar", "text_encoder", "digits_cnn")


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_reference_network_exports_with_parity(name: str, exported: Exported) -> None:
    model = exported(name)
    assert [spec.name for spec in model.inputs] == [i.name for i in NETWORKS[name].inputs]
    assert all(spec.shape and spec.shape[0] == "batch" for spec in model.inputs)
    assert all(e["max_rel"] < 1e-4 for e in model.lineage[0].notes["parity"].values())


@pytest.mark.slow
def test_weights_of_a_file_give_the_model_that_was_trained() -> None:
    reference = Model.load(shared("data/resnet20.onnx"))
    weights = shared("data/resnet20.safetensors")
    model = export(load_module("trimtab.models.resnet_cifar:resnet20", weights))
    images = np.random.default_rng(0).standard_normal((4, 3, 32, 32), dtype=np.float32)
    (expected,) = run(build_session(reference), {"input": images}).values()
    (got,) = run(build_session(model), {"input": images}).values()
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.slow
def test_minilm_takes_any_batch_and_sequence(exported: Exported) -> None:
    model = exported("minilm")
    assert [str(s) for s in (*model.inputs, *model.outputs)] == [
        "input_ids: [batch, sequence] int64",
        "attention_mask: [batch, sequence] int64",
        "embedding: [batch, 384] float32",
    ]
    alone = example().batch(["A dog runs."])
    beside = example().batch(["A dog runs.", "A man is playing a guitar on the big stage."])
    session = build_session(model)
    one, two = (run(session, feeds)["embedding"] for feeds in (alone, beside))
    np.testing.assert_allclose(np.linalg.norm(two, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(one[0], two[0], atol=1e-5)  # padding changes nothing


@pytest.mark.slow
def test_minilm_scores_0867_on_the_development_split_and_keeps_it_in_int8(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared("data/stsb-en-dev.csv")
    model, one = exported("minilm"), Target.detect(1)
    small = QuantizeDynamic()(Simplify()(model, Context(one)), Context(one))
    monkeypatch.chdir(ROOT)
    data = Dataset.open("examples.minilm:stsb_dev")
    quality, mine = (
        evaluate(m, data, "examples.minilm:spearman", config=SessionConfig(threads=1))
        for m in (model, small)
    )
    assert quality.count == 3000
    assert quality.value == pytest.approx(0.8672, abs=2e-4)
    assert quality.value - mine.value <= 0.005


def test_calibration_sentences_are_of_the_training_split() -> None:
    shared("data/stsb-en-train.csv")
    batches = example().stsb_train()
    assert sum(len(feeds["input_ids"]) for feeds in batches) == 512
    assert all(feeds["attention_mask"].any(1).all() for feeds in batches)


def test_spearman_pairs_sentences_across_batches() -> None:
    score = example().spearman
    vectors = np.array([[1, 0], [1, 0], [1, 1], [0, 1], [1, 0], [1, 0]], np.float32)
    labels = np.array([[0, 0, 1], [1, 0, 2], [1, 1, 2], [0, 1, 1], [2, 0, 3], [2, 1, 3]], float)
    assert score({"embedding": vectors}, labels) == pytest.approx(1)
    with pytest.raises(DataError, match="lacks one of its sentences"):
        score({"embedding": vectors[:2]}, labels[:2])


def test_missing_sentences_name_the_searched_folders(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRIMTAB_SHARED", str(tmp_path))
    with pytest.raises(DataError, match="Set TRIMTAB_SHARED"):
        example().pairs("dev")
