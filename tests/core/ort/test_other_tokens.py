"""Tokens that data lack: found, drawn, fitted to, and told."""

from __future__ import annotations

import numpy as np
from graphs import model_of

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.ort.other_tokens import OtherTokens
from trimtab.core.progress import Silent
from trimtab.passes import PruneChannels
from trimtab.passes.pruning.structured.data_importance import calibration_batches
from trimtab.report.lines import pass_lines
from trimtab.report.outputs_kept import OutputsKept
from trimtab.report.pass_outcome import PassOutcome

RNG = np.random.default_rng(0)


def embedded(rows: int = 600, width: int = 64) -> Model:
    text = f"""(int64[N,L] ids) => (float[N,L,16] y)
        <float[{rows},{width}] table, float[{width},64] w0, float[64,16] w1> {{
        e = Gather (table, ids) [first] a = MatMul (e, w0) r = Relu (a)
        [last] l = MatMul (r, w1) y = Softmax <axis = -1> (l) }}"""
    weights = {"table": (rows, width), "w0": (width, 64), "w1": (64, 16)}
    return model_of(text, **{n: RNG.standard_normal(s).astype("f4") for n, s in weights.items()})


def tokens(below: int, rows: int = 64) -> np.ndarray:
    ids = np.random.default_rng(1).integers(2, below, (rows, 8))
    ids[:, 0], ids[:, -1] = 0, 1  # beginning and end
    return ids


def test_inputs_of_tokens_that_the_data_hardly_know_are_found() -> None:
    found = OtherTokens.of(embedded(), [{"ids": tokens(20)}])
    assert found.ranges == {"ids": (0, 600)}
    assert found.seen == {"ids": 20}
    assert not OtherTokens.of(embedded(), [{"ids": tokens(600, 1000)}])
    assert not OtherTokens.of(embedded(20), [{"ids": tokens(4)}])


def test_numbers_that_look_nothing_up_stay() -> None:
    model = model_of(
        "(int64[N] x, float[N] y) => (float[N] z) { a = Cast <to=1> (x) z = Add (a, y) }"
    )
    feeds = {"x": np.arange(3), "y": np.zeros(3, np.float32)}
    assert not OtherTokens.of(model, [feeds])


def test_others_are_of_the_whole_table_and_marks_stay() -> None:
    feeds = {"ids": tokens(20), "other": np.ones(3)}
    other = OtherTokens.of(embedded(), [feeds]).put_into(feeds, 0)
    assert (other["ids"][:, 0] == 0).all()
    assert (other["ids"][:, -1] == 1).all()
    inner = other["ids"][:, 1:-1]
    assert inner.max() > 500
    assert len(np.unique(inner)) > 200
    assert other["ids"].dtype == feeds["ids"].dtype
    assert other["other"] is feeds["other"]


def test_pruning_is_fitted_to_rows_that_no_sample_looks_up() -> None:
    model, few = embedded(), Dataset.of_arrays({"ids": tokens(20)})
    batches = calibration_batches(model, few, 64, Silent())
    assert len(np.unique(np.concatenate([b["ids"].ravel() for b in batches]))) > 100
    known = Dataset.of_arrays({"ids": tokens(600, 1000)})
    assert len(calibration_batches(model, known, 64, Silent())) == 8


def test_what_is_kept_on_other_tokens_is_told_in_the_first_line(tmp_path) -> None:
    model = embedded()
    few, every = (Dataset.of_arrays({"ids": tokens(n, 200)}) for n in (20, 600))
    after = PruneChannels(0.3, block=1, data=few)(model)
    kept, truth = (OutputsKept.of(model, after, Context(data=data)) for data in (few, every))
    assert kept.others is not None
    assert kept.least == min(kept.fidelity, kept.others) < 0.98
    assert abs(kept.others - truth.fidelity) < 0.25
    path = after.save(tmp_path / "pruned.onnx")
    first = pass_lines(PassOutcome(model, after, after, kept=kept), path)[0]
    assert f"{kept.others:.3f} on tokens that the data lack" in first
    alike = OutputsKept.of(model, model, Context(data=few))
    assert alike.others == alike.least == 1.0
