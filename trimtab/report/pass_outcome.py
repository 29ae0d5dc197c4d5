"""Result of passes beside the model they were given, and which of both a command writes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from trimtab.core.model import Model
from trimtab.core.text import bytes_text

from .outputs_kept import OutputsKept


@dataclass(frozen=True)
class PassOutcome:
    """A model before and after passes, and the one of both that is written.

    Attributes:
        before: the model that was given.
        after: the result of the passes.
        written: the smaller of both where size was wanted and nothing was gained.
        told: what the first line says beside the sizes; empty where the file shrank.
        kept: what it keeps of the original's answers, or why that is not known; empty where it is
            not asked.
    """

    before: Model
    after: Model
    written: Model
    told: str = ""
    kept: OutputsKept | str = ""

    @classmethod
    def of(
        cls, before: Model, after: Model, *, shrinks: bool = False, keep: bool = False
    ) -> PassOutcome:
        """Compare both and choose what to write.

        Args:
            before: the model that was given.
            after: the result of the passes.
            shrinks: a smaller file is what the passes are for: a larger one is not written.
            keep: write the result in any case.
        """
        if _is_same(before, after, whatever_opset=shrinks):
            told = f"nothing changed: {_reason(after)}"
            return cls(before, after, after if keep else before, told)
        old, new = (replace(model, lineage=()).size_bytes for model in (before, after))
        if new <= old:
            return cls(before, after, after)
        told = f"larger by {bytes_text(new - old)}: {_growth(before, after, new - old)}"
        if not shrinks or keep:
            return cls(before, after, after, told)
        name = after.lineage[-1].pass_name
        told = f"the original, as {name} makes it {told}; --keep writes that"
        return cls(before, after, before, told)

    def to_json(self, path: Path, figures: Mapping[str, Any]) -> dict[str, Any]:
        """Return the outcome as JSON values, with all notes of the passes, however long they are.

        Args:
            path: the file that was written.
            figures: further results of the command, by name.
        """
        kept = self.kept if isinstance(self.kept, OutputsKept) else None
        return {
            "schema": 1,
            "kind": "passes",
            "model": self.before.name,
            "output": str(path),
            "written": "original" if self.written is self.before else "result",
            "told": self.told,
            "size_bytes": [self.before.size_bytes, self.written.size_bytes],
            "kept": kept and asdict(kept),
            **figures,
            "steps": [step.to_json() for step in self.after.lineage[len(self.before.lineage) :]],
        }


def _is_same(before: Model, after: Model, *, whatever_opset: bool) -> bool:
    """Return whether operators, attributes and weights are the same, under whatever names."""
    if not whatever_opset and before.ir.opset_imports != after.ir.opset_imports:
        return False
    if _operators(before) != _operators(after):  # which takes far less than all weights
        return False
    return before.digest == after.digest or _content(before) == _content(after)


def _operators(model: Model) -> Counter[tuple[str, str]]:
    nodes = (node for graph in _graphs(model.ir) for node in graph)
    return Counter((n.domain, n.op_type) for n in nodes if n.op_type != "Constant")


def _content(model: Model) -> Counter[str]:
    found: Counter[str] = Counter()
    for graph in _graphs(model.ir):
        found.update(
            _tensor(v.const_value) for v in graph.initializers.values() if v.const_value is not None
        )
        for node in graph:
            tensor = node.attributes.get("value")
            if node.op_type == "Constant" and tensor is not None and _is_tensor(tensor):
                found[_tensor(tensor.value)] += 1
                continue
            inner = {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}
            plain = [f"{a.name}={a.value}" for a in _attributes(node) if a.type not in inner]
            found[f"{node.domain}:{node.op_type} {sorted(plain)}"] += 1
    return found


def _graphs(model: ir.Model) -> Iterator[ir.Graph]:
    yield from (graph for graph in model.graphs() if isinstance(graph, ir.Graph))


def _attributes(node: ir.Node) -> list[ir.Attr]:
    return [a for a in node.attributes.values() if isinstance(a, ir.Attr)]


def _is_tensor(attribute: ir.Attr) -> bool:
    return attribute.type == ir.AttributeType.TENSOR


def _tensor(tensor: Any) -> str:
    if tensor.dtype == ir.DataType.STRING:
        return str(tensor.string_data())
    array = np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8)
    return f"{tensor.dtype}{list(tensor.shape)}{hashlib.sha256(array.data).hexdigest()}"


def _reason(after: Model) -> str:
    """Return the reasons why the last pass left everything alone, the most frequent first."""
    step = after.lineage[-1]
    reasons = Counter(reason for _, reason in step.notes.get("declined", []))
    if not reasons:
        return f"{step.pass_name} found nothing here that it could improve"
    told = [f"{reason} ({count}x)" for reason, count in reasons.most_common(2)]
    return "; ".join(told) + ("; ..." if len(reasons) > 2 else "")


def _growth(before: Model, after: Model, growth: int) -> str:
    """Return what grew, weights or what stands around them."""
    weights = after.weight_bytes - before.weight_bytes
    rest = growth - weights
    if weights < 0:
        return f"weights take {bytes_text(-weights)} less, added nodes {bytes_text(rest)} more"
    if weights > rest:
        return f"weights take {bytes_text(weights)} more"
    return f"added nodes take {bytes_text(rest)} more"
