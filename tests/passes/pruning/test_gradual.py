"""Pruning in rounds with training between them."""

from __future__ import annotations

from typing import Any

import graphs
import numpy as np
import pytest
from finetune_cases import Interrupting, context, notes, weights

from trimtab.core.errors import OptionError
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import build_session, run
from trimtab.passes import PruneGradually

SHORT = {"epochs": 2, "batch": 16, "learning_rate": 5e-3}


def test_the_share_grows_by_a_cubic_that_flattens() -> None:
    gone = list(PruneGradually(sparsity=0.8, rounds=4).shares())
    assert gone == pytest.approx([0.8 * (1 - (1 - i / 4) ** 3) for i in (1, 2, 3, 4)])
    assert gone[-1] == pytest.approx(0.8)
    assert list(PruneGradually(macs=0.4, rounds=3, schedule="even").shares()) == pytest.approx(
        [0.2, 0.4, 0.6]
    )
    assert list(PruneGradually(ratio=0.3, schedule="once").shares()) == [pytest.approx(0.3)]


def test_zeros_grow_to_the_wanted_share_and_stay() -> None:
    after = PruneGradually(sparsity=0.8, rounds=3, finetune=SHORT)(graphs.cnn(), context())
    rows = notes(after)["rounds"]
    assert [r["sparsity"] for r in rows] == sorted(r["sparsity"] for r in rows)
    for name in ("w0", "w1", "w2", "w3"):
        assert (weights(after)[name] == 0).mean() == pytest.approx(0.8, abs=0.05)
    assert all(r["steps"] == 10 for r in rows)
    assert rows[-1]["validation"][1] < rows[-1]["validation"][0]


@pytest.mark.slow
def test_channels_go_round_by_round_and_the_result_runs() -> None:
    model = graphs.cnn()
    how = PruneGradually(macs=0.6, rounds=2, finetune=SHORT, prune={"block": 2, "samples": 32})
    after = how(model, context())
    rows = notes(after)["rounds"]
    first, last = rows[0]["macs"][0], rows[-1]["macs"][1]
    assert last <= 0.65 * first
    assert rows[1]["macs"][0] == rows[0]["macs"][1]
    assert np.isfinite(run(build_session(after), random_feeds(after, batch=2))["y"]).all()


def test_an_interrupted_round_ends_it_with_what_there_is() -> None:
    progress = Interrupting(after=3)
    after = PruneGradually(sparsity=0.8, rounds=3, finetune=SHORT)(
        graphs.cnn(), context(progress=progress)
    )
    assert len(notes(after)["rounds"]) == 1
    assert any("round 1 of 3" in line for line in progress.said)


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"sparsity": 0.5, "macs": 0.5}, "one of"),
        ({"macs": 1.0}, "between 0 and 1"),
        ({"rounds": 0}, "above 0"),
        ({"prune": {"pattern": "2:4"}}, "one sparsity"),
        ({"prune": {"sparsity": 0.5}}, "outside"),
        ({"prune": {"blok": 4}}, "block"),
        ({"finetune": {"epoch": 4}}, "epochs"),
    ],
)
def test_fields_that_make_no_sense(fields: dict[str, Any], what: str) -> None:
    with pytest.raises(OptionError, match=what):
        PruneGradually(**fields)
