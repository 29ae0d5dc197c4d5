"""Tuning of a graph: the exact rewrites that run fastest, chosen by measurement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from trimtab.core.context import Clock, Context, Ratio
from trimtab.core.errors import OptionError
from trimtab.core.fields import File
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig

from ..base import Pass, Rewrite
from ..graph.declined import Declined
from ..graph.quantized import first_int8_node
from ..rewrites import find_rewrite_rule
from ..rewrites.defaults import proven_rules
from .cache import Cache
from .candidates import Candidate, already_optimized, candidates, with_shapes
from .judge import CandidateJudge
from .search import LEFT, RewriteSearch
from .shapes import cases_of, first_rows, read_shapes, sizes_text
from .trials import TrialBudget


@dataclass(frozen=True)
class Tune(Pass):
    """Apply the exact rewrites that make the model faster on this machine, by measurement.

    Each rewrite rule is measured on the whole model at all of its sites, then by groups of alike
    sites, and kept where it is faster beyond doubt; the combination is checked against the
    original. Best run after quantization, or before and after: the best float graph is not always
    the best int8 graph. Without a clock nothing is kept.

    Attributes:
        rules: rules to try; all where empty.
        seconds: time for everything together.
        shapes: sizes that matter, each as NAME=1x128; a second one for a name is a second case.
        over: criterion for several sizes, their mean or the worst of them.
        goal: figure that a rewrite must improve: time, bytes of the file, peak memory of a run, or
            the share of int8; the last three may not cost time.
        contrib: try rewrites to operators that only onnxruntime has.
        optimized: also change graphs that onnxruntime's optimizer wrote.
        cache: file of gains from earlier runs; none where empty.
        seed: random seed of the inputs.
    """

    tolerance: ClassVar[float | None] = 1e-5

    rules: tuple[str, ...] = ()
    seconds: float = 90.0
    shapes: tuple[str, ...] = ()
    over: Literal["mean", "worst"] = "mean"
    goal: Literal["latency", "size", "memory", "int8"] = "latency"
    contrib: bool = False
    optimized: bool = False
    cache: File = ""
    seed: int = 0

    def __post_init__(self) -> None:
        for rule in self.rules:
            find_rewrite_rule(rule)
        read_shapes(self.shapes)
        if not self.seconds > 0:
            raise OptionError("must be above 0", where=f"seconds={self.seconds}")

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        """Return the graph with the rewrites that are faster."""
        sign = already_optimized(model)
        if sign and not self.optimized:
            why = f"onnxruntime's optimizer wrote this graph ({sign}); give `optimized` to try"
            return Rewrite(model.ir, [Declined("all sites", f"{why}, or start from its source")])
        if ctx.clock is None:
            why = "there is no clock, so nothing was measured and nothing is kept"
            return Rewrite(model.ir, [Declined("all sites", why)])
        base = with_shapes(model)
        found, declined = candidates(base, self.rules, contrib=self.contrib)
        if not found:
            return Rewrite(model.ir, declined)
        budget = TrialBudget.of(self.seconds)
        search = self._search(base, ctx, ctx.clock, budget)
        ratio = search.run(found, asked=bool(self.rules), look=self._candidates)
        undecided = [Declined(str(t.choice), t.verdict) for t in search.trials if LEFT in t.verdict]
        result = search.current.ir if search.kept else model.ir
        return Rewrite(result, [*undecided, *declined], _report(search, ratio))

    def _candidates(self, model: Model) -> list[Candidate]:
        return candidates(model, self.rules, contrib=self.contrib)[0]

    def _search(
        self, base: Model, ctx: Context, clock: Clock, budget: TrialBudget
    ) -> RewriteSearch:
        quantized = first_int8_node(base) is not None
        cases = cases_of(base, self.shapes, ctx, self.seed)
        judge = CandidateJudge(
            clock,
            SessionConfig.of(ctx.target),
            cases,
            [first_rows(base, ctx)] if ctx.data is not None else [],
            self.over,
            self.goal,
            self.tolerance or 0.0,
            quantized,
        )
        sizes = sizes_text(cases)
        cache = Cache.open(self.cache, ctx.target, quantized=quantized, sizes=sizes)
        return RewriteSearch(base, judge, budget, cache, ctx.progress, proven_rules(ctx.target))


def _report(search: RewriteSearch, ratio: Ratio | None) -> dict[str, Any]:
    report: dict[str, Any] = {"kept": [str(choice) for choice in search.kept]}
    report |= {"speedup": str(ratio)} if ratio is not None else {}
    return report | {"tried": {str(t.choice): str(t) for t in search.trials}}
