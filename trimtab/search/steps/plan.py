"""Recipes that may be tried, family by family, in the order that keeps gains.

A chain is: simplify, prune and repair, finetune, quantize, finetune through Q/DQ, exact rewrites.
Each later pass works on what the earlier ones left, and nothing that a later pass would undo comes
before it: pruning after quantization would throw calibrated channels away, rewrites before it would
hide the patterns that quantization looks for.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trimtab.core.batches import fixed_rows
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError
from trimtab.core.metric import labels_are_classes
from trimtab.core.model import Model
from trimtab.core.target import Target, cpu_flags
from trimtab.passes import find, registry
from trimtab.passes.base import Pass
from trimtab.passes.quantization.judge import PROMISED

from ..recipe import Recipe

#: Items that pruning looks at: its least squares need no more, and its time grows with them.
PRUNING_SAMPLES = 256
#: Shares of the time that pruning leaves, from mild to strong.
SHARES = (0.93, 0.85, 0.7, 0.55, 0.4, 0.3)
#: Learning rate for a pruned convolutional network with few data.
LEARNING_RATE = 2e-4
#: With many data: norms put back, and a rate near that of a fresh network. A resnet56 without
#: 43% of its int8 time (0.818 on 2,500 images) came in five minutes on one core of a Zen 5 to
#: 0.861 at 2e-4 as it was, with norms to 0.854, 0.874 and 0.878 at 0.02, 0.05 and 0.2; in eleven
#: minutes to 0.883 at 0.05 and 0.880 at 0.1. At 0.2 long runs lose all that pruning had left.
FROM_THE_START: dict[str, Any] = {
    "batch_norm": "restored",
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "weight_decay": 5e-4,
    "validation": 0.02,
}
#: Items that count as many data: such rates forget what the weights were and learn it anew.
MANY = 10_000
#: Fewest rows of a step with which a norm can train.
LEAST_ROWS = 16
#: Share of the weights in MatMul and Gemm below which their own families gain nothing.
SHARE_OF_PRODUCTS = 0.3
#: Operators with a weight that int8 or narrower weights make cheaper.
PRODUCTS = frozenset({"Conv", "Gemm", "MatMul", "ConvTranspose"})


@dataclass(frozen=True)
class SearchPlan:
    """Recipes that may be tried on a model.

    Attributes:
        model: the float original.
        data: data that passes calibrate and train on.
        target: machine that it will run on.
        allowed: names of the passes that may be used; all where None.
        own: passes as the user configured them, each tried as it is.
        timed: true where passes may measure time.
        precision: precision that pruning optimizes for: int8 where static int8 turned out to pay,
            since channels that cost a float kernel much may cost an int8 kernel little.
    """

    model: Model
    data: Dataset
    target: Target
    allowed: frozenset[str] | None = None
    own: tuple[Pass, ...] = ()
    timed: bool = True
    precision: Literal["float", "int8"] = "float"

    @classmethod
    def of(
        cls,
        model: Model,
        data: Dataset,
        target: Target,
        passes: Sequence[str | Pass | type[Pass]] | None,
        *,
        timed: bool,
    ) -> SearchPlan:
        """Return the plan for what a user allows: names or classes of passes, or passes.

        Raises:
            OptionError: an unknown name, or an empty list.
        """
        if passes is None:
            return cls(model, data, target, None, _of_others(), timed)
        if not passes:
            raise OptionError("there is no pass to search with", where="passes")
        own = tuple(p for p in passes if isinstance(p, Pass))
        kinds = [p if isinstance(p, type) else find(p) for p in passes if not isinstance(p, Pass)]
        foreign = tuple(k() for k in kinds if not k.__module__.startswith("trimtab."))
        return cls(model, data, target, frozenset(k.name() for k in kinds), own + foreign, timed)

    def allows(self, *names: str) -> bool:
        """Return whether all these passes may be used."""
        return self.allowed is None or set(names) <= self.allowed

    def floats(self) -> list[Recipe]:
        """Return the model itself, cleaned up, and with the rewrites that were faster so far."""
        plain = Recipe("float simplified", self.start())
        return [plain, *([self.chain("float, other forms")] if self.rewrites() else [])]

    def own_recipes(self) -> list[Recipe]:
        """Return each pass of the user's, alone and before int8."""
        found = []
        for step in self.own:
            found.append(self.chain(step.name(), step))
            if self.allows("quantize-static") and step.name() != "quantize-static":
                found.append(self.chain(f"{step.name()}, int8 static", step, self.static()))
        return found

    def first(self) -> list[Recipe]:
        """Return the recipe most likely to succeed, so that something usable is there soon."""
        return [*self.halves(), *self.int8()][:1]

    def others(self) -> list[Recipe]:
        """Return the families that the first recipe leaves."""
        narrow = [*self.halves(), *self.int8()][1:]
        return [*self.floats(), *narrow, *self.weight_only()]

    def family_names(self) -> list[str]:
        """Return what is tried, in order, in a few words."""
        recipes = [*self.first(), *self.others(), *self.own_recipes()]
        names = [recipe.name for recipe in recipes]
        names += [recipe.name for recipe in self.stored(0.0)[-1:]]
        return [*names, *(["pruning in steps"] if self.allows("prune-channels") else [])]

    def halves(self) -> list[Recipe]:
        """Return float16, which GPUs run at twice the rate and which hardly costs any quality."""
        if self.target.isa != "gpu" or not self.allows("half"):
            return []
        return [self.chain("float16", self.half())]

    def int8(self) -> list[Recipe]:
        """Return one int8 recipe a family, the most likely first."""
        ops = {node.op_type for node in self.model.nodes()}
        if not ops & PRODUCTS:
            return []
        static, dynamic = list[Recipe](), list[Recipe]()
        if self.allows("quantize-static"):
            static = [self.chain("int8 static", self.static())]
        # The providers of GPUs have no DynamicQuantizeLinear.
        usable = self.target.isa != "gpu" and self.allows("quantize-dynamic")
        if usable and self._products_share() > SHARE_OF_PRODUCTS:
            dynamic = [self.chain("int8 dynamic", self.made("quantize-dynamic"))]
        # Convolutions have fast static kernels alone; a transformer's dynamic ones lose least.
        return [*static, *dynamic] if "Conv" in ops else [*dynamic, *static]

    def _products_share(self) -> float:
        """Return the share of the weights in MatMul and Gemm, which alone have dynamic kernels."""
        sizes = [
            (node.op_type in {"MatMul", "Gemm"}, value.const_value.size)
            for node in self.model.graph
            for value in node.inputs[1:]
            if value is not None and value.const_value is not None
        ]
        return sum(s for product, s in sizes if product) / max(1, sum(s for _, s in sizes))

    def weight_only(self) -> list[Recipe]:
        """Return narrow weights with float arithmetic: a smaller file at hardly a loss."""
        runs = self.target.provider != "TensorrtExecutionProvider"  # it has no such operator
        if runs and self.allows("quantize-weights") and self._products_share() > SHARE_OF_PRODUCTS:
            return [self.chain("weights only", self.made("quantize-weights"))]
        return []

    def stored(self, max_drop: float, base: Recipe | None = None) -> list[Recipe]:
        """Return a float recipe with its weights in 16 bits, and in 8: smaller, and as fast.

        Without a base it is the model itself, cleaned up. In 8 bits answers change by at most half
        of the drop on calibration data, and never by more than compressing alone would let them;
        other data may lose more.
        """
        if self.target.provider == "TensorrtExecutionProvider" or not self.allows(_STORE):
            return []
        fidelity = max(PROMISED, 1 - max_drop / 2)
        steps = (*self.start(), *self.middle(base), *self.rewrites()) if base else self.start()
        name = base.name if base else "float"
        narrow = self.made(_STORE, data=self.data, fidelity=fidelity)
        wide = self.made(_STORE, store="int16")  # which costs next to no time
        return [
            Recipe(f"{name}, weights in {bits} bits", (*steps, last))
            for bits, last in ((16, wide), (8, narrow))
        ]

    def rescues(self, max_drop: float | dict[str, float], metric: str) -> list[Recipe]:
        """Return other ways to int8 for a model that plain int8 costs too much, the cheap first."""
        found = []
        if self.allows("quantize-static"):
            found.append(self.chain("int8 static percentile", self.static(ranges="percentile")))
        if self.allows(_AUTO):
            found.append(self.chain("int8, best known", self.best_known(max_drop, metric)))
        return found

    def best_known(self, max_drop: float | dict[str, float], metric: str) -> Pass:
        """Return the best known order of quantization passes; layers that cost too much stay float.

        It may lose half of the drop on calibration data: other data may lose more.
        """
        half: float | dict[str, float]
        if isinstance(max_drop, dict):
            half = {name: limit / 2 for name, limit in max_drop.items()}
        else:
            half = max_drop / 2
        return self.made(_AUTO, max_drop=half, metric=metric)

    def pruning(self, share: float, protect: tuple[str, ...] = ()) -> Pass:
        """Return pruning to that share of the time: by the clock, else of the products.

        Operators to protect keep all their channels.
        """
        fields: dict[str, Any] = {"latency" if self.timed else "macs": round(share, 4)}
        if self.precision != "float":
            fields["precision"] = self.precision
        fields |= {"data": self.data, "samples": PRUNING_SAMPLES, "branches": True}
        if protect:
            fields |= {"protect": [_literal(name) for name in protect]}
        return self.made("prune-channels", **fields)

    def pruned(
        self,
        share: float,
        base: Recipe | None = None,
        reached: float = 1.0,
        protect: tuple[str, ...] = (),
    ) -> Recipe:
        """Return a recipe that prunes to a share of the original's time, without further training.

        It starts from the float recipe `base`, which takes the share `reached`. Operators to
        protect keep all their channels: another cut than the usual one.
        """
        of = "" if self.precision == "float" else f" of {self.precision}"
        again = " by another cut" if protect else ""
        before = self.middle(base) if base else ()
        name = f"pruned to {share:.0%}{of}{again}"
        return self.chain(name, *before, self.pruning(share / reached, protect))

    def rung(self, pruned: Recipe) -> Recipe:
        """Return a pruned recipe in the precision that pruning is for."""
        return pruned if self.precision == "float" else self.quantized(pruned)

    def float_part(self, recipe: Recipe) -> Recipe:
        """Return a recipe up to its quantization."""
        steps = itertools.takewhile(lambda p: p.name() not in _QUANTIZERS, self.middle(recipe))
        return Recipe(recipe.name, (*self.start(), *steps))

    def finetuned(self, base: Recipe, seconds: float, threads: int) -> Recipe:
        """Return a recipe whose float model is finetuned against the original."""
        name = f"{base.name}, trained"
        own: dict[str, Any] = {"precision": training_precision()}
        if any(node.op_type == "Conv" for node in self.model.nodes()):
            own |= self._anew() if self._may_learn_anew() else {"learning_rate": LEARNING_RATE}
        return self.chain(name, *self.middle(base), self.training(seconds, threads, **own))

    def _anew(self) -> dict[str, Any]:
        """Return high rates; labels, where there are any, say more than a teacher that saw them."""
        labelled = labels_are_classes(self.model, self.data)
        return FROM_THE_START | ({"loss": ["kd", "ce"]} if labelled else {})

    def _may_learn_anew(self) -> bool:
        """Return whether data and batches are large enough for norms and high rates."""
        rows = fixed_rows(self.model)
        return len(self.data) >= MANY and (rows or LEAST_ROWS) >= LEAST_ROWS

    def quantized(self, base: Recipe, *last: Pass) -> Recipe:
        """Return a float recipe with static int8, or with the given passes, behind it."""
        name = f"{base.name}, int8{' best known' if last else ''}"
        return self.chain(name, *self.middle(base), *(last or (self.static(),)))

    def halved(self, base: Recipe) -> Recipe:
        """Return a float recipe with float16 behind it."""
        return self.chain(f"{base.name}, float16", *self.middle(base), self.half())

    def trained_through(self, base: Recipe, seconds: float, threads: int) -> Recipe:
        """Return a quantized recipe finetuned through its rounding."""
        name = f"{base.name}, trained through int8"
        return self.chain(name, *self.middle(base), self.training(seconds, threads))

    def training(self, seconds: float, threads: int, **own: Any) -> Pass:
        """Return finetuning against the original for so many seconds, with further fields."""
        time = f"{max(1.0, seconds):.0f}s"
        return self.made("finetune", teacher="original", time=time, threads=threads, **own)

    def static(self, **fields: Any) -> Pass:
        """Return static int8 on the calibration data."""
        return self.made("quantize-static", **fields)

    def half(self) -> Pass:
        """Return float16 with float32 islands where the calibration data show the need."""
        return self.made("half", data=self.data)

    def made(self, name: str, **fields: Any) -> Pass:
        """Return a pass with fields; with the data where it needs some and none are given."""
        kind = find(name)
        if kind.needs_data and "data" in kind.fields():
            fields.setdefault("data", self.data)
        return kind.from_json(fields)

    def start(self) -> tuple[Pass, ...]:
        """Return the passes that every chain begins with."""
        return (find("simplify")(),)

    def rewrites(self) -> tuple[Pass, ...]:
        """Return the passes that every chain ends with; those that find nothing leave no trace."""
        return (find("apply-rewrites")(),) if self.allows("apply-rewrites") else ()

    def chain(self, name: str, *steps: Pass) -> Recipe:
        """Return a recipe with these steps in the middle."""
        return Recipe(name, (*self.start(), *steps, *self.rewrites()))

    def middle(self, recipe: Recipe) -> tuple[Pass, ...]:
        """Return the steps of a recipe without the common beginning and end."""
        ends = {"simplify", "apply-rewrites"}
        return tuple(p for p in recipe.passes if p.name() not in ends)


_AUTO, _STORE = "quantize-auto", "compress-weights"
_QUANTIZERS = frozenset(
    {_AUTO, _STORE, "quantize-static", "quantize-dynamic", "quantize-weights", "half"}
)
#: Passes of recipes that compute as the original does: they claim no speed.
_AS_FAST = frozenset({"simplify", _STORE})


def claims_no_speed(recipe: Recipe) -> bool:
    """Return whether a recipe makes the float model itself, perhaps in a smaller file."""
    return {p.name() for p in recipe.passes} <= _AS_FAST


def computes_in_float(recipe: Recipe) -> bool:
    """Return whether a recipe leaves weights in float32, which may be stored in fewer bits."""
    return not _QUANTIZERS & {p.name() for p in recipe.passes}


def _literal(name: str) -> str:
    """Return a pattern that matches a name alone."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)


def training_precision() -> Literal["float32", "bf16"]:
    """Return what trains fastest here: bfloat16 on a CPU with matrix units for it."""
    return "bf16" if "amx_bf16" in cpu_flags() else "float32"


def _of_others() -> tuple[Pass, ...]:
    """Return the passes that other packages offer by the entry point `trimtab.passes`."""
    kinds = registry().values()
    return tuple(k() for k in kinds if not k.__module__.startswith("trimtab."))
