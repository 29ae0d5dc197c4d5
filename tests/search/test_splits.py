"""Which rows calibrate, choose and confirm."""

from __future__ import annotations

import graphs
import numpy as np
import pytest
from cnn_data import arrays
from search_fakes import LOOSE, fast_int8

from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError
from trimtab.core.metric import find_metric
from trimtab.search.loss import items_needed
from trimtab.search.optimize import optimize
from trimtab.search.splits import Splits, calibration_rows, read_shares, split_data, taken_of
from trimtab.search.start.preface import data_line, plan_line
from trimtab.search.time_budget import TimeBudget


def rows(count: int) -> Dataset:
    return Dataset.of_arrays({"x": np.zeros((count, 2), np.float32)}, np.zeros(count, np.int64))


def sizes(splits: Splits) -> tuple[int, int, int]:
    return len(splits.calibration), len(splits.selection), len(splits.test)


@pytest.mark.parametrize(
    ("count", "trains", "calibrates"),
    [
        (100, False, 40),
        (371, False, 64),
        (371, True, 148),
        (items_needed(0.01) + 300, False, 300),
        (50_000, False, 20_000),
    ],
)
def test_few_rows_go_to_those_that_decide(count: int, trains: bool, calibrates: int) -> None:
    assert calibration_rows(graphs.cnn(), count, 0.01, trains=trains) == calibrates


def test_rows_of_one_vector_need_more_of_them() -> None:
    assert calibration_rows(graphs.mlp(), 1000, 0.01, trains=False) == 256


def test_shares_set_the_sizes() -> None:
    assert sizes(split_data(rows(100), None, shares=(10, 30, 60))) == (10, 30, 60)
    evaluation = Dataset.of_arrays({"x": np.ones((100, 2), np.float32)})
    assert sizes(split_data(rows(20), evaluation, shares=(0.2, 0.8))) == (20, 20, 80)
    with pytest.raises(OptionError, match="2 shares are given"):
        split_data(rows(100), None, shares=(1, 1))


def test_shares_are_read_as_people_write_them() -> None:
    assert read_shares("20/40/40") == (20, 40, 40)
    assert read_shares("1/1") == (1, 1)


@pytest.mark.parametrize("text", ["", "20", "a/b/c", "1/2/3/4", "0/1/1", "-1/2", "nan/1/1"])
def test_other_shares_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="is not a valid split"):
        read_shares(text)


def test_where_time_is_short_a_share_of_the_items_decides() -> None:
    splits = split_data(rows(100), None, shares=(20, 40, 40))
    few = taken_of(splits, 0.5, 0)
    assert sizes(few) == (20, 20, 20)
    assert splits.selection.overlaps(few.selection)
    assert not splits.test.overlaps(few.selection)


def test_what_the_data_resolve_is_the_first_that_is_said() -> None:
    splits = split_data(rows(371), None, shares=(64, 153, 154))
    line = data_line(splits, find_metric("top1", rows(4)), 0.01)
    assert "153 items choose, 154 confirm, 64 calibrate" in line
    assert "a drop of 0.01 is 1.5 of those that confirm" in line
    assert "standard error is about 0.011" in line
    assert "both decide together" in line
    assert "2450 items of evaluation data would tell" in line
    many = split_data(rows(9000), None)
    assert "both decide" not in data_line(many, find_metric("top1", rows(4)), 0.01)
    assert "at most 60 s" in plan_line(["int8"], (10, 400), TimeBudget(60))


@pytest.mark.slow
def test_few_items_decide_together_and_one_never_alone() -> None:
    made = arrays(300)
    outcome = optimize(
        graphs.cnn(),
        made,
        constraints=LOOSE | {"max_drop": 0.02},
        measure=fast_int8,
        passes=("simplify", "quantize-static"),
    )
    said = [d["what"] for d in outcome.decisions]
    assert "items choose" in said[0]
    assert said[1].startswith("Will try int8 static, float simplified")
    examined = [r for r in outcome.results if r.loss is not None]
    assert examined
    assert all(r.loss and r.loss.part == "selection and test split together" for r in examined)
    assert all(r.loss and r.loss.items == 300 - 64 for r in examined)
    assert all(r.kept_answers is not None for r in examined)
