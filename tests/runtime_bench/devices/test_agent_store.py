"""Models and feeds on a device, and the lock of the device."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trimtab.core.cache import LINUX_CACHE_ROOT, cache_root
from trimtab.core.errors import OutputError, RunError
from trimtab.runtime_bench.devices.agent_store import ModelStore, digest_of

#: Takes the device of a folder, says so, and keeps it until it is killed.
HOLDER = """
import sys, time
from pathlib import Path
from trimtab.runtime_bench.devices.agent_store import ModelStore
store = ModelStore(Path(sys.argv[1]))
assert store.lock("ann@desk") is None
print("locked", flush=True)
time.sleep(60)
"""


def test_the_store_takes_only_what_was_announced(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    file = tmp_path / "f"
    file.write_bytes(b"abc")
    digest = digest_of([("model.onnx", file)])
    with pytest.raises(RunError, match="other bytes"):
        store.put(digest, [("model.onnx", 3)], io.BytesIO(b"abd"))
    with pytest.raises(RunError, match="plain file name"):
        store.put(digest, [("../model.onnx", 3)], io.BytesIO(b"abc"))
    with pytest.raises(RunError, match="not a digest"):
        store.has("../../etc")
    assert not list((tmp_path / "store").iterdir())
    store.put(digest, [("model.onnx", 3)], io.BytesIO(b"abc"))
    assert store.model(digest).read_bytes() == b"abc"


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    store, digests = ModelStore(tmp_path, quota=10), []
    for text in (b"aaaa", b"bbbb", b"cccc"):
        file = tmp_path / "f"
        file.write_bytes(text)
        digests.append(digest_of([("model.onnx", file)]))
        file.unlink()
        store.put(digests[-1], [("model.onnx", 4)], io.BytesIO(text))
        os.utime(tmp_path / digests[-1], (time.time() - 7200 + len(digests),) * 2)
    assert [store.has(d) for d in digests] == [False, True, True]


def test_a_folder_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        ModelStore(tmp_path / "file" / "store")


def test_a_device_has_one_holder_and_is_free_once_that_process_is_killed(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        holder = store.lock("bob@lab")
        assert holder is not None
        assert holder["who"] == "ann@desk"
        assert time.time() - holder["since"] < 60
        (tmp_path / "holder.json").write_text("{")
        assert store.lock("bob@lab") == {"who": "another run", "since": 0.0}
    finally:
        other.kill()
        other.communicate()
    assert store.lock("bob@lab") is None
    assert store.lock("bob@lab") is None  # it is ours already
    assert ModelStore(tmp_path).lock("ann@desk")["who"] == "bob@lab"  # type: ignore[index]


def test_the_store_stands_below_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path))
    assert ModelStore.here().folder == tmp_path / "device"


@pytest.mark.skipif(sys.platform != "linux", reason="the expression is for Linux")
@pytest.mark.parametrize("variables", [{}, {"TRIMTAB_CACHE": "~/x"}, {"XDG_CACHE_HOME": "/var/x"}])
def test_a_python_without_packages_finds_the_same_cache(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TRIMTAB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Path(eval(LINUX_CACHE_ROOT, {"os": os})) == cache_root()
