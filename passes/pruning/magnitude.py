"""Unstructured and patterned pruning by magnitude (Han et al. 2015; n:m after Mishra et al. 2021).

The importance of a weight is its magnitude: w becomes zero where |w| is among the k smallest, with
k = s * size. With data it is the magnitude times the norm of the channel that it reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError, unknown
from trimtab.core.model import EXTERNAL_DATA_BYTES, Model
from trimtab.core.sparse import sparsify, store_sparse

from ..base import Pass, Rewrite
from ..calibration.activation_norms import Factors, input_norms
from ..graph.cleanup import normalize
from ..graph.declined import Declined
from ..graph.forms.folding import fold_moved_weights
from ..graph.quantized import refuse_quantized
from ..graph.stored.weights import WEIGHT_INPUTS, Weight, find_weights, float_elements
from .file_sizes import file_sizes
from .masks import Mask, block_scores, count_for_share, expand_blocks, n_m_mask, parse_n_m, smallest

#: Note of the report.
SPEED = "zeros alone bring no speed on onnxruntime, whose kernels are dense"


@dataclass(frozen=True)
class PruneMagnitude(Pass):
    """Set the weights of least magnitude to zero; biases and norms stay.

    Zeros alone bring no speed on onnxruntime, whose kernels are dense. They shrink the compressed
    file, with `store="sparse"` the file itself, and leave room that retraining can use.

    Attributes:
        sparsity: share of the weights to become zero, at least 0 and below 1. Where neither it
            nor a threshold is given, the share of an n:m pattern, else 0.5.
        threshold: instead of a sparsity, the magnitude below which weights become zero.
        pattern: unstructured, block, or n:m as in 2:4: n of every m weights stay, counted along
            the input channels, which are the axis that the operator sums over.
        block: outputs and inputs that go together for pattern block, as in 4,1.
        importance: score of a block: l1 its mean magnitude, l2 its root mean square, activation
            the mean of magnitude times the root mean square of the input channel on calibration
            data (Wanda).
        scope: whether the share holds for each layer, or for all weights compared together.
        ops: operators whose weights are pruned.
        include: only nodes whose names match one of these patterns, as in "layer3*".
        exclude: not the nodes whose names match one of these.
        min_size: weights of fewer elements stay.
        store: dense, or sparse, which makes the file smaller beyond 67% zeros. onnxruntime loads
            it; other tools may not.
        data: calibration data for importance activation; those of the context where not given.
        samples: number of samples to use.
    """

    drops: ClassVar[bool] = True
    calibrates: ClassVar[bool] = True
    keeps_bits: ClassVar[bool] = True
    layers_only: ClassVar[bool] = True

    sparsity: float | None = None
    threshold: float | None = None
    pattern: str = "unstructured"
    block: tuple[int, int] = (4, 1)
    importance: Literal["l1", "l2", "activation"] = "l1"
    scope: Literal["layer", "global"] = "layer"
    ops: tuple[str, ...] = ("Conv", "ConvTranspose", "Gemm", "MatMul")
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    min_size: int = 0
    store: Literal["dense", "sparse"] = "dense"
    data: Dataset | None = None
    samples: int = 128

    def __post_init__(self) -> None:
        where = f"pass {self.name()}"
        if self.sparsity is not None and self.threshold is not None:
            raise OptionError("takes a sparsity or a threshold, not both", where=where)
        if self.sparsity is not None and not 0 <= self.sparsity < 1:
            hint = "0.8 makes 80% of the weights zero"
            raise OptionError(
                f"a sparsity of {self.sparsity} is not a share", where=where, hint=hint
            )
        if self.threshold is not None and not self.threshold >= 0:
            raise OptionError(f"a threshold of {self.threshold} is below 0", where=where)
        if len(self.block) != 2 or min(self.block) < 1:
            hint = "Give outputs and inputs, as in 4,1"
            raise OptionError(f"{self.block} is not a valid block", where=where, hint=hint)
        if self.samples < 1:
            raise OptionError(f"samples={self.samples} is not at least 1", where=where)
        for op in self.ops:
            if op not in WEIGHT_INPUTS:
                raise unknown("prunable operator", op, WEIGHT_INPUTS, where=where)
        self._check_pattern(where)

    def _check_pattern(self, where: str) -> None:
        n_m = parse_n_m(self.pattern)
        if n_m is None:
            if self.pattern not in {"unstructured", "block"}:
                raise unknown(
                    "pattern", self.pattern, ["unstructured", "block", "2:4"], where=where
                )
            return
        n, m = n_m
        if self.threshold is not None or self.scope == "global":
            raise OptionError(
                f"pattern {self.pattern} keeps {n} of every {m} weights of a layer, which leaves "
                "nothing for a threshold or a global scope to decide",
                where=where,
            )
        if self.sparsity is not None and abs(self.sparsity - (1 - n / m)) > 1e-6:
            raise OptionError(
                f"pattern {self.pattern} is a sparsity of {1 - n / m:g}, not {self.sparsity:g}",
                where=where,
                hint="Leave the sparsity out, or use pattern block or unstructured",
            )

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        """Set weights to zero; decline those that cannot be pruned."""
        before = file_sizes(model)
        normalize(model.ir)
        fold_moved_weights(model.ir)
        found, declined = find_weights(model.ir, self.ops, self.include, self.exclude)
        if not found:
            refuse_quantized(model, "Prune the weights of the float model, then quantize")
        reasons = {weight.name: self._refusal(weight) for weight in found}
        declined += [Declined(name, reason) for name, reason in reasons.items() if reason]
        weights = [weight for weight in found if not reasons[weight.name]]
        masks = self._masks(weights, self._factors(model, weights, ctx))
        shares = {w.name: _zero(w, mask) for w, mask in zip(weights, masks, strict=True)}
        stored = self._store(model) if weights else []
        if weights and self.store == "sparse" and not stored:
            declined.append(Declined("store", "dense is smaller below 67% zeros"))
        return Rewrite(model.ir, tuple(declined), _report(model, before, weights, shares, stored))

    def _refusal(self, weight: Weight) -> str:
        array, layout = weight.array(), weight.layout
        if array.size < self.min_size:
            return f"has {array.size} elements, fewer than {self.min_size}"
        n_m = parse_n_m(self.pattern)
        if n_m and layout.input_run % n_m[1]:
            return f"its {layout.input_run} input channels are not a multiple of {n_m[1]}"
        if self.pattern == "block":
            for side, run, size in (
                ("outputs", layout.output_run, self.block[0]),
                ("input channels", layout.input_run, self.block[1]),
            ):
                if run % size:
                    return f"its {run} {side} are not a multiple of {size}"
        return ""

    def _factors(self, model: Model, weights: list[Weight], ctx: Context) -> Factors | None:
        """Return the factors of the magnitudes, None where magnitudes alone count."""
        if self.importance != "activation":
            return None
        data = ctx.dataset(self.data, model, purpose="importance activation")
        return input_norms(model, weights, data.take(self.samples), ctx)

    def _masks(self, weights: list[Weight], factors: Factors | None) -> list[Mask]:
        """Return a mask for each weight, true where it becomes zero."""
        n_m = parse_n_m(self.pattern)
        arrays = [w.array() if factors is None else w.array() * factors[w.name] for w in weights]
        if n_m:
            rows = zip(arrays, weights, strict=True)
            return [n_m_mask(array, *n_m, w.layout.inputs) for array, w in rows]
        block = self.block if self.pattern == "block" else (1, 1)
        axes = [(w.layout.outputs, w.layout.inputs) for w in weights]
        norm = "l2" if self.importance == "l2" else "l1"
        scores = [block_scores(a, block, ax, norm) for a, ax in zip(arrays, axes, strict=True)]
        pairs = zip(self._choose(scores), axes, strict=True)
        return [expand_blocks(chosen, block, ax) for chosen, ax in pairs]

    def _choose(self, scores: list[Any]) -> list[Mask]:
        if self.threshold is not None:
            return [np.asarray(s < self.threshold) for s in scores]
        share = 0.5 if self.sparsity is None else self.sparsity
        if self.scope == "layer" or not scores:
            return [smallest(s, count_for_share(share, s.size)) for s in scores]
        together = np.concatenate([s.reshape(-1) for s in scores])
        mask = smallest(together, count_for_share(share, together.size))
        parts = np.split(mask, np.cumsum([s.size for s in scores])[:-1])
        return [part.reshape(s.shape) for part, s in zip(parts, scores, strict=True)]

    def _store(self, model: Model) -> list[str]:
        """Store tensors sparse where the file does; return their names."""
        if self.store == "dense":
            return []
        store_sparse(model.ir)
        small = model.weight_bytes <= EXTERNAL_DATA_BYTES
        return sparsify(model.to_proto()) if small else []


def _zero(weight: Weight, mask: Mask) -> float:
    """Assign the pruned tensor; return the share of its elements that are zero."""
    array = weight.array()
    # Multiplying by a mask leaves -0.0, which a file that stores bits does not take for zero.
    pruned = np.where(mask | (array == 0), np.zeros((), array.dtype), array)
    weight.value.const_value = ir.tensor(pruned, name=weight.name)
    return round(float((pruned == 0).mean()), 6)


def _report(
    model: Model,
    before: tuple[int, int],
    weights: list[Weight],
    shares: dict[str, float],
    stored: list[str],
) -> dict[str, Any]:
    after = file_sizes(model)
    sizes = {w.name: w.array().size for w in weights}
    total = sum(sizes.values())
    zeros = sum(shares[name] * size for name, size in sizes.items())
    removed = [name for name, share in shares.items() if share == 1]
    return {
        "sparsity": round(zeros / total, 6) if total else 0.0,
        "weights": total,
        "share_of_all": round(total / max(float_elements(model.ir).total(), 1), 4),
        "layers": shares,
        "bytes": [before[0], after[0]],
        "gzip_bytes": [before[1], after[1]],
        "stored_sparse": len(stored),
        "note": SPEED,
        **({"emptied": removed} if removed else {}),
    }
