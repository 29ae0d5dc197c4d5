"""Tests of rows that are read once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trimtab.core.cache import VARIABLE
from trimtab.core.data import Array
from trimtab.core.dataset import Dataset
from trimtab.core.progress import Silent
from trimtab.core.sources import pictures
from trimtab.core.sources.opening import StreamSource
from trimtab.core.sources.row_store import LIMIT, RowStore, rows_read_once

SMALL = {"resize": "stretch:4"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "rows"


def stream(calls: list[int]) -> StreamSource:
    """Three batches of two rows, with labels."""

    def make() -> Iterator[tuple[dict[str, Array], Array]]:
        calls.append(1)
        for n in range(3):
            yield {"x": np.full((2, 4), n, np.float32)}, np.arange(2)

    return StreamSource(make, "memory:")


@pytest.mark.parametrize(("limit", "times"), [(LIMIT, 1), (0, 4), (100, 4), (400, 4)])
def test_user_code_is_called_once_where_there_is_room(limit: int, times: int) -> None:
    calls: list[int] = []
    with rows_read_once(limit, Silent()):
        source = stream(calls)
        for _ in range(2):
            found = [batch.feeds["x"][0, 0] for batch in source.read(np.array([0, 2]), 1)]
            assert found == [0, 2]
        assert len(source.identity) == 64
    assert len(calls) == times


@pytest.mark.parametrize("limit", [LIMIT, 0, 400])
@pytest.mark.parametrize("rows", [[2, 0, 1], [1, 1, 0], [0, 2]])
def test_batches_come_in_the_order_that_is_asked_for(limit: int, rows: list[int]) -> None:
    with rows_read_once(limit, Silent()):
        found = [int(batch.feeds["x"][0, 0]) for batch in stream([]).read(np.array(rows), 1)]
    assert found == rows


def test_a_command_opens_each_data_once() -> None:
    name = "trimtab.models.digits_data:calibration"
    with rows_read_once(LIMIT, Silent()):
        assert Dataset.open(name).source is Dataset.open(name).source
    assert Dataset.open(name).source is not Dataset.open(name).source


def test_pictures_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("a/0", "a/1", "b/2"):
        file = tmp_path / "pictures" / f"{place}.png"
        file.parent.mkdir(exist_ok=True, parents=True)
        Image.new("RGB", (8, 8), (len(place), 7, 9)).save(file)
    (before,) = pictures.open_pictures(tmp_path / "pictures", SMALL).read(np.arange(3), 8)
    monkeypatch.setattr(pictures, "opened", None)
    (after,) = pictures.open_pictures(tmp_path / "pictures", SMALL).read(np.arange(3), 8)
    assert np.array_equal(before.feeds["input"], after.feeds["input"])
    assert before.labels is not None
    assert after.labels is not None
    assert after.labels.tolist() == before.labels.tolist() == [0, 0, 1]


def test_a_picture_that_moved_to_another_class_has_its_new_label(tmp_path: Path) -> None:
    for place in ("a/0", "a/1", "b/2"):
        file = tmp_path / f"{place}.png"
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(file)

    def labels() -> list[int]:
        (batch,) = pictures.open_pictures(tmp_path, SMALL).read(np.arange(3), 8)
        assert batch.labels is not None
        return batch.labels.tolist()

    assert labels() == [0, 0, 1]
    (tmp_path / "a" / "1.png").rename(tmp_path / "b" / "1.png")
    assert labels() == [0, 1, 1]


def test_what_a_killed_process_left_is_not_read(cache: Path) -> None:
    store = RowStore(lambda: "content")
    store.put(0, {"x": np.arange(3), "text": np.array(["a", "bc"])})
    store.put(1, {"x": np.zeros((0, 2))})
    found = RowStore(lambda: "content").get(0)
    assert found is not None
    assert found["text"].tolist() == ["a", "bc"]
    (file,) = cache.rglob("*.bin")
    file.write_bytes(file.read_bytes()[:8])
    (index,) = cache.rglob("*.index")
    index.write_text(index.read_text() + "[2, {")
    again = RowStore(lambda: "content")
    assert [again.get(item) for item in (0, 2)] == [None, None]
    assert RowStore(lambda: "other content").get(0) is None


def test_the_oldest_rows_make_room(cache: Path) -> None:
    row = {"x": np.zeros(1000, np.uint8)}
    with rows_read_once(2500, Silent()):
        for content in "abc":
            RowStore(lambda content=content: content).put(0, row)  # type: ignore[misc]
        assert len(list(cache.iterdir())) == 2
        assert RowStore(lambda: "c").get(0) is not None


def test_objects_and_a_folder_that_cannot_be_made_are_read_anew(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RowStore()
    store.put(0, {"x": np.array([{}], dtype=object)})
    assert store.get(0) is None
    file = cache.parent.parent / "file"
    file.write_text("")
    monkeypatch.setenv(VARIABLE, str(file))
    assert RowStore().once(0, lambda: {"x": np.ones(2)})["x"].sum() == 2
