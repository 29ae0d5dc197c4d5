"""Quality without a part of one group, and limits of pruning by it."""

from __future__ import annotations

import json
from pathlib import Path

import graphs
import numpy as np
import pytest
from channel_models import TARGET, chain, context, step

from trimtab.commands.doctor_prune import lines
from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.passes.pruning.channels import PruneChannels
from trimtab.passes.pruning.structured.sensitivity import GroupSensitivity, Sensitivity, sensitivity

FOUND = Sensitivity(
    "top1",
    0.9,
    100,
    (0.25, 0.5, 0.75),
    (
        GroupSensitivity("conv_0", 32, 2, (0.89, 0.85, 0.2)),
        GroupSensitivity("conv_2", 32, 2, (0.9, 0.9, 0.9)),
    ),
)


def half_dead(c: int = 16) -> Model:
    """A chain of which the second half of the middle channels is read by nothing."""
    w3 = np.random.default_rng(0).standard_normal((5, c, 1, 1)).astype(np.float32)
    w3[:, c // 2 :] = 0
    return graphs.model_of(
        f"(float[N, 3, 8, 8] x) => (float[N, 5, 8, 8] y) <float[{c},3,1,1] w1, "
        f"float[{c},{c},1,1] w2, float[5,{c},1,1] w3> "
        "{ a = Conv(x, w1) b = Relu(a) c = Conv(b, w2) d = Relu(c) y = Conv(d, w3) }",
        w3=w3,
    )


def test_what_nothing_reads_costs_nothing_and_the_rest_does() -> None:
    model = half_dead()
    data = Dataset.of_arrays(random_feeds(model, batch=64))
    how = PruneChannels(importance="least_squares")
    found = sensitivity(model, how.ranking, data, Context(target=TARGET))
    assert (found.metric, found.items, found.whole) == ("fidelity", 32, pytest.approx(1))
    first, second = found.groups
    assert (second.name, second.channels) == ("conv_2", 16)
    assert second.quality[1] == pytest.approx(1, abs=1e-3)
    assert second.quality[2] < 0.999
    assert first.quality[0] < 0.999


def test_groups_without_time_are_named_and_keep_their_channels(tmp_path: Path) -> None:
    model = half_dead()
    data = Dataset.of_arrays(random_feeds(model, batch=8))
    ctx = Context(target=TARGET)
    how = PruneChannels(importance="least_squares").ranking
    found = sensitivity(model, how, data, ctx, seconds=0.0)
    assert (len(found.groups), len(found.left_out)) == (1, 1)
    assert found.groups[0].name not in found.left_out
    file = tmp_path / "found.json"
    file.write_text(json.dumps(found.to_json()))
    assert Sensitivity.read(file) == found
    assert found.limit(found.left_out[0], 1.0) == 0
    assert found.left_out[0] in lines(found)[-1]


@pytest.mark.slow
@pytest.mark.parametrize("importance", ["least_squares", "taylor"])
def test_one_context_ranks_by_the_data_of_each_call(importance: str) -> None:
    if importance == "taylor":
        pytest.importorskip("torch")
    model, ctx = chain(16), Context(target=TARGET)
    how = PruneChannels(importance=importance).ranking
    data = [Dataset.of_arrays(random_feeds(model, seed=n, batch=8)) for n in range(2)]
    shared = [sensitivity(model, how, d, ctx) for d in data]
    assert shared == [sensitivity(model, how, d, Context(target=TARGET)) for d in data]


def test_a_limit_lies_between_ratios_in_proportion() -> None:
    assert FOUND.limit("conv_0", 0.01) == pytest.approx(0.25)
    assert FOUND.limit("conv_0", 0.03) == pytest.approx(0.375)
    assert FOUND.limit("conv_0", 0.005) == pytest.approx(0.125)
    assert FOUND.limit("conv_2", 0.0) == 1


def test_no_group_loses_more_than_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "groups.json"
    path.write_text(json.dumps(FOUND.to_json()))
    assert Sensitivity.read(path) == FOUND
    options = {"importance": "l2", "block": 1, "sensitivity": str(path), "group_drop": 0.01}
    notes = step(PruneChannels(0.5, **options)(chain(), context()))
    kept = {g["name"]: g["channels"][1] for g in notes["groups"]}
    assert kept["conv_0"] >= 24
    assert sum(kept.values()) == 32


def test_limits_that_leave_too_little_are_reported_with_the_reachable_share(tmp_path: Path) -> None:
    path = tmp_path / "groups.json"
    path.write_text(json.dumps(FOUND.to_json()))
    with pytest.raises(OptionError, match="The least is 0"):
        PruneChannels(macs=0.01, sensitivity=str(path), group_drop=0)(chain(), context())


@pytest.mark.parametrize("text", ["", "[]", '{"groups": [{"name": 1}]}'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "groups.json"
    path.write_text(text)
    with pytest.raises(OptionError, match="cannot be read as a sensitivity"):
        PruneChannels(0.5, sensitivity=str(path))(chain(), context())


def test_a_sensitivity_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "groups.json"
    path.write_text(json.dumps(FOUND.to_json()).replace("conv_0", "conv_7"))
    with pytest.raises(OptionError, match="conv_0"):
        PruneChannels(0.5, sensitivity=str(path))(chain(), context())


@pytest.mark.slow
def test_the_doctor_prints_a_table_and_writes_what_pruning_reads(tmp_path: Path, capsys) -> None:
    from trimtab.cli import main

    model = half_dead()
    model.save(tmp_path / "in.onnx")
    np.savez(tmp_path / "data.npz", **random_feeds(model, batch=32))
    where, data = str(tmp_path / "in.onnx"), str(tmp_path / "data.npz")
    out = str(tmp_path / "groups.json")
    assert main(["doctor", where, "--prune", "--data", data, "--json", out]) == 0
    printed = capsys.readouterr().out
    assert "fidelity 1.0000 with all channels" in printed
    assert [line.split()[0] for line in printed.splitlines()[-2:]] == ["conv_0", "conv_2"]
    command = ["prune", where, "-o", str(tmp_path / "out.onnx"), "--channels", "0.4"]
    assert main([*command, "--sensitivity", out, "--group-drop", "0.001"]) == 0
    assert main(["doctor", where, "--prune"]) == 2
    assert "needs data" in capsys.readouterr().err
