"""Datasets: sources, splits, and data that is refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from graphs import model_of
from int8_graphs import graph

from trimtab.core.batches import finite_batches
from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, InputError, RunError
from trimtab.core.feeds import check_finite
from trimtab.core.metric import evaluate
from trimtab.core.ort.feeding import feeding
from trimtab.runtime_bench.measure.feeds import check_same_inputs

X = np.arange(40, dtype=np.float32).reshape(20, 2)
Y = np.arange(20) % 3


def rows_of(data: Dataset) -> list[int]:
    return [int(r) // 2 for batch in data for r in batch.feeds["x"][:, 0]]


@pytest.fixture(params=["stored", "compressed", "shards"])
def on_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "stored":
        np.savez(tmp_path / "d.npz", x=X, labels=Y)
    elif request.param == "compressed":
        np.savez_compressed(tmp_path / "d.npz", x=X, labels=Y)
    else:
        np.savez(tmp_path / "a.npz", x=X[:7], labels=Y[:7])
        np.savez(tmp_path / "b.npz", x=X[7:], labels=Y[7:])
        return tmp_path
    return tmp_path / "d.npz"


def test_a_file_yields_its_rows_in_order_each_time(on_disk: Path) -> None:
    data = Dataset.open(on_disk, batch=6)
    for _ in range(2):
        assert rows_of(data) == list(range(20))
        assert np.concatenate([b.labels for b in data if b.labels is not None]).tolist() == list(Y)


def test_an_open_compressed_file_keeps_its_rows_when_another_replaces_it(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez_compressed(path, x=X)
    before = Dataset.open(path)
    np.savez_compressed(path, x=X[::-1])
    after = Dataset.open(path)
    assert rows_of(before) == list(range(20))
    assert rows_of(after) == list(range(19, -1, -1))


def test_take_is_evenly_spaced(on_disk: Path) -> None:
    assert rows_of(Dataset.open(on_disk).take(4)) == [0, 5, 10, 15]


def test_split_is_disjoint_complete_and_seeded(on_disk: Path) -> None:
    data = Dataset.open(on_disk)
    parts = data.split({"a": 0.5, "b": 0.3, "c": 0.2})
    rows = {name: rows_of(part) for name, part in parts.items()}
    assert [len(r) for r in rows.values()] == [10, 6, 4]
    assert sorted(itertools.chain(*rows.values())) == list(range(20))
    assert rows != {n: rows_of(p) for n, p in data.split({"a": 5, "b": 3, "c": 2}, seed=1).items()}
    assert not parts["a"].overlaps(parts["b"])
    assert parts["a"].overlaps(data)


def test_no_part_of_a_split_is_empty() -> None:
    data = Dataset.of_arrays({"x": X[:3]})
    assert [len(p) for p in data.split({"a": 100, "b": 1, "c": 1}).values()] == [1, 1, 1]


def test_json_finds_the_same_rows_again(on_disk: Path) -> None:
    part = Dataset.open(on_disk, batch=5).split({"a": 1, "b": 1})["b"].take(3)
    again = Dataset.from_json(part.to_json())
    assert rows_of(again) == rows_of(part)
    assert again.digest == part.digest


def test_json_refuses_a_file_that_changed(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X)
    plain = Dataset.open(tmp_path / "d.npz").to_json()
    np.savez(tmp_path / "d.npz", x=X + 1)
    with pytest.raises(DataError, match="other data"):
        Dataset.from_json(plain)


def stream() -> Iterator[dict[str, np.ndarray]]:
    """Batches of varying length, as sentences give them."""
    for length in (3, 5, 2):
        yield {"x": np.full((2, length), length, np.float32)}


def test_a_generator_is_restarted_for_each_iteration() -> None:
    data = Dataset.open(f"{__name__}:stream") if __name__ in __import__("sys").modules else None
    data = data or Dataset.of_batches(stream)
    assert [b.feeds["x"].shape for b in data] == [(2, 3), (2, 5), (2, 2)]
    assert [b.feeds["x"].shape[1] for b in data.take(2)] == [3, 5]
    assert len(data) == data.batches == 3


def test_images_by_class(tmp_path: Path) -> None:
    from PIL import Image

    for n, cls in enumerate(["cat", "dog"]):
        (tmp_path / cls).mkdir()
        Image.new("RGB", (4, 2), (255 * n, 0, 0)).save(tmp_path / cls / "0.png")
    (batch,) = Dataset.open(tmp_path)
    assert batch.feeds["input"].shape == (2, 3, 2, 4)
    assert batch.feeds["input"][1, 0].max() == 1
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 1]


def truncated(path: Path) -> None:
    np.savez(path, x=np.zeros((100, 100)))
    path.write_bytes(path.read_bytes()[:5000])


BAD = {
    "missing": (lambda p: None, "no such file"),
    "no zip": (lambda p: p.write_text("hello"), "not an .npz file"),
    "truncated": (truncated, "truncated"),
    "no rows": (lambda p: np.savez(p, x=np.zeros((0, 3))), "no rows"),
    "only labels": (lambda p: np.savez(p, labels=Y), "no array other than"),
    "unequal rows": (lambda p: np.savez(p, x=X, labels=Y[:5]), "differ in their number of rows"),
    "pickles": (lambda p: np.savez(p, x=np.array([{}], dtype=object)), "pickled objects"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_with_one_message(case: str, tmp_path: Path) -> None:
    make, message = BAD[case]
    make(tmp_path / "d.npz")
    with pytest.raises(DataError, match=message):
        Dataset.open(tmp_path / "d.npz")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere.module:thing", "cannot import module"),
        ("os.path:joyn", "Did you mean 'join'"),
        ("os:sep", "is not callable"),
    ],
)
def test_a_bad_callable_is_refused(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Dataset.open(spec)


def test_nan_is_named_by_array_and_row() -> None:
    array = X.copy()
    array[13, 1] = np.nan
    (batch,) = Dataset.of_arrays({"x": array})
    with pytest.raises(DataError, match=r"'x' holds NaN or infinity in row 113"):
        check_finite(batch, "data", 100)


@pytest.mark.parametrize(
    ("reads", "bad", "refused"),
    [
        ("gone = IsNaN (x) y = Where (gone, none, x)", np.nan, False),
        ("gone = IsNaN (x) y = Where (gone, none, x)", np.inf, True),
        ("y = ai.onnx.ml.Imputer <imputed_value_floats = [1.0]> (x)", np.nan, False),
        # Another guards its own numbers.
        ("h = Sqrt (x) gone = IsNaN (h) y = Where (gone, none, h)", np.nan, True),
    ],
)
def test_nan_is_a_missing_value_where_the_model_reads_it_so(
    reads: str, bad: float, refused: bool
) -> None:
    model = model_of(
        f"(float[N,4] x) => (float[N,4] y) <float[1] none = {{0.0}}> {{ {reads} }}",
        imports=', "ai.onnx.ml": 1',
    )
    rows = np.ones((3, 4), np.float32)
    rows[1, 2] = bad
    data = Dataset.of_arrays({"x": rows}).bind(model)
    if refused:
        with pytest.raises(DataError, match="NaN or infinity in row 1"):
            list(finite_batches(data))
    else:
        assert len(list(finite_batches(data))) == 1


def test_texts_are_fed_as_numpy_stores_them(tmp_path: Path) -> None:
    text = """(string[N,1] word, float[N,1] x) => (float[N,4] y) {
        h = ai.onnx.ml.OneHotEncoder <cats_strings = ["a", "bc", "d"], zeros = 1> (word)
        f = Flatten (h) y = Concat <axis=1> (f, x) }"""
    model = model_of(text, imports=', "ai.onnx.ml": 1')
    words = np.array(["a", "bc", "?", "bc"])[:, None]
    np.savez(tmp_path / "d.npz", word=words, x=np.ones((4, 1), np.float32))
    data = Dataset.open(tmp_path / "d.npz")
    found = evaluate(model, data, "fidelity", reference=model)
    assert (found.value, found.count) == (1, 4)
    feeds = next(iter(data.bind(model))).feeds
    check_same_inputs([model], feeds)
    with pytest.raises(DataError, match="'word' is int64, the model takes string"):
        Dataset.of_arrays({"word": np.ones((4, 1), int), "x": feeds["x"]}).bind(model)


def test_a_sequence_beside_tensors_is_not_judged() -> None:
    model = model_of("""(float[N,8] x) => (seq(float[N,8]) parts, float[N,8] y) {
        h = Relu (x) y = Exp (h) parts = SequenceConstruct (x, h) }""")
    data = Dataset.of_arrays({"x": np.random.default_rng(0).normal(size=(6, 8)).astype("f4")})
    assert evaluate(model, data, "cosine", reference=model).value == pytest.approx(1)
    found = evaluate(model, data, "fidelity", reference=model)
    assert (found.value, [output.name for output in found.outputs]) == (1, ["y"])


def test_a_callable_may_return_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_dataset.py").write_text(
        "import numpy as np\n"
        "from trimtab.core.dataset import Dataset\n"
        "def make(): return Dataset.of_arrays({'x': np.arange(3)})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    data = Dataset.open("own_dataset:make")
    assert [batch.feeds["x"].tolist() for batch in data] == [[0, 1, 2]]


@pytest.mark.parametrize("shards", [False, True])
def test_an_input_without_a_batch_has_a_value_for_each_row(tmp_path: Path, shards: bool) -> None:
    """As a state (2, 1, 3) beside rows (N, 3), each row a run of its own."""
    model = graph("g (float[2, 1, 3] h, float[N, 3] x) => (float[2, N, 3] y) { y = Add (x, h) }")
    rows = {"h": np.arange(30.0).reshape(5, 2, 1, 3), "x": np.arange(15.0).reshape(5, 3)}
    for name, part in {"a": slice(0, 2), "b": slice(2, 5)}.items() if shards else [("a", ...)]:
        parts = {n: a[part].astype(np.float32) for n, a in rows.items()}
        np.savez(tmp_path / f"{name}.npz", **parts)
    data = Dataset.open(tmp_path if shards else tmp_path / "a.npz").bind(model)
    assert [{n: a.shape for n, a in batch.feeds.items()} for batch in data] == [
        {"x": (1, 3), "h": (2, 1, 3)}
    ] * 5
    assert [batch.size for batch in data] == [1] * 5
    third = next(iter(data.select(np.array([2]), "third")))
    assert third.feeds["h"].ravel().tolist() == list(range(12, 18))
    assert evaluate(model, data, "fidelity", reference=model).value == 1


@pytest.mark.parametrize(
    ("declared", "rows"),
    [
        ("float[1, 3] x, float s", {"x": (5, 3), "s": (5,)}),  # a number of its own for each row
        ("float[1, 3] x, float s", {"x": (5, 1, 3), "s": (5,)}),
        ("float[N, 3] x, float[1] s", {"x": (5, 1, 3), "s": (5, 1)}),
        ("float[nodes, 3] x, float[edges] s", {"x": (5, 1, 3), "s": (5, 1)}),
    ],
)
def test_arrays_may_hold_a_whole_input_for_each_row(declared: str, rows: dict) -> None:
    model = graph(f"g ({declared}) => (float[M, 3] y) {{ y = Add (x, s) }}")
    arrays = {
        n: np.arange(np.prod(size), dtype=np.float32).reshape(size) for n, size in rows.items()
    }
    data = Dataset.of_arrays(arrays).bind(model)
    assert [batch.feeds["x"].tolist() for batch in data] == [
        [[i, i + 1, i + 2]] for i in range(0, 15, 3)
    ]
    assert [float(batch.feeds["s"].item()) for batch in data] == [0, 1, 2, 3, 4]
    assert evaluate(model, data, "fidelity", reference=model).value == 1


def test_rows_that_a_model_cannot_run_on_are_shown_with_the_refusal() -> None:
    model = graph("g (int64[N] i) => (float[N, 2] y) { y = Gather (w, i) }", w=(4, 2))
    data = Dataset.of_arrays({"i": np.array([1, 9])})
    with pytest.raises(RunError, match=r"out of data bounds.* It was fed i \[2\] int64"):
        evaluate(model, data, "fidelity", reference=model)


@pytest.mark.parametrize(
    ("part", "fixed", "shared"),
    [(slice(3, 6), True, True), (slice(0, 9, 3), True, False), (slice(3, 6), False, False)],
)
def test_rows_that_follow_one_another_in_a_file_are_not_copied(
    part: slice, fixed: bool, shared: bool
) -> None:
    rows = np.arange(20, dtype=np.float32).reshape(10, 2)
    rows.flags.writeable = not fixed
    data = Dataset.of_arrays({"x": rows}, batch=3)
    (batch,) = data.select(data.positions[part], "part")
    assert batch.feeds["x"].tolist() == rows[part].tolist()
    assert np.shares_memory(batch.feeds["x"], rows) is shared


def test_arrays_with_sizes_of_their_own_are_not_cut_to_rows() -> None:
    """As the nodes and edges of a graph: three rows of each are not a smaller graph."""
    model = graph("g (float[n, 2] x, int64[e] i) => (float[e, 2] y) { y = Gather (x, i) }")
    ends = np.array([[3, 0, 3, 1, 2, 2]] * 4)
    data = Dataset.of_arrays({"x": np.ones((4, 4, 2), np.float32), "i": ends}).bind(model)
    source = Context(data=data).source(model, None)
    fed = feeding(model, source, batch=2).feeds
    assert {name: array.shape for name, array in fed.items()} == {"x": (4, 2), "i": (6,)}
    assert [batch.size for batch in data] == [1] * 4
    assert evaluate(model, data, "fidelity", reference=model).count == 4
