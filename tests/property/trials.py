"""Passes that are tried on random graphs, each with the error that it may make."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from property.judge import reference, rounding_bounds
from property.random_graphs import RandomGraph
from tune_fakes import CountingClock
from validity import LEVELS, assert_valid, assert_within, run_rows

from trimtab import passes
from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import InputError
from trimtab.core.model import Model
from trimtab.core.target import Target
from trimtab.passes.base import Pass
from trimtab.passes.rewrites import rewrite_rules

#: Refusals that are right: the graph has nothing that the pass works on.
NOTHING_TO_DO = (
    "has nothing to quantize",
    "has no matrix product with a constant weight",
    "has no Conv, Gemm or MatMul outside of subgraphs",
)


@dataclass(frozen=True)
class Trial:
    """Passes in a row, and how far outputs may be off afterwards.

    Attributes:
        steps: the passes.
        error: relative error of every output; or what the rounding of `all` tensors or of `weights`
            explains; None where numbers change by design, so that only validity is checked.
        share: part of the graphs that the trial is made of.
    """

    steps: Sequence[Pass]
    error: float | Literal["all", "weights"] | None
    share: float = 1.0


def _prune(**fields: object) -> Trial:
    return Trial([passes.PruneChannels(ratio=0.5, block=1, **fields)], None)  # type: ignore[arg-type]


TRIALS = {
    "simplify": Trial([passes.Simplify()], 1e-4),
    "apply-rewrites": Trial([passes.ApplyRewrites(rules=tuple(rewrite_rules()))], 1e-4),
    "tune": Trial([passes.Tune(seconds=5, contrib=True)], 1e-4),
    "equalize": Trial([passes.Equalize()], 1e-3),
    "smooth-quant": Trial([passes.SmoothQuant()], 1e-3),
    "absorb-bias": Trial([passes.Equalize(), passes.AbsorbBias()], "all"),
    "half": Trial([passes.Half()], 0.03),
    "quantize-static": Trial([passes.QuantizeStatic()], "all"),
    "quantize-static-int8": Trial([passes.QuantizeStatic(activation="int8")], "all"),
    "quantize-dynamic": Trial([passes.QuantizeDynamic(convs=True)], "all"),
    "quantize-weights": Trial([passes.QuantizeWeights(bits=8, int8=False)], "weights"),
    "quantize-auto": Trial([passes.QuantizeAuto()], "all", share=0.25),
    "correct-bias": Trial([passes.QuantizeStatic(), passes.CorrectBias()], "all", share=0.5),
    "round-weights": Trial([passes.QuantizeStatic(), passes.RoundWeights()], "all", share=0.25),
    "dequantize": Trial([passes.QuantizeStatic(), passes.Dequantize()], "all"),
    "prune-channels": _prune(repair="none"),
    "prune-channels-repaired": _prune(),
    "prune-magnitude": Trial([passes.PruneMagnitude(threshold=1e-4)], "weights"),
    "compress-weights": Trial([passes.CompressWeights()], "weights"),
    "cluster-weights": Trial([passes.ClusterWeights(clusters=256)], "weights"),
}


def try_pass(trial: Trial, case: RandomGraph) -> None:
    """Apply a trial to a graph and hold the result against float, at each level of optimization.

    Raises:
        AssertionError: the result is not valid, or other than the float model.
        TrimtabError: the pass refuses, other than for having nothing to do.
    """
    expected = reference(case.proto, case.feeds)
    before = Model.from_proto(case.proto, "random graph")
    size = before.inputs[0].shape[0] if before.inputs[0].shape else 1
    data = Dataset.of_arrays(case.feeds, batch=size if isinstance(size, int) else 32)
    target = Target.named("x64-avx512-vnni")
    # Fewer nodes are faster, so that what can be rewritten is.
    ctx = Context(target=target, data=data, clock=CountingClock(), original=before)
    try:
        written = _applied(trial.steps, before, ctx).to_proto()
    except InputError as error:
        if any(text in str(error) for text in NOTHING_TO_DO):
            return
        raise
    assert_valid(case.proto, written)
    got = {level: run_rows(written, case.feeds, level) for level in LEVELS}
    run_rows(written, case.feeds, threads=2)
    if trial.error is None:
        bounds = dict.fromkeys(expected, (1e-3, 1e-3))
        expected = got["off"]
    elif isinstance(trial.error, float):
        bounds = dict.fromkeys(expected, (trial.error, trial.error))
    else:
        weights_only = trial.error == "weights"
        bounds = rounding_bounds(case.proto, case.feeds, expected, weights_only=weights_only)
    for level, outputs in got.items():
        assert_within(expected, outputs, bounds, f"optimization {level}")


def _applied(steps: Sequence[Pass], model: Model, ctx: Context) -> Model:
    """Return the model after the passes; those that compare with a float model get this one."""
    with tempfile.TemporaryDirectory() as folder:
        reference = str(model.save(Path(folder) / "float.onnx"))
        for step in steps:
            if "reference" in step.fields():
                step = step.with_fields(reference=reference)  # noqa: PLW2901
            model = step(model, ctx)
    return model
