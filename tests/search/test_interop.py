"""Models as users have them: modules of other libraries, files with external data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnx
import pytest
from cnn_data import arrays
from search_fakes import LOOSE, fast_int8

from trimtab.core.model import Model
from trimtab.search.optimize import optimize, save_outcome

SMALL = ("simplify", "quantize-static", "quantize-dynamic")


def tiny_bert() -> Any:
    """A module as in transformers: no `example_inputs`, outputs in a dataclass."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        num_hidden_layers=1,
        num_attention_heads=2,
        hidden_size=16,
        intermediate_size=16,
        vocab_size=50,
        num_labels=3,
        max_position_embeddings=16,
    )
    return BertForSequenceClassification(config)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_module_of_transformers_is_exported_on_the_names_of_the_data(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    rng = np.random.default_rng(0)
    data = {
        "input_ids": rng.integers(0, 50, (40, 8)),
        "attention_mask": np.ones((40, 8), np.int64),
        "labels": rng.integers(0, 3, 40),
    }
    outcome = optimize(tiny_bert(), data, constraints=LOOSE, measure=fast_int8, passes=SMALL)
    assert outcome.chosen is not None
    assert [i.name for i in outcome.model.inputs] == ["input_ids", "attention_mask"]
    written = save_outcome(outcome, tmp_path)
    assert written[0].name == "float.onnx"
    assert Model.load(tmp_path / "float.onnx").digest == outcome.original.model.digest  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_file_with_external_data_is_taken_as_it_is(tmp_path: Path) -> None:
    """Load weights beside the graph, as Optimum and Olive write them."""
    proto = graphs.cnn().to_proto()
    path = tmp_path / "model.onnx"
    onnx.save_model(
        proto, path, save_as_external_data=True, location="model.onnx_data", size_threshold=0
    )
    outcome = optimize(
        path,
        arrays(60),
        constraints=LOOSE,
        measure=fast_int8,
        passes=("simplify", "quantize-static"),
    )
    save_outcome(outcome, tmp_path / "out")
    saved = onnx.load(tmp_path / "out" / "model.onnx")
    assert {p.key for p in saved.metadata_props} >= {"trimtab.lineage"}


def test_models_and_data_of_other_types_are_refused() -> None:
    from trimtab.core.errors import OptionError

    with pytest.raises(OptionError, match="model of type int"):
        optimize(3, arrays(60))
    with pytest.raises(OptionError, match="data of type int"):
        optimize(graphs.cnn(), 3)
