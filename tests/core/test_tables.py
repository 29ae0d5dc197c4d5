"""Tables of numbers as data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, OptionError


def opened(tmp_path: Path, text: str, options: str = "") -> Dataset:
    (tmp_path / "rows.csv").write_text(text)
    return Dataset.open(f"{tmp_path / 'rows.csv'}{options}")


def test_columns_are_the_input_and_one_the_labels(tmp_path: Path) -> None:
    for text, column in (("1,0.5,2\n0,1.5,3\n", "0"), ("kind,a,b\n1,0.5,2\n0,1.5,3\n", "kind")):
        (batch,) = opened(tmp_path, text, f"?labels={column}")
        assert batch.feeds["input"].tolist() == [[0.5, 2], [1.5, 3]]
        assert batch.feeds["input"].dtype == np.float32
        assert batch.labels is not None
        assert batch.labels.tolist() == [1, 0]
        assert batch.labels.dtype == np.int64
    (batch,) = opened(tmp_path, "x,1\ny,2\n", "?labels=0")
    assert batch.labels is not None
    assert batch.labels.tolist() == ["x", "y"]


def test_what_is_not_a_number_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 3 has 'two' in column b"):
        opened(tmp_path, "a,b\n1,2\n1,two\n")
    with pytest.raises(DataError, match="line 2 has 1 columns, the first 2"):
        opened(tmp_path, "1,2\n3\n")
    with pytest.raises(DataError, match="has no rows"):
        opened(tmp_path, "")
    with pytest.raises(OptionError, match="has no column 'c'"):
        opened(tmp_path, "a,b\n1,2\n", "?labels=c")
    with pytest.raises(OptionError, match="unknown option 'label'"):
        opened(tmp_path, "a,b\n1,2\n", "?label=a")
