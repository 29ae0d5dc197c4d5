"""The order of runs, with fake contenders and a fake clock."""

from __future__ import annotations

import numpy as np
import pytest
from bench_fakes import FakeClock, FakeContender, fails_at

from trimtab.core.errors import RunError
from trimtab.runtime_bench.machine.placement import Placement
from trimtab.runtime_bench.measure.contenders.pacing import BlockPlan, stabilize, steady, warm_up
from trimtab.runtime_bench.measure.sampling import BlockPair, Sampler, SideBySide
from trimtab.runtime_bench.measure.timing import Runs
from trimtab.runtime_bench.stats.e_process import PairedTest


def never(_: PairedTest) -> bool:
    return False


def sampler(clock: FakeClock, seed: int = 0) -> Sampler:
    return Sampler(np.random.default_rng(seed), clock)


def sampled(
    pairs: list[BlockPair], clock: FakeClock, seconds: float = 1.0, until=never
) -> list[BlockPair]:
    return list(sampler(clock).blocks(pairs, {}, seconds=seconds, until=until))


def test_a_block_is_abba_or_baab_by_a_fair_coin() -> None:
    clock, order = FakeClock(), []
    contenders = [FakeContender(clock, name=n, before=lambda _, n=n: order.append(n)) for n in "AB"]
    run = sampler(clock)
    run.plan = BlockPlan(repeats=200)
    list(run._round([BlockPair(*contenders)]))
    blocks = ["".join(order[i : i + 4]) for i in range(0, len(order), 4)]
    assert set(blocks) == {"ABBA", "BAAB"}
    assert 70 < blocks.count("ABBA") < 130


def test_the_run_after_a_switch_is_discarded() -> None:
    clock = FakeClock()
    a, b = FakeContender(clock), FakeContender(clock)
    pair = BlockPair(a, b)
    list(sampler(clock)._round([pair]))
    assert a.calls == b.calls == [5, 5]
    assert [len(r.ns) for r in pair.base_runs + pair.candidate_runs] == [4] * 4


def test_the_log_ratio_is_that_of_the_block_medians() -> None:
    clock = FakeClock()
    pair = BlockPair(FakeContender(clock, 2e6, noise=0), FakeContender(clock, 1e6, noise=0))
    list(sampler(clock)._round([pair]))
    assert pair.test.log_ratios == [pytest.approx(np.log(2))]


def test_it_stops_at_the_time_limit() -> None:
    clock = FakeClock()
    pair = BlockPair(FakeContender(clock), FakeContender(clock))
    sampled([pair], clock, seconds=1.0)
    assert 1e9 <= clock.at_ns < 1.1e9
    assert pair.test.blocks > 20


def test_a_decided_pair_is_measured_no_further() -> None:
    clock = FakeClock()
    base = FakeContender(clock)
    quick, slow = (
        BlockPair(base, FakeContender(clock, seed=1)),
        BlockPair(base, FakeContender(clock, seed=2)),
    )
    done = sampled(
        [quick, slow], clock, 5.0, lambda test: test.blocks >= (7 if test is quick.test else 30)
    )
    assert (quick.test.blocks, slow.test.blocks, len(done)) == (7, 30, 37)


def test_candidates_take_turns_in_random_order() -> None:
    clock, turns = FakeClock(), []
    base = FakeContender(clock)
    names = "abc"
    pairs = [
        BlockPair(base, FakeContender(clock, name=n, before=lambda _, n=n: turns.append(n)))
        for n in names
    ]
    run = sampler(clock)
    run.plan = BlockPlan(repeats=20)
    list(run._round(pairs))
    orders = {tuple(turns[i : i + 6 : 2]) for i in range(0, len(turns), 6)}
    assert all(sorted(order) == list(names) for order in orders)
    assert len(orders) > 3


def test_a_block_of_several_orders_is_their_median() -> None:
    clock = FakeClock()
    slows = FakeContender(clock, 1e6, noise=0)
    slows.before = lambda call: setattr(slows, "run_ns", 1e6 if call >= 2 else 9e6)
    pair = BlockPair(FakeContender(clock, 1e6, noise=0), slows)
    run = sampler(clock)
    run.plan = BlockPlan(repeats=3)
    list(run._round([pair]))
    assert pair.test.log_ratios == [0.0]


def test_each_block_has_new_sessions_in_randomly_assigned_workers() -> None:
    clock = FakeClock()
    a, b = FakeContender(clock, worker="left"), FakeContender(clock, worker="right")
    pair = BlockPair(a, b)
    sampled([pair], clock, 3.0)
    assert len(a.renewed) == len(b.renewed) == pair.test.blocks + 1  # one to learn what it costs
    assert all({x, y} == {"left", "right"} for x, y in zip(a.renewed, b.renewed, strict=True))
    assert 0.3 < a.renewed.count("left") / len(a.renewed) < 0.7


def test_sessions_that_take_too_long_to_build_are_kept() -> None:
    clock = FakeClock()
    pair = BlockPair(FakeContender(clock, renew_ns=10**9), FakeContender(clock))
    run = sampler(clock)
    list(run.blocks([pair], {}, seconds=10, until=never))
    assert not run.plan.renew
    assert len(pair.base.renewed) == 1
    assert pair.test.blocks > 20


def test_a_candidate_whose_new_session_fails_leaves() -> None:
    class Fragile(FakeContender):
        def renew(self) -> None:
            super().renew()
            if len(self.renewed) == 4:
                raise RunError("its process died")

    clock = FakeClock()
    base = FakeContender(clock)
    dies, lives = BlockPair(base, Fragile(clock)), BlockPair(base, FakeContender(clock))
    sampled([dies, lives], clock)
    assert dies.error is not None
    assert dies.test.blocks == 2
    assert lives.test.blocks > 5


def test_a_candidate_that_dies_leaves_and_the_others_go_on() -> None:
    clock = FakeClock()
    base = FakeContender(clock)
    dies = BlockPair(base, FakeContender(clock, before=fails_at(9)))
    lives = BlockPair(base, FakeContender(clock))
    sampled([dies, lives], clock)
    assert dies.error is not None
    assert "died" in str(dies.error)
    assert dies.test.blocks > 0
    assert lives.error is None
    assert lives.test.blocks > dies.test.blocks


def test_a_candidate_that_cannot_start_is_a_finding_too() -> None:
    clock = FakeClock()
    base = FakeContender(clock)
    dead = BlockPair(base, FakeContender(clock, before=fails_at(0)))
    lives = BlockPair(base, FakeContender(clock))
    sampled([dead, lives], clock)
    assert dead.error is not None
    assert lives.test.blocks > 0


def test_a_base_that_cannot_start_ends_the_run() -> None:
    clock = FakeClock()
    pair = BlockPair(FakeContender(clock, before=fails_at(0)), FakeContender(clock))
    with pytest.raises(RunError, match="died"):
        sampled([pair], clock)


def test_the_canary_is_timed_once_per_block() -> None:
    clock = FakeClock()
    run = Sampler(np.random.default_rng(0), clock, canary=lambda: 5)
    blocks = list(
        run.blocks(
            [BlockPair(FakeContender(clock), FakeContender(clock))], {}, seconds=1, until=never
        )
    )
    assert run.canary_ns == [5] * len(blocks)


def test_fast_models_get_longer_slots_and_slow_ones_shorter() -> None:
    assert BlockPlan.of(2e6, 0, 30) == BlockPlan(1, 4)
    assert BlockPlan.of(1e5, 0, 30) == BlockPlan(5, 20)
    assert BlockPlan.of(1e3, 0, 30) == BlockPlan(16, 64)
    assert BlockPlan.of(5e7, 0, 30) == BlockPlan(1, 1)
    assert BlockPlan.of(3e8, 0, 30) == BlockPlan(0, 1, renew=False)
    assert BlockPlan.of(1e9, 0, 30) == BlockPlan(0, 1, renew=False, order="AB")


def test_a_block_lasts_about_as_long_as_its_sessions_took_to_build() -> None:
    assert BlockPlan.of(1e6, 100e6, 30) == BlockPlan(1, 4, repeats=5)
    assert BlockPlan.of(1e5, 1e9 / 10, 30).repeats == 8
    assert BlockPlan.of(1e6, 440e6, 30).repeats == 3
    assert BlockPlan.of(1e6, 900e6, 30).renew
    assert not BlockPlan.of(1e6, 2e9, 30).renew
    assert BlockPlan.of(1e6, 2e9, 120).renew


class WarmingContender(FakeContender):
    """Gets faster with each of its first sixty runs."""

    def time(self, runs: int) -> Runs:
        ns = []
        for _ in range(runs):
            self.run_ns = 1e6 * max(1, 4 - len(self.calls) / 20)
            ns += super().time(1).ns
        return Runs(tuple(ns))


def test_warm_up_goes_on_while_latencies_fall() -> None:
    clock = FakeClock()
    contender = WarmingContender(clock, noise=0.001)
    assert warm_up(contender, {}, clock, seconds=1.0) == pytest.approx(1e6, rel=0.1)
    assert len(contender.calls) > 60


@pytest.mark.parametrize(
    ("run_seconds", "on_device", "calls"),
    [
        (0.03, False, [3, 1]),
        (0.05, False, [1, 1]),
        (0.15, False, [1]),
        (1, False, []),
        (1, True, [1]),
    ],
)
def test_a_warm_up_ends_at_its_time_and_runs_a_slow_model_once(
    run_seconds: float, on_device: bool, calls: list[int]
) -> None:
    clock = FakeClock()
    contender = FakeContender(clock, run_seconds * 1e9, noise=0)
    contender.placement = Placement("CUDAExecutionProvider", "cuda") if on_device else None
    assert warm_up(contender, {}, clock, seconds=0.1) == pytest.approx(run_seconds * 1e9)
    assert contender.calls[: len(calls)] == calls
    assert len(contender.calls) <= len(calls) + 1


def test_few_slow_runs_are_told_beforehand_and_end_in_time() -> None:
    clock, said = FakeClock(), list[str]()
    pair = BlockPair(FakeContender(clock, 2e9, noise=0), FakeContender(clock, 2e9, noise=0))
    run = Sampler(np.random.default_rng(0), clock, say=said.append)
    list(run.blocks([pair], {}, seconds=12, until=never))
    assert pair.test.blocks == 3
    assert clock.at_ns <= 12e9
    assert said == [
        "a run takes up to 2 s: about 3 blocks fit into 12 s; a verdict takes 14 or more"
    ]


def test_a_time_limit_without_room_for_one_pair_is_an_error_that_says_what_it_takes() -> None:
    clock = FakeClock()
    pair = BlockPair(FakeContender(clock, 2e9, noise=0), FakeContender(clock, 2e9, noise=0))
    sampled([pair], clock, seconds=2.0)
    assert pair.test.blocks == clock.at_ns == 0
    assert "one run of each takes about 4 s, and 2 s are left of 2 s" in str(pair.error)
    assert "Give --max-time 56s or more" in str(pair.error)


class Searching(FakeContender):
    """A session of a device, whose first runs search for algorithms."""

    def time(self, runs: int) -> Runs:
        self.run_ns = 1e9 / 10 ** min(3, len(self.calls))
        return super().time(runs)


def test_a_new_session_of_a_device_runs_until_it_gets_no_faster() -> None:
    contender = Searching(FakeClock(), noise=0)
    stabilize(contender, on_device=True)
    assert contender.calls == [3] * 5
    endless = FakeContender(FakeClock(), noise=0)
    endless.before = lambda _: setattr(endless, "run_ns", endless.run_ns / 2)
    stabilize(endless, on_device=True)
    assert endless.calls == [3] * 11


def test_a_new_session_of_the_cpu_runs_three_times() -> None:
    contender = Searching(FakeClock(), noise=0)
    stabilize(contender, on_device=False)
    assert contender.calls == [3]


def test_steady_needs_runs_and_no_falling_trend() -> None:
    assert not steady([100] * 10)
    assert steady([100] * 40)
    assert not steady([1000 - 10 * i for i in range(40)])


def test_a_round_side_by_side_has_every_contender_once() -> None:
    clock = FakeClock()
    contenders = [FakeContender(clock), FakeContender(clock), FakeContender(clock)]
    slots = SideBySide(contenders, np.random.default_rng(0), clock, BlockPlan(1, 4)).round()
    assert sorted(i for i, _ in slots) == [0, 1, 2]
    assert all(len(runs.ns) == 4 for _, runs in slots)


def test_sessions_side_by_side_are_renewed_for_half_of_the_time() -> None:
    clock = FakeClock()
    contender = FakeContender(clock, renew_ns=50_000_000)
    turns = SideBySide([contender], np.random.default_rng(0), clock, BlockPlan(1, 4))
    for _ in range(100):
        turns.round()
    assert 9 <= len(contender.renewed) <= 12


def test_runs_forget_the_discarded_ones_with_their_switches() -> None:
    assert Runs((1, 2, 3), (0, 1, 0)).after(1) == Runs((2, 3), (1, 0))
