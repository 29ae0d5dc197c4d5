"""Texts that a tokenizer reads, from a file of lines or from columns of a table."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, MissingExtraError, OptionError
from trimtab.core.model import Model

tokenizers = pytest.importorskip("tokenizers")

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "a")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a tokenizer of words and a table of texts."""
    words = {word: number for number, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "films.csv").write_text("stars,first,second\n5,a good film,good\n1,bad,bad film\n")
    (tmp_path / "films.txt").write_text("a good film\n\nbad\n")
    return tmp_path


def encoder(*names: str, tokens: int | str = "s", kind: ir.DataType = ir.DataType.INT64) -> Model:
    """Return a model that takes tokens (and masks), and gives them back."""
    shape = ir.Shape(["n", tokens])
    values = [ir.val(name, kind, shape) for name in names]
    nodes = [ir.node("Identity", [v], outputs=[ir.val(f"y_{v.name}", kind, shape)]) for v in values]
    outputs = [node.outputs[0] for node in nodes]
    graph = ir.Graph(values, outputs, nodes=nodes, name="g", opset_imports={"": 17})
    return Model(ir.Model(graph, ir_version=8))


def test_lines_and_columns_are_tokens_and_masks(folder: Path) -> None:
    model = encoder("input_ids", "attention_mask")
    for name in ("films.txt", "films.csv?text=first&labels=stars"):
        (batch,) = Dataset.open(f"{folder / name}").bind(model)
        assert batch.feeds["input_ids"].tolist() == [[2, 7, 4, 6, 3], [2, 5, 3, 0, 0]]
        assert batch.feeds["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert batch.labels is not None
    assert batch.labels.tolist() == [5, 1]


def test_model_says_type_length_and_which_of_them_it_takes(folder: Path) -> None:
    data = Dataset.open(f"{folder / 'films.csv'}?text=first,second")
    model = encoder("ids", "segments", tokens=8, kind=ir.DataType.INT32)
    (batch,) = data.bind(model)
    assert batch.feeds["ids"].dtype == np.int32
    assert batch.feeds["ids"].tolist()[1] == [2, 5, 3, 5, 6, 3, 0, 0]
    assert batch.feeds["segments"].tolist()[1] == [0, 0, 0, 1, 1, 1, 0, 0]
    short = Dataset.open(f"{folder / 'films.txt'}?length=4")
    (batch,) = short.bind(encoder("ids"))
    assert batch.feeds["ids"].tolist()[0] == [2, 7, 4, 3]
    assert short.digest != Dataset.open(str(folder / "films.txt")).digest
    assert data.bind(model).digest == data.digest


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("films.txt?tokenizer=none.json", "holds texts, and there is no none.json"),
        ("films.txt?length=x", "length='x' is not a number"),
        ("films.txt?labels=a", "unknown option 'labels'"),
        ("films.csv?text=third", "has no column 'third'"),
        ("films.csv", "line 2 has 'a good film' in column first, which is not a number"),
    ],
)
def test_what_does_not_fit_is_named(folder: Path, name: str, message: str) -> None:
    with pytest.raises((OptionError, DataError), match=message):
        Dataset.open(f"{folder}/{name}").bind(encoder("ids"))


def test_broken_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match=r"tokenizer.json: is not a tokenizer.json"):
        Dataset.open(str(folder / "films.txt")).bind(encoder("ids"))


def test_message_says_which_extra_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r"trimtab\[tokenizers\]"):
        Dataset.open(str(folder / "films.txt")).bind(encoder("ids"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (folder / "rows.parquet").write_bytes(b"")
    with pytest.raises(MissingExtraError, match=r"trimtab\[tables\]"):
        Dataset.open(str(folder / "rows.parquet"))
