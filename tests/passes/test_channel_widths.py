"""How many channels stay: kernels' blocks, budgets, measured tables, whole branches."""

from __future__ import annotations

import graphs
import numpy as np
import pytest
from channel_models import chain, context, step

from trimtab.core.context import Ratio
from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.passes import channel_latency
from trimtab.passes.prune_channels import PruneChannels


class LayerClock:
    """Time by the widths of the weights, in blocks of 16: a staircase."""

    def median_ns(self, models, feeds, config, seconds):
        return [
            float(
                sum(
                    np.prod([-(-d // 16) for d in v.const_value.shape[:2]]) * 1000
                    for v in m.graph.initializers.values()
                    if len(v.const_value.shape) == 4
                )
            )
            for m in models
        ]

    def compare(self, *args):
        return Ratio(1.0, 0.9, 1.1)


def test_macs_stay_below_the_share_that_is_asked() -> None:
    for scope in ("global", "local"):
        notes = step(PruneChannels(macs=0.4, scope=scope, block=4)(chain(), context()))
        assert 0.2 < notes["macs"][1] / notes["macs"][0] <= 0.4


def test_channels_are_kept_in_blocks_of_the_kernels() -> None:
    notes = step(PruneChannels(0.3, scope="local")(chain(64), context()))
    assert [g["channels"] for g in notes["groups"]] == [[64, 48], [64, 48]]


def test_narrow_layers_take_half_a_block_rather_than_nothing() -> None:
    notes = step(PruneChannels(0.5, scope="local")(chain(16), context()))
    assert [g["channels"] for g in notes["groups"]] == [[16, 8], [16, 8]]


def test_a_block_that_is_given_is_strict() -> None:
    notes = step(PruneChannels(0.5, scope="local", block=16)(chain(16), context()))
    assert notes["groups"] == []


def test_latency_is_chosen_on_the_measured_staircase() -> None:
    ctx = context(clock=LayerClock())
    notes = step(PruneChannels(latency=0.6, importance="l2")(chain(64), ctx))
    assert notes["latency_ratio"]["measured"] <= 0.6
    assert notes["latency_ratio"]["predicted"] == pytest.approx(
        notes["latency_ratio"]["measured"], rel=0.15
    )


def test_layers_that_an_earlier_run_timed_are_not_timed_again(tmp_path, monkeypatch) -> None:
    asked: list[int] = []

    class Counting(LayerClock):
        def median_ns(self, models, feeds, config, seconds):
            asked.append(len(models))
            return super().median_ns(models, feeds, config, seconds)

    options = {"latency": 0.6, "importance": "l2", "cache": str(tmp_path / "layers.json")}
    results = []
    for _ in range(2):
        monkeypatch.setattr(channel_latency, "_KNOWN", {})  # as a new process starts
        asked.clear()
        results.append(PruneChannels(**options)(chain(64), context(clock=Counting())))
    assert asked == [1, 2]  # the whole model to choose by, then before and after
    assert results[0].digest == results[1].digest


def test_a_latency_that_no_width_reaches_tells_the_floor() -> None:
    with pytest.raises(OptionError, match="The least is 0"):
        PruneChannels(latency=0.01, importance="l2")(chain(64), context(clock=LayerClock()))


def test_latency_without_a_clock_is_refused() -> None:
    with pytest.raises(OptionError, match="clock"):
        PruneChannels(latency=0.5, importance="l2")(chain(), context())


def test_a_group_never_loses_all_channels() -> None:
    notes = step(PruneChannels(0.99, scope="local", block=1)(chain(8), context()))
    assert [g["channels"][1] for g in notes["groups"]] == [1, 1]


def residual(c: int = 16) -> Model:
    """A stem, two residual blocks of c channels, a head."""
    return graphs.model_of(
        "(float[N, 3, 8, 8] x) => (float[N, 5, 8, 8] y) "
        f"<float[{c},3,3,3] w0, float[{c},{c},3,3] w1, float[{c}] b1, float[{c},{c},3,3] w2, "
        f"float[{c}] b2, float[{c},{c},3,3] w3, float[{c},{c},3,3] w4, float[5,{c},1,1] w5>"
        "{ a = Conv<pads=[1,1,1,1]>(x, w0) p = Conv<pads=[1,1,1,1]>(a, w1, b1) q = Relu(p) "
        "r = Conv<pads=[1,1,1,1]>(q, w2, b2) s = Add(r, a) t = Conv<pads=[1,1,1,1]>(s, w3) "
        "u = Relu(t) v = Conv<pads=[1,1,1,1]>(u, w4) w = Add(s, v) y = Conv(w, w5) }"
    )


@pytest.mark.parametrize("repair", ["none", "bias", "least_squares"])
def test_a_whole_branch_may_go_where_this_is_asked(repair: str) -> None:
    model = residual()
    ctx = context(model)
    options = {"macs": 0.3, "repair": repair, "protect": ("conv_0",), "block": 16}
    with pytest.raises(OptionError, match="The least is 1"):
        PruneChannels(**options)(model, ctx)
    after = PruneChannels(**options, branches=True)(model, ctx)
    notes = step(after)
    assert {g["channels"][1] for g in notes["groups"]} == {0}
    assert graphs.ops(after).count("Conv") == 2
    assert notes["macs"][1] < 0.3 * notes["macs"][0]


def test_a_branch_that_is_needed_elsewhere_stays() -> None:
    model = chain(16)  # nothing is added to a stream
    with pytest.raises(OptionError, match="The least is 1"):
        PruneChannels(macs=0.3, block=16, branches=True)(model, context(model))
