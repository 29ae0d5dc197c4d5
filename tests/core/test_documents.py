"""Bounds on documents and archives of strangers."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from trimtab.core.dataset import Dataset
from trimtab.core.documents import check_yaml, read_json
from trimtab.core.errors import DataError, InputError


def test_aliases_that_multiply_are_refused_before_they_are_written_out() -> None:
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    for old, new in zip("abcdefg", "bcdefgh", strict=True):
        lines.append(f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]")
    with pytest.raises(InputError, match="200,000 values once its aliases"):
        check_yaml("\n".join(lines), "b.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("text", ["[" * 3000 + "]" * 3000, "a: &a [*a]", "&a {b: &b [*a]}"])
def test_nesting_without_end_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        check_yaml(text, "b.yaml")


def test_aliases_of_a_usual_file_are_kept() -> None:
    check_yaml("d: &d {threads: 1}\ngates:\n- {<<: *d, model: a}\n- {<<: *d, model: b}\n", "b")


def test_deep_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="nested too deeply"):
        read_json(tmp_path / "deep.json")


def npz(path: Path, shape: tuple[int, ...], data: bytes, kind: int = zipfile.ZIP_STORED) -> str:
    header = io.BytesIO()
    fields = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, fields)
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("x.npy", header.getvalue() + data)
    return str(path)


def test_a_negative_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has the shape"):
        Dataset.open(npz(tmp_path / "d.npz", (-1, 8), bytes(64)))


def test_an_array_larger_than_its_packed_bytes_is_refused(tmp_path: Path) -> None:
    packed = npz(tmp_path / "d.npz", (1 << 34,), bytes(4096), zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match="unpacks from"):
        Dataset.open(packed)


def test_what_follows_an_array_is_not_unpacked(tmp_path: Path) -> None:
    ones = np.ones(16, np.float32).tobytes()
    data = Dataset.open(npz(tmp_path / "d.npz", (16,), ones + bytes(1 << 20), zipfile.ZIP_DEFLATED))
    (batch,) = data
    assert batch.feeds["x"].tolist() == [1.0] * 16
