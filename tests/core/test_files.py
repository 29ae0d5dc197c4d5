"""Outputs: written whole, through what stands at their place, and refused before the work."""

from __future__ import annotations

import os
import resource
import threading
from pathlib import Path

import pytest

from trimtab.core.errors import OutputError
from trimtab.core.files import check_output_file, file_for, write_bytes, write_text


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    (tmp_path / "dangling").symlink_to("made")
    write_text(tmp_path / "dangling", "there")
    assert (tmp_path / "made").read_text() == "there"


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("a")
    with pytest.raises(OutputError):
        write_text(tmp_path / "a", "x")


def test_a_pipe_gets_the_bytes_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_bytes(pipe, b"abc")
    reader.join()
    assert got == [b"abc"]
    assert pipe.is_fifo()


def test_a_device_stays(tmp_path: Path) -> None:
    (tmp_path / "null").symlink_to("/dev/null")
    write_bytes(tmp_path / "null", b"abc")
    assert Path("/dev/null").is_char_device()
    assert (tmp_path / "null").is_symlink()


def test_a_minus_is_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    write_bytes(Path("-"), b"\x00\xff")
    assert capfdbinary.readouterr().out == b"\x00\xff"
    assert not Path("-").exists()


def test_a_folder_gets_a_file_unless_it_looks_like_one(tmp_path: Path) -> None:
    assert file_for(tmp_path, "m.onnx") == tmp_path / "m.onnx"
    (tmp_path / "m.onnx").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        file_for(tmp_path / "m.onnx", "x.onnx")


def test_the_input_is_not_an_output(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("model")
    (tmp_path / "link").symlink_to("m.onnx")
    for name in ("m.onnx", "link"):
        with pytest.raises(OutputError, match="--force"):
            check_output_file(tmp_path / name, str(tmp_path / "m.onnx"))
    check_output_file(tmp_path / "m.onnx")


@pytest.mark.parametrize("name", ["no/such/m.onnx", "file/m.onnx", "folder"])
def test_places_that_cannot_be_written_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError):
        check_output_file(tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_a_full_disk_is_found_before_the_work(tmp_path: Path) -> None:
    """By the limit of the size of a file, which refuses the blocks as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            check_output_file(tmp_path / "m.onnx")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())
