"""Times of layers belong to one clock and one machine."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import onnxruntime
import pytest
from channel_models import TARGET, chain, context, step

from trimtab.core import target as core_target
from trimtab.core.context import Context
from trimtab.core.target import kernel_class, timing_class
from trimtab.passes.pruning.channels import PruneChannels
from trimtab.runtime_bench.bench.clock import BenchClock


@dataclass(frozen=True)
class WidthClock:
    """Clock whose time is the number of weights, plus a constant for each run.

    Attributes:
        scale: how slow the machine is.
    """

    scale: float = 1.0

    def median_ns(self, models, feeds, config, seconds):
        return [
            self.scale * (100 + sum(v.const_value.size for v in m.graph.initializers.values()))
            for m in models
        ]


class RemoteClock(WidthClock):
    """Clock on another machine."""

    def machine_class(self) -> str:
        return "board-4cpu"


def pruned_times(clock: WidthClock, cache: Path) -> dict[str, dict[str, int]]:
    PruneChannels(latency=0.6, importance="l2", cache=str(cache))(chain(), context(clock=clock))
    return json.loads(cache.read_text())


def test_unlike_cpus_of_one_kernel_class_do_not_share_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "layers.json"
    for number, name in enumerate(("Slow CPU", "Fast CPU"), start=1):
        monkeypatch.setattr(core_target, "cpu_name", lambda name=name: name)
        times = pruned_times(WidthClock(float(3 - number)), cache)
        assert len(times) == number
    slow, fast = (next(v for k, v in times.items() if name in k) for name in ("Slow", "Fast"))
    assert {name: 2 * ns for name, ns in fast.items()} == slow


def test_times_of_another_machine_are_filed_under_its_name(tmp_path: Path) -> None:
    times = pruned_times(RemoteClock(), tmp_path / "layers.json")
    assert list(times) == [timing_class(TARGET, "board-4cpu")]


def test_the_timing_class_depends_on_threads_and_provider() -> None:
    others = [replace(TARGET, threads=7), replace(TARGET, provider="CUDAExecutionProvider")]
    assert len({timing_class(t) for t in (TARGET, *others)}) == 3
    assert core_target.cpu_name() in timing_class(TARGET)
    assert core_target.cpu_name() not in kernel_class(TARGET)


def test_the_kernel_class_is_the_key_of_older_tuning_caches() -> None:
    version = onnxruntime.__version__
    assert kernel_class(TARGET) == f"CPU, x64, vnni, block 16, 1 threads, onnxruntime {version}"


def test_the_bench_names_the_machine_that_it_measures_on() -> None:
    clock = BenchClock()
    assert context(clock=clock).timing_class() == timing_class(TARGET, clock.machine_class())
    assert context(clock=WidthClock()).timing_class() == timing_class(TARGET)


def test_two_clocks_of_one_context_do_not_share_times() -> None:
    """Equal ones neither: equality says nothing about the machines behind them."""
    ctx = context(clock=WidthClock())
    prune = PruneChannels(latency=0.6, importance="l2")
    notes = []
    for clock in (WidthClock(), WidthClock(1000.0), WidthClock()):
        other: Context = replace(ctx, clock=clock)
        notes.append(step(prune(chain(), other))["latency_ratio"]["predicted"])
        assert other.memo is ctx.memo
    assert notes[0] == notes[1] == notes[2]
