"""Float twin of an int8 model: its baseline after the passes that the file says came in between.

Equalised, absorbed and smoothed weights are the baseline's in other scales. Compared with it as it
is, each would count as an error of hundreds of percent. The lineage names the passes, and a digest
for each step proves that they were repeated exactly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trimtab.core.context import Context
from trimtab.core.errors import TrimtabError
from trimtab.core.lineage import Step
from trimtab.core.model import Model

from ..base import Pass
from ..quantization.algorithms.bias_absorption import AbsorbBias
from ..quantization.algorithms.cross_layer_equalization import Equalize
from ..quantization.algorithms.smooth_quant import SmoothQuant
from ..simplify.simplify import Simplify
from ..tuning.apply_rewrites import ApplyRewrites

#: Passes before quantization that keep the function, and are repeated.
REPEATED: dict[str, type[Pass]] = {
    p.name(): p for p in (AbsorbBias, ApplyRewrites, Equalize, Simplify, SmoothQuant)
}
#: Beginnings of the names of passes that change the function.
CHANGING = ("cluster", "finetune", "prune")
#: Passes that make int8 more accurate, and do so once.
REFINING = ("correct-bias", "equalize", "round-weights", "smooth-quant")


@dataclass(frozen=True)
class FloatTwin:
    """Float model that an int8 model was quantized from, as far as its lineage tells.

    Attributes:
        model: the baseline after the repeated passes; None where there are none.
        repeated: their names.
        exact: true where digests prove that it is the model that was quantized.
        changing: passes in between that changed the function, so that there is no twin.
    """

    model: Model | None = None
    repeated: tuple[str, ...] = ()
    exact: bool = False
    changing: tuple[str, ...] = ()


def float_twin(model: Model, baseline: Model, ctx: Context) -> FloatTwin:
    """Repeat the passes between a baseline and quantization, on the context's data."""
    steps = model.lineage
    end = next((i for i, s in enumerate(steps) if s.pass_name.startswith("quantize")), len(steps))
    if end == len(steps):
        return FloatTwin()
    digest = baseline.digest
    start = next((i for i in range(end, -1, -1) if steps[i].input_digest == digest), 0)
    changing = [s.pass_name for s in steps[start:end] if s.pass_name.startswith(CHANGING)]
    if changing:
        return FloatTwin(changing=tuple(dict.fromkeys(changing)))
    twin, repeated = _repeat(baseline, steps[start:end], ctx)
    exact = twin.digest == steps[end].input_digest
    twin, inner = _repeat(twin, _inner_steps(steps[end]), ctx)
    if not repeated and not inner:
        return FloatTwin(baseline if exact else None, exact=exact)
    return FloatTwin(twin, (*repeated, *inner), exact)


def applied_passes(model: Model) -> set[str]:
    """Return those of `REFINING` that a model went through, inside of a search as well."""
    inner = " ".join(name for step in model.lineage for name in _kept(step)).replace(" ", "-")
    names = {step.pass_name for step in model.lineage}
    return {name for name in REFINING if name in names or name in inner}


def _kept(step: Step) -> list[str]:
    """Return what a search among quantizations has kept."""
    tried = step.notes.get("steps") or ()
    return [str(t.get("step")) for t in tried if isinstance(t, Mapping) and t.get("kept")]


def _inner_steps(step: Step) -> list[Step]:
    """Return the float passes that a search among quantizations has kept."""
    known = (Equalize.name(), SmoothQuant.name())
    kept = [name for tried in _kept(step) for name in known if name in tried]
    return [Step(name, {}, "") for name in dict.fromkeys(kept)]


def _repeat(model: Model, steps: Any, ctx: Context) -> tuple[Model, list[str]]:
    """Return a model after those of the steps that can be repeated, and their names."""
    repeated = []
    for step in steps:
        kind = REPEATED.get(step.pass_name)
        if kind is None:
            continue
        try:
            params = {k: v for k, v in step.params.items() if k != "data"}
            model = kind.from_json(params)(model, ctx)
        except TrimtabError:
            continue
        repeated.append(step.pass_name)
    return dataclasses.replace(model, lineage=()), repeated
