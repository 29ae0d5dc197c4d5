"""Devices without Python: a fake onnxruntime_perf_test, by a real sshd and a fake adb.

The fake program checks its arguments, takes the time that its model names, and writes rows in the
format of the real one, the first of them slower.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import graphs
import numpy as np
import pytest
from sshd import sshd

from trimtab.cli import main
from trimtab.core.errors import OptionError, RunError
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import SessionConfig
from trimtab.core.progress import Silent
from trimtab.core.target import Target, usable_cpus
from trimtab.runtime_bench.bench.bench import Timing
from trimtab.runtime_bench.devices import registry as devices
from trimtab.runtime_bench.devices.agent import timing_to_json
from trimtab.runtime_bench.devices.agent_store import MODEL
from trimtab.runtime_bench.devices.onnxruntime_perf_test import PerfTestBench
from trimtab.runtime_bench.devices.perf_test_contender import parse_latencies
from trimtab.runtime_bench.devices.registry import parse
from trimtab.runtime_bench.devices.shells import AdbShell, BareDevice
from trimtab.runtime_bench.fleet.worker import WorkerCall, run_call
from trimtab.runtime_bench.machine.environment import Environment
from trimtab.runtime_bench.measure.values import Comparison
from trimtab.runtime_bench.open import bench_on

PROGRAM = """#!{python} -S
import os, sys
words = sys.argv[1:]
model, out = words[-2:]
options = dict(zip(words[0:-2:2], words[1:-2:2]))
assert options["-m"] == "times" and options["-x"] == "1" and options["-o"] == "99", words
folder = os.path.dirname(model)
assert os.path.getsize(folder + "/test_data_set_0/input_0.pb") > 0
content = open(model, "rb").read()
seconds = 0.002 if b"slow" in content else 0.001
if b"broken" in content:
    print("Failed to load model")
    sys.exit(0)
with open(out, "a") as file:
    for run in range(int(options["-r"])):
        taken = seconds * (5 if run < 2 else 1 + (run * 7919 % 13) / 1000)
        print("model", "%g" % taken, 1000000, 50, run, sep=",", file=file)
"""
ADB = """#!/bin/sh
[ "$1" = -s ] || exit 9
[ "$2" = emulator-5554 ] || { echo "adb: device '$2' not found" >&2; exit 1; }
command=$3
shift 3
case $command in
push) cp "$1" "$2" ;;
shell) exec sh -c "$*" ;;  # adb hands one line to the device's shell
*) echo "adb: unknown command $command" >&2; exit 1 ;;
esac
"""
HOW = Timing(SessionConfig(threads=1), max_seconds=30.0)


def executable(path: Path, text: str) -> Path:
    path.write_text(text.replace("{python}", sys.executable))
    path.chmod(0o755)
    return path


@pytest.fixture
def adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the address of a phone."""
    # The lock of the device is of this test, not of all runs of it on this machine.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "bin").mkdir()
    executable(tmp_path / "bin" / "adb", ADB)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    program = executable(tmp_path / "perf test", PROGRAM)
    query = f"perf_test={program}&folder={tmp_path / 'phone'}&taskset=1"
    return f"adb://emulator-5554?{query.replace(' ', '%20')}"


def named(text: str) -> Model:
    """Return a network whose file contains a word."""
    model = graphs.cnn().clone()
    model.ir.doc_string = text
    return model


@pytest.mark.slow
def test_adb_measures_alternating_runs(adb: str) -> None:
    feeds = random_feeds(graphs.cnn())
    with bench_on(adb, Silent()) as bench:
        (found,) = bench.compare(named("slow"), [named("quick")], feeds, HOW, Silent())
        assert found.verdict == "better", found.log_ratios
        assert found.low < 2 < found.high
        assert max(found.base.samples_ns) < 2.1e6  # rows of the warm-up are dropped
        assert found.base.environment.onnxruntime == ""
        assert found.base.environment.cpus == usable_cpus()
        assert bench.target(2).threads == 2
        with pytest.raises(RunError, match="load time and memory need trimtab"):
            bench.startup_costs(graphs.cnn(), feeds, HOW, 1, arena=False)


@pytest.mark.slow
def test_a_worker_of_a_fleet_serves_a_phone(
    adb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    devices.add("phone", adb)
    facts = json.loads(run_call(WorkerCall("facts", "phone")))
    assert Environment.from_json(facts["environment"]).cpus == usable_cpus()
    assert Target(**facts["target"]).name == "detected"
    feeds, how = io.BytesIO(), timing_to_json(Timing(HOW.config, 2.0))
    np.savez(feeds, **random_feeds(graphs.cnn()))
    models = [[(MODEL, named(word).to_bytes())] for word in ("slow", "quick")]
    call = WorkerCall("compare", "phone", models, feeds.getvalue(), how)
    (found,) = json.loads(run_call(call))["comparisons"]
    assert 1.9 < Comparison.from_json(found).ratio < 2.1
    refused = json.loads(
        run_call(replace(call, command="card", options={"processes": 1, "arena": False}))
    )
    assert "load time and memory need trimtab" in refused["what"]


@pytest.mark.slow
def test_ssh_drives_a_program_that_the_user_names(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    program = executable(tmp_path / "perf_test", PROGRAM)
    with sshd(tmp_path_factory.mktemp("sshd"), tmp_path / "cache") as server:
        host = server.address.partition("?")[0]
        query = f"config={server.folder}/config&perf_test={program}&folder={tmp_path / 'there'}"
        with bench_on(f"{host}?{query}", Silent()) as bench:
            how = Timing(HOW.config, 1.0)
            (found,) = bench.measure([named("slow")], random_feeds(graphs.cnn()), how, Silent())
    assert 1.9e6 < found.samples_ns[0] < 2.1e6


def test_one_run_at_a_time(adb: str) -> None:
    with PerfTestBench(BareDevice.parse(adb)), pytest.raises(OptionError, match="another run"):
        PerfTestBench(BareDevice.parse(adb))


def test_errors_of_the_program_are_passed_on(adb: str) -> None:
    with (
        PerfTestBench(BareDevice.parse(adb)) as bench,
        pytest.raises(RunError, match="Failed to load model"),
    ):
        bench.measure([named("broken")], random_feeds(graphs.cnn()), HOW, Silent())


def test_a_phone_that_is_not_there(adb: str) -> None:
    with pytest.raises(RunError, match="no such device"):
        PerfTestBench(BareDevice.parse(adb.replace("emulator-5554", "R58M")))


def test_a_program_that_is_not_there(adb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunError, match="there is no program"):
        PerfTestBench(BareDevice.parse(adb.replace("perf%20test", "other")))


def test_no_adb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(OptionError, match="no adb"):
        AdbShell("x").run(["true"])


def test_names_reach_the_shell_as_words(adb: str, tmp_path: Path) -> None:
    shell = AdbShell("emulator-5554")
    assert shell.run(["echo", "$(touch owned)", "; rm -rf ~"]) == "$(touch owned) ; rm -rf ~\n"
    assert not Path("owned").exists()


def test_rows_without_times_are_refused() -> None:
    with pytest.raises(RunError, match="no times: out of memory"):
        parse_latencies("loading\nout of memory", "phone")
    rows = "a,b,0.001,1,2,0\n" * 3 + "\nMin Latency is 0.001sec\n"
    assert parse_latencies(rows, "phone") == (1_000_000,) * 3


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("adb://serial", "names no onnxruntime_perf_test"),
        ("adb://;x?perf_test=/p", "not a valid serial"),
        ("adb://s?perf_tset=/p", "Did you mean 'perf_test'"),
        ("adb://s?perf_test=/p&taskset=all", "not a valid mask"),
        ("adb://s?perf_test=/p&config=/c", "unknown option"),
    ],
)
def test_invalid_addresses_are_refused(address: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse(address)


def test_a_device_without_python_can_have_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert main(["device", "add", "phone", "adb://R58M?perf_test=/data/local/tmp/p"]) == 0
    assert main(["device", "check", "phone"]) == 2
    assert "adb" in capsys.readouterr().err
