"""What passes write of odd graphs is valid, runs however it is run, and keeps the answers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from odd_graphs import ODD_GRAPHS, odd_graph

from trimtab.core.context import Context
from trimtab.core.ort.session import SessionConfig, build_session, run
from trimtab.passes import ApplyRewrites, ClusterWeights, Half, PruneMagnitude, Simplify
from trimtab.passes.base import Pass, relative_error
from trimtab.passes.rewrites import rewrite_rules

#: Passes and what they may change; None where weights change by design.
PASSES: list[tuple[Pass, float | None]] = [
    (Simplify(), 1e-5),
    (ApplyRewrites(rules=tuple(rewrite_rules())), 1e-5),
    (Half(), 2e-2),
    (PruneMagnitude(sparsity=0.3), None),
    (ClusterWeights(), None),
]


@pytest.mark.parametrize("name", ODD_GRAPHS)
@pytest.mark.parametrize(("step", "allowed"), PASSES, ids=[p.name() for p, _ in PASSES])
def test_the_result_is_valid_and_runs_alike_everywhere(
    name: str, step: Pass, allowed: float | None
) -> None:
    model, feeds = odd_graph(name)
    after = step(model, Context())
    assert (after.inputs, after.outputs) == (model.inputs, model.outputs)
    onnx.checker.check_model(after.to_proto(), full_check=True)
    names = [node.name for node in after.nodes() if node.name]
    assert len(set(names)) == len(names)
    reference = build_session(model, SessionConfig(level="off"))
    for feed in feeds:
        expected = run(reference, feed)
        got = {
            (level, threads): run(build_session(after, _config(level, threads)), feed)
            for level in ("off", "basic", "all")
            for threads in (1, 2)
        }
        for answers in got.values():
            plain = got["off", 1]
            for output, array in answers.items():
                assert relative_error(plain[output], array) < 1e-2
                if allowed is not None:
                    assert relative_error(expected[output], array) <= allowed
                assert np.isfinite(array).all()


def _config(level: str, threads: int) -> SessionConfig:
    return SessionConfig(level=level, threads=threads)  # type: ignore[arg-type]
