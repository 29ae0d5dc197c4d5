"""Workers: the protocol, and the ways in which a model can take its process down."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from graphs import model_of

from trimtab.core.errors import ModelError, OptionError, RunError
from trimtab.core.model import Model
from trimtab.core.ort.given_feeds import given_feeds
from trimtab.core.ort.session import SessionConfig
from trimtab.runtime_bench.measure.compare import compare
from trimtab.runtime_bench.measure.contenders.subprocess_contender import SubprocessContender
from trimtab.runtime_bench.measure.startup import StartupCosts, startup_costs
from trimtab.runtime_bench.measure.timing import Runs
from trimtab.runtime_bench.measure.workers.protocol import (
    LARGEST_BYTES,
    pack_error,
    receive,
    send,
    unpack_error,
)
from trimtab.runtime_bench.measure.workers.serving import die_with_parent
from trimtab.runtime_bench.measure.workers.worker import Worker

RELU = "(float[2,3] x) => (float[2,3] y) { y = Relu(x) }"
#: Adds a number ten to the fifteen times.
ENDLESS = """(float[1] x) => (float[1] y)
<int64 count = {1000000000000000}, bool on = {1}> {
  y = Loop (count, on, x) <body = body (int64 i, bool go, float[1] a)
    => (bool more, float[1] b) { not = Not(go)  more = Or(go, not)  b = Add(a, a) }>
}"""


def relu() -> Model:
    return model_of(RELU)


@pytest.fixture
def contender() -> Iterator[SubprocessContender]:
    made = SubprocessContender(relu(), SessionConfig(), "tiny")
    yield made
    made.close()


def test_messages_pass_through_a_stream() -> None:
    stream = io.BytesIO()
    send(stream, {"do": "time", "runs": 3})
    send(stream, {})
    stream.seek(0)
    assert [receive(stream), receive(stream), receive(stream)] == [
        {"do": "time", "runs": 3},
        {},
        None,
    ]


def test_a_message_cut_short_is_an_end() -> None:
    stream = io.BytesIO()
    send(stream, {"do": "time"})
    assert receive(io.BytesIO(stream.getvalue()[:-2])) is None
    assert receive(io.BytesIO(b"abc")) is None


@pytest.mark.parametrize("body", [b"x", b"[1]"])
def test_what_is_not_a_message_is_refused(body: bytes) -> None:
    with pytest.raises(RunError, match=r"not .*JSON"):
        receive(io.BytesIO(len(body).to_bytes(8, "big") + body))
    with pytest.raises(RunError, match="not a message"):
        receive(io.BytesIO((LARGEST_BYTES + 1).to_bytes(8, "big")))


def test_errors_keep_their_class_on_the_way() -> None:
    error = unpack_error(pack_error(OptionError("no such key", where="k", hint="Try l")))
    assert type(error) is OptionError
    assert str(error) == "k: no such key. Try l"
    assert type(unpack_error({"error": "annotations", "what": "odd"})) is RunError


def test_a_worker_loads_feeds_times_and_reports_its_memory(tmp_path: Path) -> None:
    made, path = Worker(), relu().save(tmp_path / "m.onnx")
    np.savez(tmp_path / "f.npz", x=np.zeros((2, 3), "f"))
    config = SessionConfig().to_json()
    loaded = made.answer({"do": "load", "model": str(path), "config": config, "name": "m"})
    assert loaded["load_ns"] > 0
    assert made.answer({"do": "feed", "path": str(tmp_path / "f.npz")}) == {}
    timed = made.answer({"do": "time", "runs": 3})
    assert len(timed["ns"]) == len(timed["switches"]) == 3
    assert len(made.answer({"do": "throughput", "runs": 2, "concurrency": 2})["ns"]) == 2
    assert made.answer({"do": "memory"})["peak_bytes"] >= 0


def test_an_error_in_a_worker_is_an_answer(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    config = SessionConfig().to_json()
    path = str(tmp_path / "bad.onnx")
    answer = Worker().answer({"do": "load", "model": path, "config": config, "name": "bad"})
    assert answer["error"] == "RunError"
    assert answer["where"] == "bad"


@pytest.mark.slow
def test_a_model_runs_in_a_process_of_its_own(contender: SubprocessContender) -> None:
    contender.warm(given_feeds(relu()))
    timed = contender.time(3)
    assert len(timed.ns) == 3
    assert min(timed.ns) > 0
    assert contender.worker.process.pid != os.getpid()
    assert (contender.load_ns or 0) > 0
    assert (contender.first_ns or 0) > 0


def test_a_closed_contender_leaves_nothing(contender: SubprocessContender) -> None:
    folder = Path(contender._folder.name)
    contender.close()
    assert contender.worker.process.poll() is not None
    assert not folder.exists()


def test_a_worker_whose_parent_is_gone_removes_the_folder(tmp_path: Path, monkeypatch) -> None:
    folder, codes = tmp_path / "trimtab-bench-x", list[int]()
    folder.mkdir()
    (folder / "feeds.npz").write_bytes(b"x")
    ours, theirs = os.pipe()
    os.close(theirs)
    die_with_parent(str(folder), codes.append, stdin=ours)
    os.close(ours)
    assert codes == [0]
    assert not folder.exists()


@pytest.mark.slow
def test_a_killed_bench_leaves_no_worker_and_no_folder(tmp_path: Path) -> None:
    relu().save(tmp_path / "m.onnx")
    code = (
        "import sys, time; from pathlib import Path; import numpy as np;"
        "from trimtab.core.ort.session import SessionConfig;"
        "from trimtab.runtime_bench.measure.contenders import subprocess_contender;"
        "made = subprocess_contender.SubprocessContender;"
        "contender = made(Path(sys.argv[1]), SessionConfig());"
        "contender.warm({'x': np.zeros((2, 3), 'f')});"
        "print(contender.worker.process.pid, contender._folder.name, flush=True); time.sleep(60)"
    )
    asked = [sys.executable, "-c", code, str(tmp_path / "m.onnx")]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, text=True) as bench:
        assert bench.stdout is not None
        pid, _, folder = bench.stdout.readline().strip().partition(" ")
        assert Path(folder).is_dir()
        bench.kill()
    for _ in range(300):
        if not Path(folder).exists() and not _runs(int(pid)):
            return
        time.sleep(0.1)
    pytest.fail("the worker or its folder is still there")


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


@pytest.mark.slow
def test_a_killed_worker_is_a_finding(contender: SubprocessContender) -> None:
    contender.warm(given_feeds(relu()))
    os.kill(contender.worker.process.pid, signal.SIGKILL)
    with pytest.raises(RunError, match=r"tiny: its process died .*\(SIGKILL\).*memory"):
        contender.time(3)
    with pytest.raises(RunError, match="died"):
        contender.time(1)


@pytest.mark.slow
def test_wrong_feeds_are_reported_and_the_worker_lives(contender: SubprocessContender) -> None:
    with pytest.raises(RunError, match="onnxruntime refuses"):
        contender.warm({"x": np.zeros((4, 4), "f")})
    contender.warm(given_feeds(relu()))


@pytest.mark.slow
def test_a_model_that_hangs_is_killed() -> None:
    model = model_of(ENDLESS)
    hangs = SubprocessContender(model, SessionConfig(), "endless")
    try:
        hangs.load()
        hangs.hang_seconds = 0.5
        with pytest.raises(RunError, match=r"endless: hangs: .* run for the first time"):
            hangs.warm(given_feeds(model))
        hangs.worker.process.wait(5)
    finally:
        hangs.close()


@pytest.mark.slow
def test_an_unknown_provider_is_an_option_error_from_the_worker() -> None:
    wrong = SubprocessContender(relu(), SessionConfig(provider="NoneExecutionProvider"), "tiny")
    try:
        with pytest.raises(OptionError, match="NoneExecutionProvider"):
            wrong.load()
    finally:
        wrong.close()


@pytest.mark.slow
def test_when_one_worker_is_killed_the_other_candidate_gets_its_verdict() -> None:
    contenders: list[SubprocessContender] = []
    due: list[int] = []

    class Dying(SubprocessContender):
        """Killed while it has the baton: an idle process may be dealt to another model next."""

        def time(self, runs: int) -> Runs:
            if due:
                self.worker.process.kill()
            return super().time(runs)

    def make(model: Model | Path, name: str, _: SessionConfig) -> SubprocessContender:
        kind = Dying if len(contenders) == 1 else SubprocessContender
        contenders.append(kind(model, SessionConfig(), name))
        return contenders[-1]

    def until(test: object) -> bool:
        blocks = getattr(test, "blocks", 0)
        if blocks == 5:
            due.append(blocks)
        return bool(blocks >= 15)

    dead, whole = compare(
        relu(), [relu(), relu()], make_contender=make, until=until, max_seconds=60
    )
    assert "SIGKILL" in (dead.error or "")
    assert dead.blocks >= 5
    assert whole.error is None
    assert whole.blocks == 15


@pytest.mark.slow
def test_a_file_deleted_after_the_check_is_a_finding(tmp_path: Path) -> None:
    path = relu().save(tmp_path / "gone.onnx")

    def make(model: Model | Path, name: str, _: SessionConfig) -> SubprocessContender:
        path.unlink(missing_ok=True)
        return SubprocessContender(model, SessionConfig(), name)

    (found,) = compare(relu(), [path], make_contender=make, max_seconds=5)
    assert "gone.onnx" in (found.error or "")


def test_a_corrupt_file_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x09" * 40)
    with pytest.raises(ModelError, match=r"bad\.onnx"):
        compare(relu(), [tmp_path / "bad.onnx"])


@pytest.mark.slow
def test_startup_costs_are_load_first_run_memory_and_size(tmp_path: Path) -> None:
    path = relu().save(tmp_path / "m.onnx")
    found = startup_costs(path, processes=2)
    assert len(found.load_ns) == len(found.first_ns) == len(found.peak_bytes) == 2
    assert found.size_bytes == path.stat().st_size
    assert found.median_load_ns > 0
    assert StartupCosts.from_json(found.to_json()) == found
