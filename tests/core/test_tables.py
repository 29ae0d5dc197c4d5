"""Tables of numbers as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnx_ir as ir
import pytest
from graphs import model_of

from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, OptionError
from trimtab.core.model import Model
from trimtab.core.ort.session import build_session, run


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


def numbers() -> Model:
    """Return a model of one input of floats."""
    return model_of("(float[N,M] x) => (float[N,M] y) { y = Identity (x) }")


def test_what_is_not_a_number_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 3 has 'two' in column b"):
        opened(tmp_path, "a,b\n1,2\n1,two\n").bind(numbers())
    with pytest.raises(DataError, match="line 2 has 1 columns, the first 2"):
        opened(tmp_path, "1,2\n3\n")
    with pytest.raises(DataError, match="has no rows"):
        opened(tmp_path, "")
    with pytest.raises(OptionError, match="has no column 'c'"):
        opened(tmp_path, "a,b\n1,2\n", "?labels=c")
    with pytest.raises(OptionError, match="unknown option 'label'"):
        opened(tmp_path, "a,b\n1,2\n", "?label=a")


def two_inputs() -> Model:
    """Return a model with inputs `a` (N, 1) of numbers and `k` (N,) of whole ones."""
    a = ir.val("a", ir.DataType.FLOAT, ir.Shape(["n", 1]))
    k = ir.val("k", ir.DataType.INT64, ir.Shape(["n"]))
    nodes = [
        ir.node("Identity", [v], outputs=[ir.val(f"y_{v.name}", v.dtype, v.shape)]) for v in (a, k)
    ]
    outputs = [node.outputs[0] for node in nodes]
    graph = ir.Graph([a, k], outputs, nodes=nodes, name="g", opset_imports={"": 17})
    return Model(ir.Model(graph, ir_version=8))


def test_columns_named_as_inputs_are_fed_to_them(tmp_path: Path) -> None:
    data = opened(tmp_path, "k,a,kind\n3,0.5,1\n4,1,0\n", "?labels=kind")
    (batch,) = data.bind(two_inputs())
    assert batch.feeds["a"].tolist() == [[0.5], [1.0]]
    assert (batch.feeds["k"].tolist(), batch.feeds["k"].dtype) == ([3, 4], np.int64)
    assert data.bind(two_inputs()).digest == data.digest
    with pytest.raises(DataError, match="column 'k' has fractions"):
        opened(tmp_path, "k,a\n3.5,0.5\n").bind(two_inputs())
    (batch,) = opened(tmp_path, "k,a,name\n3,0.5,x\n", "?columns=a")
    assert batch.feeds["input"].tolist() == [[0.5]]


def test_parquet_is_a_table_too(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    columns = {"v": [[1.0, 2.5], [3.0, 4.0]], "w": [5, 6], "kind": ["x", "y"]}
    parquet.write_table(arrow.table(columns), path)
    (batch,) = Dataset.open(f"{path}?labels=kind")
    assert batch.feeds["input"].tolist() == [[1, 2.5, 5], [3, 4, 6]]
    assert batch.labels is not None
    assert batch.labels.tolist() == ["x", "y"]
    with pytest.raises(DataError, match="row 0 has 'x' in column kind, which is not a number"):
        Dataset.open(str(path)).bind(numbers())
    parquet.write_table(arrow.table({"v": [[1.0], [1.0, 2.0]], "w": [1, None]}), path)
    with pytest.raises(DataError, match=r"row 1 has .* in column v, of another length"):
        Dataset.open(f"{path}?columns=v").bind(numbers())
    with pytest.raises(DataError, match="row 1 has 'None' in column w"):
        Dataset.open(f"{path}?columns=w").bind(numbers())
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="is not a parquet file"):
        Dataset.open(str(path))


def categories(*shape: int | str, inputs: tuple[str, ...] = ("colour", "size")) -> Model:
    """Return a model whose inputs are texts of this shape, beside one number `weight`."""
    values = [ir.val(name, ir.DataType.STRING, ir.Shape(list(shape))) for name in inputs]
    values += [ir.val("weight", ir.DataType.FLOAT, ir.Shape(["n", 1]))] * (len(inputs) > 1)
    nodes = [
        ir.node("Identity", [v], outputs=[ir.val(f"y_{v.name}", v.dtype, v.shape)]) for v in values
    ]
    outputs = [node.outputs[0] for node in nodes]
    graph = ir.Graph(values, outputs, nodes=nodes, name="g", opset_imports={"": 17})
    return Model(ir.Model(graph, ir_version=8))


@pytest.mark.parametrize("shape", [("n", 1), (None, 1), ("n",)])
def test_columns_of_texts_are_fed_to_inputs_of_texts(tmp_path: Path, shape: Any) -> None:
    data = opened(
        tmp_path, "colour,size,weight,bought\nred,10,0.5,1\nblue,07,2,0\n", "?labels=bought"
    )
    model = categories(*shape)
    (batch,) = data.bind(model)
    wanted = [["red"], ["blue"]] if len(shape) == 2 else ["red", "blue"]
    assert batch.feeds["colour"].tolist() == wanted
    assert batch.feeds["size"].ravel().tolist() == ["10", "07"]  # as they are written
    assert batch.feeds["weight"].tolist() == [[0.5], [2.0]]
    assert batch.labels is not None
    assert batch.labels.tolist() == [1, 0]
    outputs = run(build_session(model), batch.feeds)
    assert outputs["y_colour"].tolist() == wanted
    assert data.bind(model).digest == data.digest


def test_one_input_of_texts_takes_all_columns_side_by_side(tmp_path: Path) -> None:
    data = opened(tmp_path, "a,b\nred,S\nblue,\n")
    (batch,) = data.bind(categories("n", 2, inputs=("x",)))
    assert batch.feeds["x"].tolist() == [["red", "S"], ["blue", ""]]


def test_a_text_where_a_number_is_wanted_is_named(tmp_path: Path) -> None:
    data = opened(tmp_path, "colour,size,weight\nred,S,0.5\nblue,M,heavy\n")
    with pytest.raises(DataError, match="line 3 has 'heavy' in column weight") as refused:
        data.bind(categories("n", 1))
    assert "?columns=" in str(refused.value.hint)


def test_a_table_of_one_column_too_many_is_told_how_to_name_the_labels(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("kind,a,b\n1,0.5,2\n0,1,3\n")
    model = graphs.model_of("(float[n,2] x) => (float[n,2] y) { y = Relu (x) }")
    with pytest.raises(DataError) as refused:
        Dataset.open(tmp_path / "rows.csv").bind(model)
    assert "rows of shape [3], the model takes [n, 2]" in str(refused.value)
    assert "'rows.csv?labels=kind', by name or counted from 0" in str(refused.value)
    Dataset.open(f"{tmp_path}/rows.csv?labels=kind").bind(model)
    wide = graphs.model_of("(float[n,3] x) => (float[n,3] y) { y = Relu (x) }")
    with pytest.raises(DataError, match=r"some of the 2 columns: 'rows.csv\?columns=a,b"):
        Dataset.open(f"{tmp_path}/rows.csv?labels=kind").bind(wide)
