"""Fleets, against a real Dask scheduler and real worker processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import graphs
import numpy as np
import pytest
from heard import Heard
from sshd import free_port, sshd

from trimtab.cli import main
from trimtab.commands.bench import across
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, InputError, MissingExtraError, OptionError, RunError
from trimtab.core.metric import evaluate
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import SessionConfig
from trimtab.core.progress import Silent
from trimtab.runtime_bench.bench.bench import Timing
from trimtab.runtime_bench.devices import registry as devices
from trimtab.runtime_bench.devices.fleet_address import FleetAddress
from trimtab.runtime_bench.devices.shells import BareDevice
from trimtab.runtime_bench.devices.transport import LocalProcess
from trimtab.runtime_bench.fleet import bench as fleet
from trimtab.runtime_bench.fleet import runner as fleet_runner
from trimtab.runtime_bench.fleet.bench import FleetBench
from trimtab.runtime_bench.fleet.local import LocalFleet
from trimtab.runtime_bench.fleet.worker import WorkerCall, device_behind, run_call
from trimtab.runtime_bench.open import bench_on_all, device_names, runner_on

pytest.importorskip("distributed", reason="needs Dask: pip install trimtab[fleet]")
HOW = Timing(SessionConfig(threads=1), max_seconds=1.5)


def environment(patch: pytest.MonkeyPatch, cache: Path) -> None:
    """Set the environment of the workers: these packages, and a cache of their own."""
    patch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
    patch.setenv("TRIMTAB_CACHE", str(cache))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFleet]:
    with pytest.MonkeyPatch.context() as patch:
        environment(patch, tmp_path_factory.mktemp("cache"))
        with LocalFleet(["pi5", "orin"], port=free_port(), common="board") as found:
            yield found


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    base, other = tmp_path / "; rm -rf ~.onnx", tmp_path / "other.onnx"
    graphs.cnn().save(base)
    graphs.cnn().save(other)
    return base, other


def at(running: LocalFleet, device: str) -> str:
    return f"dask://127.0.0.1:{running.port}?device={device}"


@pytest.mark.slow
def test_bench_measures_on_each_device_and_reports_the_worst(
    running: LocalFleet,
    files: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out.json"
    both = f"{at(running, 'pi5')},{at(running, 'orin')}"
    command = ["bench", *map(str, files), "--on", both, "--batch", "1", "--threads", "1"]
    assert main([*command, "--max-time", "5s", "--no-card", "--json", str(out)]) == 0
    document = json.loads(out.read_text())
    assert [run["on"] for run in document["runs"]] == both.split(",")
    for run in document["runs"]:
        (compared,) = run["comparisons"]
        assert compared["base"]["model"] == str(files[0])
        assert compared["base"]["samples_ns"]
    assert "on 2 devices: worst" in capsys.readouterr().out


@pytest.mark.slow
def test_a_budget_names_the_devices_that_must_hold_it(
    running: LocalFleet, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("pi5", "orin"):
        assert main(["device", "add", name, at(running, name)]) == 0
    (tmp_path / "budgets.yaml").write_text(
        f"model: {files[1].name}\nthreads: 1\nshape: {{x: 1x3x8x8}}\non: [pi5, orin]\n"
        "budgets: {p50: 500ms, size: 1MB}\n"
    )
    out = tmp_path / "gate.json"
    assert main(["gate", str(tmp_path / "budgets.yaml"), "--json", str(out)]) == 0
    gates = json.loads(out.read_text())["gates"]
    assert [gate["name"] for gate in gates] == [f"{files[1].name} on {d}" for d in ("pi5", "orin")]


@pytest.mark.slow
def test_optimize_measures_on_the_fleet(running: LocalFleet, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    graphs.cnn().save(tmp_path / "float.onnx")
    np.savez(tmp_path / "data.npz", x=rng.standard_normal((96, 3, 8, 8), np.float32))
    command = ["optimize", str(tmp_path / "float.onnx"), "--data", str(tmp_path / "data.npz")]
    command += ["-o", str(tmp_path / "out"), "--on", at(running, "orin"), "--threads", "1"]
    command += ["--passes", "simplify,quantize-static", "--max-drop", "1", "--time", "8s"]
    assert main([*command, "--no-cache"]) in {0, 1}
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert any(r["comparison"] for r in result["results"])


@pytest.mark.slow
def test_several_devices_compare_as_one(running: LocalFleet, files: tuple[Path, Path]) -> None:
    both = [at(running, name) for name in ("pi5", "orin")]
    with bench_on_all(",".join(both), Heard()) as bench:
        feeds, how = random_feeds(graphs.cnn()), replace(HOW, max_seconds=40.0, resolution=0.5)
        (found,) = bench.compare(files[0], [files[1]], feeds, how, Silent())
        assert bench.target(1).threads == 1
    assert list(found.devices) == both
    assert found.ratio == min(c.ratio for c in found.devices.values())
    assert all(c.log_ratios and c.alpha == HOW.alpha / 2 for c in found.devices.values())


@pytest.mark.slow
def test_one_token_means_one_measurement_at_a_time(
    running: LocalFleet, files: tuple[Path, Path]
) -> None:
    address, progress = (
        FleetAddress.parse(at(running, "pi5")),
        [Heard(), Heard()],
    )
    spans: list[tuple[float, float]] = []

    def client(number: int) -> None:
        with FleetBench(address, progress[number]) as bench:
            start = time.monotonic()
            # Long enough that the second, however late it starts, comes while the first measures.
            how = replace(HOW, max_seconds=6.0)
            found = bench.measure([files[0]], random_feeds(graphs.cnn()), how, progress[number])
            assert found[0].samples_ns
            spans.append((start, time.monotonic()))

    threads = [threading.Thread(target=client, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=90)
    assert len(spans) == 2
    assert any("waiting for its turn" in line for t in progress for line in t.said)


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_by_another_with_such_a_device(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, tmp_path / "cache")
    progress, found = Heard(), []
    with (
        LocalFleet(["a", "b"], port=free_port(), common="board") as running,
        FleetBench(FleetAddress.parse(at(running, "board")), progress) as bench,
    ):

        def measure() -> None:
            how = Timing(HOW.config, 6.0)
            found.extend(bench.measure([files[0]], random_feeds(graphs.cnn()), how, progress))

        thread = threading.Thread(target=measure)
        thread.start()
        running.workers[measuring(bench)].send_signal(signal.SIGKILL)
        thread.join(timeout=90)
    assert found[0].samples_ns
    assert any("was lost; again on" in line for line in progress.said)


def measuring(bench: FleetBench) -> str:
    """Return the name of the worker that measures, once it has started."""
    while True:
        info = bench._client.scheduler_info(n_workers=-1)["workers"]
        for worker, keys in bench._client.processing().items():
            if keys:
                time.sleep(2)
                return str(info[worker]["name"])
        time.sleep(0.1)


@pytest.mark.slow
def test_a_device_that_vanishes_is_reported(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, tmp_path / "cache")
    monkeypatch.setattr(fleet, "GONE_SECONDS", 1.0)
    with (
        LocalFleet(["only"], port=free_port()) as running,
        FleetBench(FleetAddress.parse(at(running, "only"))) as bench,
    ):
        threading.Timer(2, running.workers["only"].kill).start()
        how = Timing(HOW.config, 60.0)
        with pytest.raises(RunError, match="vanished"):
            bench.measure([files[0]], random_feeds(graphs.cnn()), how, Silent())


def images(rows: int, batch: int) -> Dataset:
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((rows, 3, 8, 8), np.float32), rng.integers(0, 4, rows)
    return Dataset.of_arrays({"x": x}, labels, batch=batch)


@pytest.mark.parametrize(("workers", "sizes"), [(1, [10]), (3, [4, 4, 2]), (20, [1] * 10)])
def test_each_worker_gets_a_part(workers: int, sizes: list[int]) -> None:
    parts = list(fleet_runner._parts(images(80, 8), workers))
    assert [len(part) for part in parts] == sizes


@pytest.mark.slow
def test_quality_is_the_same_on_a_fleet(
    running: LocalFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_runner, "PART_BYTES", 1 << 16)  # several tasks
    model, data = graphs.cnn(), images(500, 32)
    with runner_on(at(running, "board")) as runner:
        assert runner is not None
        for metric in ("top1", "cosine"):
            here = evaluate(model, data, metric, reference=model)
            there = evaluate(model, data, metric, reference=model, runner=runner)
            assert there.value == here.value
            np.testing.assert_array_equal(there.items, here.items)
        wrong = Dataset.of_arrays(
            {"x": np.full((9, 3, 8, 8), np.nan, np.float32)}, np.zeros(9, int)
        )
        with pytest.raises(DataError, match="NaN"):
            evaluate(model, wrong, "top1", runner=runner)


@pytest.mark.slow
def test_an_evaluation_survives_the_loss_of_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, tmp_path)
    monkeypatch.setattr(fleet_runner, "PART_BYTES", 1)
    model, data = graphs.cnn(), images(320, 8)
    with (
        LocalFleet(["one", "two"], port=free_port(), common="any") as running,
        runner_on(at(running, "any")) as runner,
    ):
        assert runner is not None
        found = 0
        for found, _ in enumerate(runner(model, data, SessionConfig()), 1):
            if found == 10:
                running.workers["one"].kill()
        assert found == data.batches
        running.workers["two"].kill()
        monkeypatch.setattr(fleet, "GONE_SECONDS", 2.0)
        with pytest.raises(RunError, match="vanished"):
            list(runner(model, data, SessionConfig()))


@pytest.mark.slow
def test_doctor_spreads_its_sweep(running: LocalFleet, tmp_path: Path) -> None:
    graphs.cnn().save(tmp_path / "float.onnx")
    rng, documents = np.random.default_rng(0), []
    np.savez(tmp_path / "data.npz", x=rng.standard_normal((64, 3, 8, 8), np.float32))
    command = ["doctor", str(tmp_path / "float.onnx"), "--prune", "--threads", "1"]
    command += ["--data", str(tmp_path / "data.npz"), "--json", str(tmp_path / "out.json")]
    for more in ([], ["--eval-on", at(running, "board")]):
        assert main([*command, *more]) == 0
        documents.append((tmp_path / "out.json").read_text())
    assert documents[0] == documents[1]


def test_only_a_fleet_evaluates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graphs.cnn().save(tmp_path / "float.onnx")
    np.savez(tmp_path / "data.npz", x=np.zeros((32, 3, 8, 8), np.float32))
    command = ["doctor", str(tmp_path / "float.onnx"), "--prune", "--eval-on", "ssh://pi5"]
    assert main([*command, "--data", str(tmp_path / "data.npz")]) == 2
    assert "evaluations run on a fleet" in capsys.readouterr().err


@pytest.mark.slow
def test_a_worker_serves_a_device_by_ssh(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with sshd(tmp_path_factory.mktemp("sshd"), tmp_path_factory.mktemp("cache")) as server:
        devices.add("board", server.address)
        facts = json.loads(run_call(WorkerCall("facts", "board")))
        assert facts["environment"]["cpus"]
        server.stop()
        answer = json.loads(run_call(WorkerCall("facts", "board")))
    assert answer["error"] == "RunError"
    assert "nothing answers" in answer["what"]


def test_a_name_for_the_fleet_s_own_device_is_the_worker_s_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    devices.add("pi5", "dask://127.0.0.1:8786?device=pi5")
    devices.add("phone", "adb://R58M?perf_test=/data/local/tmp/p")
    assert device_behind("pi5") == LocalProcess("pi5")
    assert isinstance(device_behind("phone"), BareDevice)


@pytest.mark.slow
def test_with_certificates_traffic_is_encrypted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make certificates: apt-get install openssl")
    environment(monkeypatch, tmp_path / "cache")
    ours, theirs = certificate(tmp_path / "ours"), certificate(tmp_path / "theirs")
    port = free_port()
    tls = [f"--tls-ca-file={ours[0]}", f"--tls-cert={ours[0]}", f"--tls-key={ours[1]}"]
    dask = [sys.executable, "-m"]
    started = [
        [*dask, "distributed.cli.dask_scheduler", "--protocol", "tls", "--no-dashboard"],
        [*dask, "distributed.cli.dask_worker", f"tls://127.0.0.1:{port}", "--no-nanny"],
    ]
    started[0] += ["--host", "127.0.0.1", "--port", str(port)]
    started[1] += ["--host", "127.0.0.1", "--nthreads", "1", "--resources", "pi5=1"]
    started[1] += ["--no-dashboard", "--local-directory", str(tmp_path)]
    processes = [
        subprocess.Popen([*command, *tls], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for command in started
    ]

    def named(pair: tuple[Path, Path]) -> FleetAddress:
        files = f"tls_ca={pair[0]}&tls_cert={pair[0]}&tls_key={pair[1]}"
        return FleetAddress.parse(f"dask://127.0.0.1:{port}?device=pi5&{files}")

    try:
        with FleetBench(named(ours)) as bench:
            assert bench.environment().cpus
            feeds = random_feeds(graphs.cnn())
            card, _ = bench.startup_costs(graphs.cnn(), feeds, HOW, 1, arena=False)
            assert card.peak_bytes
            models = [graphs.cnn(), graphs.cnn()]
            lines, made = bench.diagnosis(models, feeds, HOW, profiled=False)
            assert lines
            assert made
        monkeypatch.setattr(fleet, "CONNECT_SECONDS", 3.0)
        with pytest.raises(RunError, match="no scheduler answers"):
            FleetBench(named(theirs))
    finally:
        for process in processes:
            process.kill()
            process.wait()


def certificate(folder: Path) -> tuple[Path, Path]:
    folder.mkdir()
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


@pytest.mark.slow
def test_an_unknown_device_is_reported_with_the_known_ones(
    running: LocalFleet, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(files[0]), "--batch", "1", "--on", at(running, "pi6")]) == 2
    message = capsys.readouterr().err
    assert "no worker offers a device 'pi6'" in message
    assert "board, orin, pi5" in message


@pytest.mark.slow
def test_a_missing_scheduler_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "CONNECT_SECONDS", 1.0)
    with pytest.raises(RunError, match="no scheduler answers"):
        FleetBench(FleetAddress.parse(f"dask://127.0.0.1:{free_port()}?device=pi5"))


def test_dask_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtraError, match=r"trimtab\[fleet\]"):
        FleetBench(FleetAddress.parse("dask://127.0.0.1:1?device=pi5"))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("dask://host:8786", "names no device"),
        ("dask://host:high?device=a", "not a valid address"),
        ("dask://host?devise=a", "Did you mean 'device'"),
        ("dask://?device=a", "names no device"),
        ("dask://host?device=a&tls_ca=x", "needs all of"),
    ],
)
def test_invalid_addresses_are_refused(address: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        FleetAddress.parse(address)


def test_missing_certificates_are_refused() -> None:
    files = "tls_ca=/none&tls_cert=/none&tls_key=/none"
    with pytest.raises(InputError, match="no such file"):
        FleetAddress.parse(f"dask://host?device=a&{files}")


def test_the_worst_and_the_median_over_devices_are_reported() -> None:
    def run(on: str, ratio: float) -> dict:
        return {"on": on, "comparisons": [{"candidate": {"model": "m"}, "ratio": ratio}]}

    (line,) = across([run("a", 2.0), run("b", 1.5), run("c", 1.8)])
    assert line == "m on 3 devices: worst 1.50x on b, median 1.80x"


def test_commas_name_several_devices() -> None:
    assert device_names("a, b,a") == ["a", "b"]
    with pytest.raises(OptionError, match="lacks a name"):
        device_names("a,,b")


@pytest.mark.slow
def test_fleet_up_refuses_what_it_cannot_do(
    running: LocalFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fleet", "up", "--local", "0"]) == 2
    assert main(["fleet", "up", "--port", str(running.port)]) == 2
    assert "is taken" in capsys.readouterr().err
