"""Facts of the machine, and what makes two machines one class."""

from __future__ import annotations

import json
from dataclasses import replace

from trimtab.runtime_bench.machine.environment import Environment
from trimtab.runtime_bench.machine.gpu import GpuState


def test_a_missing_proc_is_not_an_error(monkeypatch) -> None:
    monkeypatch.setattr("trimtab.runtime_bench.machine.environment.read_text", lambda path: "")
    assert Environment.here().cpu
    assert Environment.here().quota is None


def test_the_environment_round_trips_through_json() -> None:
    here = Environment.here()
    assert Environment.from_json(json.loads(json.dumps(here.to_json()))) == here


def test_the_machine_class_ignores_what_does_not_change_speed() -> None:
    here = Environment.here()
    same = replace(here, system="Linux 9.9", affinity=(7,), python="3.99")
    assert same.machine_class() == here.machine_class()
    assert replace(here, cpus=here.cpus + 1).machine_class() != here.machine_class()
    assert replace(here, onnxruntime="0").machine_class() != here.machine_class()


def test_the_gpu_that_ran_a_model_is_part_of_the_machine_class() -> None:
    here = Environment.here()
    one, other = (Environment.here(GpuState("NVIDIA H200", d)) for d in ("550.1", "570.2"))
    assert (one.gpu, one.driver) == ("NVIDIA H200", "550.1")
    assert one.machine_class().startswith("NVIDIA-H200-")
    assert len({here.machine_class(), one.machine_class(), other.machine_class()}) == 3


def test_an_environment_written_before_gpus_is_read() -> None:
    old = {k: v for k, v in Environment.here().to_json().items() if k not in {"gpu", "driver"}}
    assert Environment.from_json(old) == Environment.here()
