"""Teacher outputs in a disk cache."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from trimtab.passes.training.torch_graph.teacher_cache import TeacherCache

ROWS = np.array([1, 4, 6])


def outputs(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "logits": rng.standard_normal((3, 5)).astype(np.float32),
        "inner": rng.standard_normal((3, 2, 4, 4)).astype(np.float16),
    }


def cache(folder: Path, said: list[str] | None = None) -> TeacherCache:
    return TeacherCache(folder, "key", 10, (said if said is not None else []).append)


def test_returns_what_this_run_and_others_stored(tmp_path: Path) -> None:
    first = cache(tmp_path / "deep")
    first.put(0, ROWS, outputs())
    for reader in (first, cache(tmp_path / "deep")):
        found = reader.get(0, ROWS)
        assert found is not None
        for name, array in outputs().items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)


def test_knows_nothing_of_other_items_views_and_keys(tmp_path: Path) -> None:
    cache(tmp_path).put(0, ROWS, outputs())
    assert cache(tmp_path).get(0, np.array([1, 2])) is None
    assert cache(tmp_path).get(1, ROWS) is None
    assert TeacherCache(tmp_path, "other", 10, print).get(0, ROWS) is None


def test_two_runs_fill_one_file(tmp_path: Path) -> None:
    one, two = cache(tmp_path), cache(tmp_path)
    one.put(0, ROWS, outputs())
    two.put(0, ROWS + 1, outputs(1))
    assert one.get(0, ROWS + 1) is not None
    assert two.get(0, ROWS) is not None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["key.0", "key.json"]


def test_a_record_that_was_half_written_is_computed_again(tmp_path: Path) -> None:
    writer = cache(tmp_path)
    writer.put(0, ROWS, outputs())
    file = tmp_path / "key.0"
    data = bytearray(file.read_bytes())
    size = len(data) // 10
    data[4 * size + 20] ^= 1
    file.write_bytes(bytes(data))
    assert cache(tmp_path).get(0, ROWS) is None
    assert cache(tmp_path).get(0, np.array([1, 6])) is not None


def test_rows_of_another_size_are_not_kept(tmp_path: Path) -> None:
    made = cache(tmp_path)
    made.put(0, ROWS, outputs())
    longer = {n: np.concatenate([a, a], -1) for n, a in outputs(1).items()}
    made.put(0, ROWS + 1, longer)
    assert made.get(0, ROWS + 1) is None
    assert made.get(0, ROWS) is not None


def test_whole_batches_are_kept_as_one_item(tmp_path: Path) -> None:
    made = cache(tmp_path)
    made.put(0, np.array([2]), outputs(), whole=True)
    found = made.get(0, np.array([2]))
    assert found is not None
    np.testing.assert_array_equal(found["logits"][0], outputs()["logits"])


def test_a_full_disk_is_reported_and_nothing_is_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    said: list[str] = []
    made = cache(tmp_path, said)
    made.put(0, ROWS, outputs())
    made.put(0, ROWS, outputs())
    assert made.get(0, ROWS) is None
    assert len(said) == 1
    assert "No space left" in said[0]
    assert not list(tmp_path.glob("key.0*"))


def test_a_folder_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said: list[str] = []
    made = cache(tmp_path / "file" / "inside", said)
    made.put(0, ROWS, outputs())
    assert made.get(0, ROWS) is None
    assert len(said) == 1
