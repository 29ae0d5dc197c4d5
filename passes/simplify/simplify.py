"""Simplification: fewer nodes for the same function, written as later passes and kernels expect."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import onnx
import onnx_ir as ir

from trimtab.core.context import Context
from trimtab.core.errors import MissingExtraError, OptionError, PassError
from trimtab.core.maps import from_proto
from trimtab.core.model import EXTERNAL_DATA_BYTES, Model
from trimtab.core.ort.random_operators import RANDOM_OPS
from trimtab.core.sparse import graphs_of
from trimtab.core.watch import foreign_call

from ..base import Pass, Rewrite
from ..graph.cleanup import merge_equal, restore_interface, tidy
from ..graph.declined import Declined
from ..graph.forms.batch_norm_fold import fold_norms_of
from ..graph.forms.folding import fold_branches, fold_constants, unfold_shared
from ..graph.forms.opsets import convert_opset
from ..graph.layers import has_only_learned
from .mean_to_pool import pool_means
from .onnxsim_import import messages_dropped, onnxsim

Convert = Callable[[onnx.ModelProto], onnx.ModelProto]
#: Bytes that folding may add to a small file, and to a large one.
LEAST_GROWTH, MOST_GROWTH = 16_000, 1_000_000


@dataclass(frozen=True)
class Simplify(Pass):
    """Fold constants, fuse and drop nodes, and write means as pooling; the numbers stay.

    onnxsim does the folding, the fusions (BatchNorm into Conv) and shape inference. Around it:
    local functions are inlined, Constant nodes become initializers, initializers leave the input
    list, Identity, Dropout and casts to the same type go, an If with a constant condition becomes
    its branch, ReduceMean over the spatial axes becomes GlobalAveragePool, and the operator set is
    raised to what quantization needs. Where onnxsim fails, or its result computes something else,
    the pass does without it and reports that.

    Attributes:
        opset: lowest operator set of the result; an older model is converted.
        max_growth: bytes that folding may add to the file; if not given, a tenth of it, at least
            16 kB and at most 1 MB. Constants that are large to store stay nodes where they would
            add more; onnxruntime computes them when it loads the model.
    """

    tolerance: ClassVar[float | None] = 1e-5

    opset: int = 13
    max_growth: int | None = None

    def __post_init__(self) -> None:
        if self.opset < 7 or self.opset > onnx.defs.onnx_opset_version():
            newest = onnx.defs.onnx_opset_version()
            raise OptionError(f"opset {self.opset} is not between 7 and {newest}", where="simplify")
        if self.max_growth is not None and self.max_growth < 0:
            raise OptionError("max_growth is negative", where="simplify")

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:
        """Return the simplified graph."""
        onnxsim()  # raises before any work where it is missing
        notes = _Notes()
        base = model.clone()
        notes.declined += tidy(base.ir)
        fold_branches(base.ir)
        if model.weight_bytes > EXTERNAL_DATA_BYTES:
            notes.texts.append("more than 2 GB of weights: neither onnxsim nor opset conversion")
            result = self._finish(model, base.ir, base.ir, notes)
        elif model.opset >= self.opset and has_only_learned(base.ir):
            result = self._finish(model, base.ir, base.ir, notes)  # as trees are: none of ours
        else:
            result = self._best(model, base, notes, ctx)
        report = _report(model, dataclasses.replace(model, ir=result), notes.texts)
        return Rewrite(result, tuple(notes.declined), report)

    def _best(self, model: Model, base: Model, notes: _Notes, ctx: Context) -> ir.Model:
        """Return the result of the first of ever smaller sets of steps that keeps the function."""
        proto = onnx_ir_proto(base)
        raised = functools.partial(self._raise_opset, notes=notes)
        simplified = functools.partial(self._onnxsim, notes=notes)
        attempts: list[tuple[str, list[Convert]]] = [
            ("onnxsim", [raised, simplified]),
            ("conversion to a newer opset", [raised]),
            ("", []),
        ]
        for step, converts in attempts:
            mark = notes.mark()
            try:
                made = functools.reduce(lambda p, convert: convert(p), converts, proto)
                result = self._finish(model, base.ir, from_proto(made), notes)
                if not step:
                    return result  # the caller checks it anyway
                self._check(model, dataclasses.replace(model, ir=result), ctx)
            except MissingExtraError:
                raise
            except Exception as error:  # noqa: BLE001 - foreign code; the steps before it remain
                notes.undo(mark)
                what = error.what if isinstance(error, PassError) else str(error)
                line = (what.strip().splitlines() or [type(error).__name__])[0][:200]
                notes.texts.append(f"without {step}: {line}")
            else:
                return result
        raise AssertionError("the last attempt returns or raises")

    def _raise_opset(self, proto: onnx.ModelProto, *, notes: _Notes) -> onnx.ModelProto:
        now = {o.domain: o.version for o in proto.opset_import}.get("", 1)
        if now >= self.opset:
            return proto
        converted = convert_opset(proto, self.opset)
        notes.texts.append(f"opset {now} raised to {self.opset}")
        return converted

    def _onnxsim(self, proto: onnx.ModelProto, *, notes: _Notes) -> onnx.ModelProto:
        before = proto.ByteSize()
        growth = self.max_growth
        if growth is None:
            growth = min(max(before // 10, LEAST_GROWTH), MOST_GROWTH)
        kilobytes = min(max(growth // 1024, 1), 1 << 20)
        options: list[dict[str, Any]] = [
            {"tensor_size_threshold": f"{kilobytes}KB"},
            {"tensor_size_threshold": "1KB"},
            {"skip_constant_folding": True},
        ]
        skipped = _harmful(proto)
        for tried, option in enumerate(options):
            with messages_dropped(), foreign_call("onnxsim folding the model", _units(proto)):
                made, _ = onnxsim().simplify(
                    proto, certify=False, skipped_optimizers=skipped, **option
                )
            if made.ByteSize() <= before + growth:
                if tried:
                    reason = f"stay computed: stored they add more than {growth:,} bytes"
                    notes.declined.append(Declined("constants", reason))
                return made  # type: ignore[no-any-return]
        raise ValueError(f"its result is more than {growth:,} bytes larger")

    def _finish(self, model: Model, base: ir.Model, result: ir.Model, notes: _Notes) -> ir.Model:
        unfold_shared(result, base)
        notes.declined += tidy(result)
        fold_branches(result)
        for inner in result.graph.subgraphs():  # onnxsim works on the main graph
            fold_constants(inner)
            fold_norms_of(inner)
        notes.declined += pool_means(result)
        merge_equal(result)
        restore_interface(result, model.ir)
        return result


@dataclass
class _Notes:
    """Notes of a run of the pass, which can be undone for steps that are given up."""

    texts: list[str] = field(default_factory=list)
    declined: list[Declined] = field(default_factory=list)

    def mark(self) -> tuple[int, int]:
        return len(self.texts), len(self.declined)

    def undo(self, mark: tuple[int, int]) -> None:
        del self.texts[mark[0] :]
        del self.declined[mark[1] :]


def _units(proto: onnx.ModelProto) -> float:
    """Return how much onnxsim has to do, on a slow board too: 10 nodes or 10 MB are a unit."""
    return float(len(proto.graph.node) / 10 + proto.ByteSize() / 1e7)


def _harmful(proto: onnx.ModelProto) -> list[str]:
    """Return names of onnxsim's steps that would change the function, or cost more than they gain.

    The factor at the end of a Gelu belongs to what onnxruntime fuses into one node: in the weights
    of the next convolution it saves a product, and leaves four other nodes.
    """
    operators = {node.op_type for node in proto.graph.node}
    skipped = ["eliminate_common_subexpression"] if _draws(proto) else []
    return skipped + ["fuse_preceding_mul_into_conv"] * bool(operators & {"Erf", "Tanh"})


def _draws(proto: onnx.ModelProto) -> bool:
    """Return whether a node draws at random: two of one input are not equal then."""
    nodes = (node for graph in graphs_of(proto.graph) for node in graph.node)
    return any(node.op_type in RANDOM_OPS for node in nodes)


def onnx_ir_proto(model: Model) -> onnx.ModelProto:
    """Return the graph without lineage as protobuf."""
    return dataclasses.replace(model, lineage=()).to_proto()


def _report(before: Model, after: Model, notes: list[str]) -> dict[str, Any]:
    old, new = (Counter(node.op_type for node in m.nodes()) for m in (before, after))
    changed = {op: [old[op], new[op]] for op in sorted(old | new) if old[op] != new[op]}
    sizes = [dataclasses.replace(m, lineage=()).size_bytes for m in (before, after)]
    report: dict[str, Any] = {"nodes": [old.total(), new.total()], "ops": changed, "bytes": sizes}
    return report | ({"notes": notes} if notes else {})
