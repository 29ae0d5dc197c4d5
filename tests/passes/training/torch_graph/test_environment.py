"""Environment of a training run: Ctrl-C, threads, and the log."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest
import torch
from finetune_cases import Interrupting

from trimtab.passes.training.torch_graph.environment import fastest_threads
from trimtab.passes.training.torch_graph.interrupts import Interrupts
from trimtab.passes.training.torch_graph.log import TrainingLog


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_first_interrupt_ends_after_the_step_and_the_second_at_once() -> None:
    said: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with Interrupts(said.append) as interrupts:
        signal.raise_signal(signal.SIGINT)
        assert interrupts.requested
        assert len(said) == 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_another_thread_trains_without_signals() -> None:
    asked = []

    def work() -> None:
        with Interrupts(print) as interrupts:
            asked.append(interrupts.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert asked == [False]


def test_the_fastest_number_of_threads_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    cost = {1: 2.0, 2: 1.0, 4: 8.0}  # as on a busy machine

    def work() -> None:
        now[0] += cost[torch.get_num_threads()]

    assert fastest_threads(work) == 2


def test_the_log_reports_loss_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Interrupting(after=1)
    log = TrainingLog(progress, size=10)
    log.start(100, done=0.5)
    for loss in (0.5, 0.3):
        log.add(loss)
    now[0] = 60.0
    log.report_validation(112, 0.25, 0.6, 1e-3, better=True)
    assert progress.said == [
        "step 112: validation 0.25 (best), loss 0.4, rate 0.001, 2 items/s, 4.0 min left"
    ]
