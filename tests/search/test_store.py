"""The cache: whole entries or none, two processes at once, other formats, a full disk."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import graphs
import pytest
from heard import Heard

import trimtab
from trimtab.core.model import Model
from trimtab.search.store import FORMAT, ResultStore, key_of, remove_leftovers, versions


def entries(root: Path) -> list[Path]:
    return sorted(p for p in (root / "search" / f"format-{FORMAT}").glob("*/*"))


def never() -> Any:
    raise AssertionError("made again")


def test_a_value_is_made_once_and_found_by_the_next_run(tmp_path: Path) -> None:
    key = key_of("test", part=1)
    assert ResultStore(tmp_path).value(key, lambda: {"a": 1}) == {"a": 1}
    later = ResultStore(tmp_path)
    assert later.value(key, never) == {"a": 1}
    assert (later.made, later.reused) == (0, 1)


def test_a_model_comes_back_with_lineage_and_the_same_bytes(tmp_path: Path) -> None:
    from trimtab.passes import find

    key = key_of("test", part=2)
    first = ResultStore(tmp_path).model(key, lambda: find("simplify")()(graphs.cnn()))
    again = ResultStore(tmp_path).model(key, never)
    assert again.to_bytes() == first.to_bytes()
    assert again.digest == first.digest
    assert [s.pass_name for s in again.lineage] == ["simplify"]


def test_keys_differ_by_kind_parts_and_nothing_else() -> None:
    assert key_of("a", x=1, y=2) == key_of("a", y=2, x=1)
    assert len({key_of("a", x=1), key_of("b", x=1), key_of("a", x=2)}) == 3


def test_an_entry_that_cannot_be_read_is_made_again(tmp_path: Path) -> None:
    key, other = key_of("test", part=3), key_of("test", part=4)
    store = ResultStore(tmp_path)
    store.model(key, graphs.cnn)
    store.value(other, lambda: 1)
    for path in entries(tmp_path):
        for file in path.iterdir():
            file.write_bytes(file.read_bytes()[:10])
    later = ResultStore(tmp_path)
    assert later.model(key, graphs.cnn).digest == graphs.cnn().digest
    assert later.value(other, lambda: 2) in {1, 2}  # ten bytes may hold a whole number
    assert ResultStore(tmp_path).model(key, never).digest == graphs.cnn().digest


def test_a_scratch_folder_of_a_killed_process_is_not_an_entry_and_is_removed(
    tmp_path: Path,
) -> None:
    key = key_of("test", part=5)
    store = ResultStore(tmp_path)
    assert store.root is not None
    left = store.root / key[:2] / ".new-killed"
    left.mkdir(parents=True)
    (left / "model.onnx").write_bytes(b"half")
    assert store.known(key) is None
    remove_leftovers(store.root, older_than_s=-1)
    assert not left.exists()


def test_a_cache_of_another_format_is_left_alone_and_reported(tmp_path: Path) -> None:
    old = tmp_path / "search" / "format-0" / "thing"
    old.mkdir(parents=True)
    heard = Heard()
    assert ResultStore(tmp_path, heard).value(key_of("test", part=6), lambda: 6) == 6
    assert old.exists()
    assert "format-0" in heard.said[0]


def test_a_full_disk_costs_the_cache_and_not_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard()
    store = ResultStore(tmp_path, heard)

    def full(self: Path, *rest: Any, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert store.value(key_of("test", part=7), lambda: 7) == 7
    monkeypatch.undo()
    assert "goes on without" in heard.said[0]
    assert entries(tmp_path) == []
    assert store.model(key_of("test", part=8), graphs.cnn).digest == graphs.cnn().digest


WRITER = """
import sys
from pathlib import Path
import graphs
from trimtab.search.store import ResultStore, key_of
store = ResultStore(Path(sys.argv[1]))
for i in range(6):
    store.value(key_of("shared", i=i), lambda: {"i": i, "text": "x" * 20000})
    store.model(key_of("model", i=i), graphs.cnn)
print(store.made + store.reused)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_on_one_cache_leave_whole_entries(tmp_path: Path) -> None:
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    environment = {"PYTHONPATH": f"{tests / 'helpers'}:{tests.parent}", "PATH": "/usr/bin:/bin"}
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [p.communicate(timeout=500)[0].strip() for p in both] == ["12", "12"]
    found = entries(tmp_path)
    assert len(found) == 12
    assert not [p for p in found if p.name.startswith(".new-")]
    for path in found:
        if (path / "value.json").exists():
            assert len(json.loads((path / "value.json").read_text())["text"]) == 20000
        else:
            assert Model.load(path / "model.onnx").digest == graphs.cnn().digest


def test_the_version_is_that_of_the_installed_package() -> None:
    assert trimtab.__version__ == importlib.metadata.version("trimtab")
    assert versions()["trimtab"] == trimtab.__version__
