"""Weight clustering: the weights of a layer take only a few values, which compresses well.

Han et al., "Deep Compression", 2016, section 3: k-means over the weights of a layer, started from
evenly spaced centres, which keeps the few large weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.context import Context
from trimtab.core.data import Floats
from trimtab.core.errors import OptionError, unknown
from trimtab.core.model import Model

from ..base import Pass, Rewrite
from ..graph.cleanup import normalize
from ..graph.declined import Declined
from ..graph.forms.folding import fold_moved_weights
from ..graph.quantized import refuse_quantized
from ..graph.stored.weights import WEIGHT_INPUTS, Weight, find_weights, float_elements
from .file_sizes import file_sizes


@dataclass(frozen=True)
class ClusterWeights(Pass):
    """Let the weights of each layer share a few values; zeros stay zero.

    The file keeps its size until it is compressed, and runs as fast as before: downloads, archives
    and device images become smaller. `finetune` keeps the sharing.

    Attributes:
        clusters: number of values beside zero that a layer, or a channel of it, may take.
        scope: whether a whole tensor shares its values or each output channel has its own.
        start: first centres: linear spaces them evenly over the range, quantile over the weights.
        iterations: most iterations of k-means.
        ops: operators whose weights are clustered.
        include: only nodes whose names match one of these patterns, as in "layer3*".
        exclude: not the nodes whose names match one of these.
        min_size: weights of fewer elements stay.
    """

    drops: ClassVar[bool] = True
    layers_only: ClassVar[bool] = True

    clusters: int = 16
    scope: Literal["tensor", "channel"] = "tensor"
    start: Literal["linear", "quantile"] = "linear"
    iterations: int = 50
    ops: tuple[str, ...] = ("Conv", "ConvTranspose", "Gemm", "MatMul")
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    min_size: int = 0

    def __post_init__(self) -> None:
        where = f"pass {self.name()}"
        if not 2 <= self.clusters <= 65536:
            raise OptionError(f"clusters is {self.clusters}, must be 2 to 65536", where=where)
        if self.iterations < 1:
            raise OptionError(f"iterations is {self.iterations}, must be above 0", where=where)
        if self.min_size < 0:
            raise OptionError(f"min_size is {self.min_size}, must be 0 or more", where=where)
        for op in self.ops:
            if op not in WEIGHT_INPUTS:
                raise unknown("operator with weights", op, WEIGHT_INPUTS, where=where)

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:  # noqa: ARG002
        """Replace weights by shared values."""
        before = file_sizes(model)
        normalize(model.ir)
        fold_moved_weights(model.ir)
        weights, declined = find_weights(model.ir, self.ops, self.include, self.exclude)
        if not weights:
            refuse_quantized(model, "Cluster the weights of the float model, then quantize")
        reasons = {weight.name: self._refusal(weight) for weight in weights}
        declined += [Declined(name, reason) for name, reason in reasons.items() if reason]
        chosen = [w for w in weights if not reasons[w.name]]
        layers = {w.name: self._cluster(w) for w in chosen}
        elements = sum(w.array().size for w in chosen)
        after = file_sizes(model)
        report = {
            "clusters": self.clusters,
            "layers": layers,
            "share_of_all": round(elements / max(float_elements(model.ir).total(), 1), 4),
            "bytes": [before[0], after[0]],
            "gzip_bytes": [before[1], after[1]],
            "note": "smaller when compressed; as fast as before",
        }
        return Rewrite(model.ir, tuple(declined), report)

    def _refusal(self, weight: Weight) -> str:
        array = weight.array()
        if not np.issubdtype(array.dtype, np.floating):
            return f"is {array.dtype}, and clusters are of floats"
        if array.size < self.min_size:
            return f"has {array.size} elements, fewer than {self.min_size}"
        if not np.isfinite(array).all():
            return "contains NaN or infinity"
        return ""

    def _cluster(self, weight: Weight) -> dict[str, float]:
        """Assign the shared values; return their number and the relative RMS error."""
        array = weight.array()
        shared = np.array(array)
        channels = np.moveaxis(shared, weight.layout.outputs, 0)  # a view: written through
        parts = channels if self.scope == "channel" else [channels]
        for part in parts:
            part[...] = shared_values(part, self.clusters, self.start, self.iterations)
        weight.value.const_value = ir.tensor(shared, name=weight.name)
        original = array.astype(np.float64)
        power = float(np.square(original).sum())
        error = float(np.square(shared.astype(np.float64) - original).sum())
        return {
            "values": len(np.unique(shared)),
            "relative_rms_error": round(float(np.sqrt(error / power)), 6) if power else 0.0,
        }


def shared_values(
    weights: NDArray[Any], clusters: int, start: str, iterations: int
) -> NDArray[Any]:
    """Replace weights by the nearest of at most `clusters` centres; zeros stay, in any shape.

    One-dimensional k-means (Lloyd, 1982) on the sorted weights: a cluster is a run of them, and its
    mean comes from running sums, so that an iteration costs `clusters` binary searches.
    """
    flat = weights.reshape(-1)
    kept = flat != 0
    values = np.sort(flat[kept].astype(np.float64))
    distinct = np.unique(values)
    if len(distinct) <= clusters:
        return weights
    centres = _start(values, distinct, clusters, start)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    for _ in range(iterations):
        ends = _ends(values, centres)
        counts = np.diff(ends)
        totals = np.diff(sums[ends])  # an empty cluster stays where it is
        means = np.divide(totals, counts, out=centres.copy(), where=counts > 0)
        if np.array_equal(means, centres):
            break
        centres = means
    out = np.zeros_like(flat)
    places = np.searchsorted(_borders(centres), flat[kept].astype(np.float64))
    out[kept] = centres[places].astype(flat.dtype)
    return out.reshape(weights.shape)


def _start(values: Floats, distinct: Floats, clusters: int, how: str) -> Floats:
    if how == "linear":
        return np.linspace(values[0], values[-1], clusters)
    places = (np.arange(clusters) + 0.5) / clusters
    centres = np.unique(np.quantile(values, places))
    # Repeated weights give the same quantile twice.
    rest = np.setdiff1d(distinct, centres)[: clusters - len(centres)]
    return np.sort(np.concatenate([centres, rest]))


def _borders(centres: Floats) -> Floats:
    return (centres[:-1] + centres[1:]) / 2


def _ends(values: Floats, centres: Floats) -> NDArray[np.int64]:
    """Return the beginning of each cluster's run in the sorted values, and the end of the last."""
    inner = np.searchsorted(values, _borders(centres), side="right")
    return np.concatenate([[0], inner, [len(values)]])
