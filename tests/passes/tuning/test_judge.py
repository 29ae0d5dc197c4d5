"""A candidate is judged by its own figures."""

from __future__ import annotations

from dataclasses import replace

import graphs
import pytest
from tune_fakes import CountingClock, norms

from trimtab.core.model import Model
from trimtab.core.ort.int8_share import Int8Share
from trimtab.core.ort.session import SessionConfig
from trimtab.passes.tuning import judge as tuning_judge
from trimtab.passes.tuning.judge import CandidateJudge

CANDIDATES = 300


def share(leftover: int) -> Int8Share:
    return Int8Share(int8_ops=0, float_ops=0, leftover_qdq=leftover, int8_share=0.0)


def judge() -> CandidateJudge:
    return CandidateJudge(CountingClock(), SessionConfig(), [{}])


def number(model: Model) -> int:
    return int(model.name.rpartition(" ")[2])


def test_each_of_many_short_lived_candidates_gets_its_own_peak(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A cache by address gives a candidate the figure of one that was dropped before it."""
    monkeypatch.setattr(tuning_judge, "peak_bytes", lambda model, *_: number(model))
    judged, model = judge(), norms()
    found = [judged._peak(replace(model, name=f"candidate {n}")) for n in range(CANDIDATES)]
    assert found == list(range(CANDIDATES))


def test_each_of_many_short_lived_candidates_gets_its_own_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tuning_judge, "int8_share", lambda model, *_: share(number(model)))
    judged, model = judge(), norms()
    found = [judged._share(replace(model, name=f"candidate {n}")) for n in range(CANDIDATES)]
    assert found == [share(n) for n in range(CANDIDATES)]


def test_a_model_is_measured_once_while_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(tuning_judge, "peak_bytes", lambda model, *_: asked.append(model.name) or 1)
    judged, model = judge(), graphs.cnn()
    assert [judged._peak(model), judged._peak(model)] == [1, 1]
    assert len(asked) == 1
