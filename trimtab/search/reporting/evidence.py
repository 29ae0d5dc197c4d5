"""Evidence of a search's winner for the report, collected once and kept as JSON.

Layers before and after, quantization error, pruned widths, float islands, lineage, environment. A
part that cannot be collected is listed as missing with its reason; it never costs the result.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.lineage import Step
from trimtab.core.model import Model
from trimtab.core.ort.engines import Engine
from trimtab.core.ort.session import Feeds, SessionConfig, available_providers

from ..alarm import OutOfTime, alarm
from ..recipe import Recipe
from ..result import Result

if TYPE_CHECKING:
    from trimtab.runtime_bench.doctor.diagnose import Diagnosis
    from trimtab.runtime_bench.machine.environment import Environment

T = TypeVar("T")
#: Makes the model of a recipe: with a cache of steps, a beginning costs nothing.
Make = Callable[[Recipe], Model]
#: Passes that take minutes, and are not run again for the report alone.
TRAINS = frozenset({"finetune", "recover"})
#: Held-out samples on which rounding errors are measured.
SAMPLES = 4
#: Findings of the doctor that are kept.
FINDINGS = 50


@dataclass
class _Missing:
    """Parts of the evidence that could not be collected, each with its reason."""

    seconds: float = math.inf
    reasons: dict[str, str] = field(default_factory=dict)
    start: float = field(default_factory=time.monotonic)

    def attempt(self, part: str, gather: Callable[[], T]) -> T | None:
        """Return what `gather` returns; None where it failed, or time ended."""
        try:
            with alarm(self.seconds - (time.monotonic() - self.start)):
                return gather()
        except OutOfTime:
            self.reasons[part] = "Not gathered: the time was used up."
            return None
        except Exception as error:  # noqa: BLE001 - a report must not cost hours of search
            self.reasons[part] = f"Not gathered: {error or type(error).__name__}"
            return None


def gather_evidence(
    original: Result,
    results: Iterable[Result],
    chosen: Result | None,
    *,
    held_out: Dataset,
    feeds: Feeds,
    ctx: Context,
    make: Make | None = None,
    environment: Environment | None = None,
    seconds: float = math.inf,
) -> dict[str, Any]:
    """Collect the evidence as JSON values.

    Args:
        original: the float model as a result.
        results: every candidate.
        chosen: the winner, None where there is none.
        held_out: samples that nothing was calibrated on.
        feeds: one row, on which the models are profiled.
        ctx: target and progress.
        make: makes the float beginning of the winner's recipe again.
        environment: environment of the machine that measured; this one where None.
        seconds: time limit; parts that it does not reach are listed as missing.
    """
    from trimtab.runtime_bench.machine.environment import Environment as Here

    missing = _Missing(seconds)
    found: dict[str, Any] = {
        "environment": missing.attempt("environment", (environment or Here.here()).to_json),
        "target": ctx.target.to_json(),
        "drops": _drops(original, results),
    }
    if original.model is not None and chosen is not None and chosen.model is not None:
        ctx.progress.say(f"looking into {chosen.name} for the report")
        winner = _WinnerEvidence(original.model, chosen, chosen.model, held_out, feeds, ctx, make)
        found |= winner.gather(missing)
    return {**found, "missing": missing.reasons}


def _drops(original: Result, results: Iterable[Result]) -> dict[str, Any]:
    """Return the loss against the original with its paired standard error, by candidate."""
    found: dict[str, dict[str, Any]] = {}
    for result in results:
        for part in ("selection", "test"):
            mine, base = getattr(result, part), getattr(original, part)
            if mine is not None and base is not None:
                found.setdefault(result.name, {})[part] = list(mine.drop_from(base))
    return found


@dataclass(frozen=True)
class _WinnerEvidence:
    """Evidence of the winner beside the original."""

    original: Model
    chosen: Result
    model: Model
    held_out: Dataset
    feeds: Feeds
    ctx: Context
    make: Make | None

    def gather(self, missing: _Missing) -> dict[str, Any]:
        """Collect all parts of the evidence."""
        from .layer_times import layers

        engine = Engine.of(self.chosen.engine) if self.chosen.engine else None
        before = missing.attempt("times", lambda: self._diagnosis(self.original))
        after = missing.attempt("times", lambda: self._diagnosis(self.model, engine))
        errors = missing.attempt("errors", self._errors)
        examples = missing.attempt("examples", self._examples)
        found = layers(
            before.facts if before else None,
            after.facts if after else None,
            original=self.original.graph,
            measured_ns=self._medians(),
        )
        return {
            "digests": {"original": self.original.digest, "chosen model": self.model.digest},
            "lineage": [step.to_json() for step in self.model.lineage],
            "layers": [layer.to_json() for layer in found],
            "errors": errors,
            "examples": examples,
            "widths": widths(self.model.lineage),
            "islands": _islands(after),
            "int8": after.facts.share.to_json() if after else None,
        }

    def _diagnosis(self, model: Model, engine: Engine | None = None) -> Diagnosis:
        from trimtab.runtime_bench.doctor.diagnose import diagnose

        config = SessionConfig.of(self.ctx.target)
        if engine is not None:
            return diagnose(model, self.feeds, engine.applied(config))
        if config.provider not in available_providers():
            config = replace(config, provider="CPUExecutionProvider")
        return diagnose(model, self.feeds, config, target=self.ctx.target)

    def _medians(self) -> tuple[float | None, float | None]:
        c = self.chosen.comparison
        if c is None:
            return None, None
        return c.base.percentile_ns(0.5), c.candidate.percentile_ns(0.5)

    def _errors(self) -> dict[str, Any] | None:
        """Measure the rounding error of each layer; None for a float model."""
        from trimtab.passes.diagnosis.accuracy import diagnose_accuracy, is_quantized

        if not is_quantized(self.model):
            return None
        twin, data = self._twin(), self.held_out
        found = diagnose_accuracy(self.model, data, self.ctx, baseline=twin, samples=SAMPLES)
        return found.to_json()

    def _examples(self) -> dict[str, Any] | None:
        """Compare the answers item by item; None for the steps of a stream."""
        from .examples import gather_examples

        if self.held_out.bind(self.original).stream is not None:
            return None
        return gather_examples(self.original, self.model, self.held_out)

    def _twin(self) -> Model:
        """Make the float model that the winner was quantized from; else return the original."""
        recipe = self.chosen.recipe
        names = [p.name() for p in recipe.passes] if recipe is not None else []
        at = next((i for i, name in enumerate(names) if name.startswith("quantize")), None)
        if recipe is None or not at or (self.make is None and TRAINS & set(names[:at])):
            return self.original
        start = replace(recipe, passes=recipe.passes[:at])
        return self.make(start) if self.make is not None else start(self.original, self.ctx)


def widths(lineage: Iterable[Step]) -> list[dict[str, Any]]:
    """Return the channels of each pruned group before the first and after the last pruning."""
    found: dict[str, dict[str, Any]] = {}
    for step in lineage:
        for group in step.notes.get("groups", ()):
            if not isinstance(group, Mapping) or "channels" not in group:
                continue
            before, after = group["channels"]
            name, operators = str(group["name"]), group.get("operators", 0)
            first = {"name": name, "before": before, "operators": operators}
            found.setdefault(name, first)["after"] = after
    return list(found.values())


def _islands(after: Diagnosis | None) -> list[dict[str, Any]]:
    """Return the findings that cost time in an int8 model."""
    if after is None or not after.facts.is_quantized:
        return []
    return [f.to_json() for f in after.findings if f.severity == "costs"][:FINDINGS]
