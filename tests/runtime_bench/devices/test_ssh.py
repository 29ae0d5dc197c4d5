"""Devices by ssh, against a real sshd."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import graphs
import numpy as np
import pytest
from heard import Heard
from sshd import Server, keygen, sshd

from trimtab.cli import main
from trimtab.core.errors import OptionError, RunError
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import SessionConfig
from trimtab.core.progress import Silent
from trimtab.runtime_bench.bench.bench import Timing
from trimtab.runtime_bench.devices import registry as devices
from trimtab.runtime_bench.devices.agent_bench import AgentBench
from trimtab.runtime_bench.devices.ssh import Ssh

HOW = Timing(SessionConfig(threads=1), max_seconds=1.5)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("sshd")
    with sshd(folder, tmp_path_factory.mktemp("cache")) as running:
        yield running


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    # A name that a shell would obey.
    base, other = tmp_path / "; rm -rf ~.onnx", tmp_path / "$(touch owned) `x`.onnx"
    graphs.cnn().save(base)
    graphs.cnn().save(other)
    return base, other


@pytest.mark.slow
def test_bench_measures_there_and_returns_every_sample(
    server: Server, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out.json"
    command = ["bench", *map(str, files), "--on", server.address, "--batch", "1"]
    assert main([*command, "--threads", "1", "--max-time", "6s", "--json", str(out)]) == 0
    document = json.loads(out.read_text())
    (compared,) = document["runs"][0]["comparisons"]
    assert compared["base"]["model"] == str(files[0])
    assert len(compared["base"]["samples_ns"]) > 10
    assert compared["log_ratios"]
    assert document["cards"][0]["peak_bytes"]
    assert not (tmp_path / "owned").exists()


@pytest.mark.slow
def test_gate_judges_measurements_of_the_device(
    server: Server, files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "budgets.yaml").write_text(
        f"model: {json.dumps(files[0].name)}\nbaseline: {json.dumps(files[1].name)}\n"
        "threads: 1\nshape: {x: 1x3x8x8}\n"
        "budgets: {p50: 500ms, speedup: 0.2, rss: 900MB, size: 1MB}\n"
    )
    code = main(["gate", str(tmp_path / "budgets.yaml"), "--on", server.address])
    assert code == 0, capsys.readouterr().out


@pytest.mark.slow
def test_optimize_takes_target_and_times_from_the_device(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    graphs.cnn().save(tmp_path / "float.onnx")
    np.savez(tmp_path / "data.npz", x=rng.standard_normal((96, 3, 8, 8), np.float32))
    command = ["optimize", str(tmp_path / "float.onnx"), "--data", str(tmp_path / "data.npz")]
    command += ["-o", str(tmp_path / "out"), "--on", server.address, "--threads", "1"]
    command += ["--passes", "simplify,quantize-static", "--max-drop", "1", "--time", "20s"]
    assert main([*command, "--no-cache"]) in {0, 1}
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert any("on the device" in mark for mark in result["marks"])
    assert any(r["comparison"] for r in result["results"])
    capsys.readouterr()
    assert main([*command, "--target", "arm64"]) == 2
    assert "--on sets the target itself" in capsys.readouterr().err


@pytest.mark.slow
def test_the_doctor_diagnoses_there(
    server: Server, files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "doctor.json"
    command = ["doctor", str(files[0]), "--threads", "1", "--no-profile", "--json", str(out)]
    assert main([*command, "--on", server.address]) == 0
    there, text = json.loads(out.read_text()), capsys.readouterr().out
    assert main(command) == 0
    assert (json.loads(out.read_text()), capsys.readouterr().out) == (there, text)
    assert main([*command, "--on", server.address, "--target", "arm64"]) == 2


@pytest.mark.slow
def test_two_clients_take_turns(server: Server, files: tuple[Path, Path]) -> None:
    feeds, progress, found = random_feeds(graphs.cnn()), Heard(), []
    device = Ssh.parse(server.address)

    def second() -> None:
        with AgentBench(device, progress) as bench:
            found.append(bench.measure([files[0]], feeds, HOW, Silent()))

    with AgentBench(device) as bench:
        thread = threading.Thread(target=second)
        thread.start()
        bench.measure([files[1]], feeds, HOW, Silent())
        while not progress.said:
            time.sleep(0.05)
        assert not found
    thread.join(timeout=60)
    assert found
    assert "in use by" in progress.said[0]


@pytest.mark.slow
def test_a_lost_connection_is_one_message(
    files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with sshd(tmp_path_factory.mktemp("sshd"), tmp_path_factory.mktemp("cache")) as server:
        bench = AgentBench(Ssh.parse(server.address))
        threading.Timer(1.5, server.stop).start()
        with pytest.raises(RunError, match="connection ended"), bench:
            bench.measure(
                [files[0]], random_feeds(graphs.cnn()), Timing(HOW.config, 60.0), Silent()
            )


@pytest.mark.slow
def test_a_model_is_sent_once(server: Server, files: tuple[Path, Path]) -> None:
    with AgentBench(Ssh.parse(server.address)) as bench:
        digest = bench._put([("model.onnx", files[0])])
        assert bench._ask(10, do="missing", digests=[digest, "0" * 64])["digests"] == ["0" * 64]
        assert bench.target(1).threads == 1
        assert bench.environment().cpus >= 1


def test_an_unknown_host_key_is_refused(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keygen(tmp_path / "other")
    wrong = (tmp_path / "other.pub").read_text().split()[:2]
    (tmp_path / "known").write_text(f"[127.0.0.1]:{server.port} {' '.join(wrong)}\n")
    text = (server.folder / "config").read_text()
    known = str(server.folder / "known_hosts")
    (tmp_path / "config").write_text(text.replace(known, str(tmp_path / "known")))
    old = str(server.folder / "config")
    address = server.address.replace(old, str(tmp_path / "config"))
    assert main(["device", "check", address]) == 2
    said = capsys.readouterr().err
    assert "host key is not the known one" in said
    assert "ssh-keygen -lf" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"python": "/nowhere/python3"}, "no Python by that name"),
        ({"port": 1}, "nothing answers at that port"),
        ({"user": "nobody-of-that-name"}, "refuses the login"),
        ({"python": "/bin/echo"}, "answers with something other"),
    ],
)
def test_each_fault_of_a_device_is_one_message(
    server: Server, change: dict[str, object], message: str
) -> None:
    device = Ssh(**Ssh.parse(server.address).__dict__ | change)  # type: ignore[arg-type]
    with pytest.raises(RunError, match=message) as caught:
        AgentBench(device)
    assert caught.value.hint


@pytest.mark.slow
def test_a_python_without_trimtab_says_what_to_install(server: Server, tmp_path: Path) -> None:
    bare = tmp_path / "python3"
    bare.write_text(f'#!/bin/sh\nPYTHONPATH= exec {sys._base_executable} -S "$@"\n')  # type: ignore[attr-defined]
    bare.chmod(0o755)
    device = Ssh(**Ssh.parse(server.address).__dict__ | {"python": str(bare)})
    with pytest.raises(RunError, match="lacks trimtab") as caught:
        AgentBench(device)
    assert "-m pip install 'trimtab[cpu]'" in str(caught.value.hint)
    from trimtab.runtime_bench.devices.check import check, check_lines

    found = check(device)
    assert not found.ready
    assert "pip install 'trimtab[cpu]'" in "\n".join(check_lines(found))


def test_device_command(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert main(["device", "list"]) == 0
    assert main(["device", "add", "pi", server.address]) == 0
    assert main(["device", "check", "pi"]) == 0
    assert "ready to measure" in capsys.readouterr().out
    assert devices.find("pi").port == server.port
    assert main(["bench", "x.onnx", "--on", "nothing"]) == 2
    assert main(["device", "remove", "pi"]) == 0
    assert main(["device", "remove", "pi"]) == 2


@pytest.mark.parametrize(
    "address",
    [
        "ssh://-oProxyCommand=x@host",
        "ssh://-oProxyCommand=x",
        "ssh://host/path",
        "ssh://host:notaport",
        "http://host",
        "ssh://u:secret@host",
        "ssh://host?pyton=x",
        "ssh://a b",
        "ssh://",
    ],
)
def test_invalid_addresses_are_refused(address: str) -> None:
    with pytest.raises(OptionError):
        Ssh.parse(address)


def test_arguments_reach_the_remote_program_unchanged() -> None:
    if shutil.which("ssh") is None:
        pytest.skip("needs ssh: apt-get install openssh-client")
    far = ["printf", "%s|", "; rm -rf ~", "$(x)", "a'b"]
    line = Ssh("host").command(far)[-1]
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout == "; rm -rf ~|$(x)|a'b|"


def made_wheel(folder: Path, name: str, *requires: str) -> None:
    """Write a wheel with nothing but its name and requirements."""
    import zipfile

    path, info = folder / f"{name}-99.0-py3-none-any.whl", f"{name}-99.0.dist-info"
    lines = "".join(f"Requires-Dist: {r}\n" for r in requires)
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 99.0\n{lines}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for inner, text in files.items():
            archive.writestr(inner, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{f},,\n" for f in [*files, f"{info}/RECORD"]))


@pytest.fixture
def bare(server: Server, tmp_path: Path) -> Ssh:
    """Return a device whose Python has pip and nothing else."""
    subprocess.run([sys._base_executable, "-m", "venv", str(tmp_path / "venv")], check=True)  # type: ignore[attr-defined]
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\nPYTHONPATH= exec {tmp_path}/venv/bin/python "$@"\n')
    python.chmod(0o755)
    return Ssh(**Ssh.parse(server.address).__dict__ | {"python": str(python)})


@pytest.mark.slow
def test_wheels_are_sent_once_and_installed_without_a_network(bare: Ssh, tmp_path: Path) -> None:
    from trimtab.runtime_bench.devices.check import required_distributions
    from trimtab.runtime_bench.devices.install import install

    folder = tmp_path / "wheels"
    folder.mkdir()
    made_wheel(folder, "trimtab", *required_distributions())
    for name in required_distributions():
        made_wheel(folder, name.replace("-", "_").lower())
    progress = Heard()
    found = install(bare, progress, folder)
    assert found.ready
    assert found.facts["packages"]["trimtab"] == "99.0"
    assert sum("sending" in line for line in progress.said) == 1 + len(required_distributions())
    again = Heard()
    install(bare, again, folder)
    assert not any("sending" in line for line in again.said)


@pytest.mark.slow
def test_a_folder_without_a_wheel_of_trimtab_is_refused(server: Server, tmp_path: Path) -> None:
    from trimtab.runtime_bench.devices.install import install

    with pytest.raises(OptionError, match="not a folder of wheels"):
        install(Ssh.parse(server.address), Silent(), tmp_path / "nothing")
    made_wheel(tmp_path, "numpy")
    with pytest.raises(OptionError, match="no wheel of trimtab"):
        install(Ssh.parse(server.address), Silent(), tmp_path)


@pytest.mark.slow
def test_a_python_without_pip_says_what_to_do(server: Server, tmp_path: Path) -> None:
    from trimtab.runtime_bench.devices.install import install

    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\nPYTHONPATH= exec {sys._base_executable} -I -S "$@"\n')  # type: ignore[attr-defined]
    python.chmod(0o755)
    made_wheel(tmp_path, "trimtab")
    device = Ssh(**Ssh.parse(server.address).__dict__ | {"python": str(python)})
    with pytest.raises(RunError, match="no pip") as caught:
        install(device, Silent(), tmp_path)
    assert "ensurepip" in str(caught.value.hint)


def test_a_device_takes_wheels_of_its_own_c_library_and_older_ones() -> None:
    from trimtab.runtime_bench.devices.install import platforms

    found = platforms({"libc": ["glibc", "2.28"], "machine": "aarch64"})
    assert found[0] == "manylinux_2_28_aarch64"
    assert found[-1] == "manylinux2014_aarch64"
    with pytest.raises(RunError, match="not glibc") as caught:
        platforms({"libc": ["", ""], "machine": "aarch64"})
    assert "--wheels" in str(caught.value.hint)
