"""Commands that make a quantized model again from the float one, by the way it is quantized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from trimtab.core.model import Model
from trimtab.core.ort.int8_share import INT8_OPS

STATIC = "trimtab quantize-static FLOAT -o OUT --data DATA"
DYNAMIC = "trimtab quantize-dynamic FLOAT -o OUT"
_WEIGHTS = "trimtab quantize-weights FLOAT -o OUT"
_STORED = "trimtab compress-weights FLOAT -o OUT --data DATA"
_COMPENSATED = f"{_WEIGHTS} --method gptq --data DATA; or in 8 bits: {_WEIGHTS} --bits 8"
#: Passes that change the integers of Q/DQ pairs, and of no other form.
OF_PAIRS = ("round-weights", "correct-bias")


@dataclass(frozen=True)
class Remaking:
    """Way in which a model of that form is made again.

    Attributes:
        again: command.
        weights_fix: what to do about a layer whose weights alone are quantized; "" where
            activations are, too.
        unusable: passes that do not work on the file.
    """

    again: str = STATIC
    weights_fix: str = ""
    unusable: Sequence[str] = ()

    @classmethod
    def of(cls, model: Model) -> Remaking:
        """Return the way of a quantized model, of any tool."""
        ops = {node.op_type for node in model.nodes()}
        if "MatMulNBits" in ops and not ops & {"QuantizeLinear", "DynamicQuantizeLinear"}:
            few = any(_bits(node) < 8 for node in model.nodes() if node.op_type == "MatMulNBits")
            return cls(_WEIGHTS, _COMPENSATED if few else "", OF_PAIRS)
        if any(op.startswith("Dynamic") or op.endswith("Integer") for op in ops):
            return cls(DYNAMIC, "", OF_PAIRS)
        if "QuantizeLinear" not in ops and not ops & INT8_OPS:
            return cls(_STORED, _STORED, OF_PAIRS)
        integers = ops & INT8_OPS or any(op.startswith("QLinear") for op in ops)
        return cls(unusable=OF_PAIRS if integers else ())

    def fix(self, fix: str) -> str:
        """Return what to do about a layer, in commands that work on such a model.

        Args:
            fix: what to do about it where the model has Q/DQ pairs.
        """
        leave = f"leave it float: {self.again} --exclude {{name}}"
        if self.again not in {STATIC, DYNAMIC}:
            return f"{self.weights_fix}; or {leave}" if self.weights_fix else leave
        tools = [f"trimtab {name} " for name in self.unusable]
        steps = [step for step in fix.split("; or ") if not any(tool in step for tool in tools)]
        return ("; or ".join(steps) or leave).replace(STATIC, self.again)


def _bits(node: ir.Node) -> int:
    return node.attributes.get_int("bits", 4)
