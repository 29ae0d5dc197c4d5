"""Quantization error at each layer's output, as a signal-to-noise ratio on held-out samples.

The quantized model is compared with the float model that it was made from, tensor by tensor. What
is compared is what the next layer reads: behind the activation and behind the Q/DQ pair. Errors of
the layers before are in it, as they are when the model runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.dataset import Dataset
from trimtab.core.model import Model
from trimtab.core.running import FLOAT_OPS
from trimtab.core.session import SessionConfig, build_session, run, with_outputs
from trimtab.passes.calibrate import fitting

#: Held-out samples that are run.
SAMPLES = 16
#: Activations that a quantizer melts into the operator before them.
ACTIVATIONS = frozenset({"Clip", "LeakyRelu", "Relu"})


@dataclass(frozen=True)
class Pair:
    """The output of a layer in both models.

    Attributes:
        layer: name of its node in the float model.
        output: tensor that its node makes.
        reference: the tensor that is compared, behind its activation.
        quantized: that tensor in the quantized model, behind its Q/DQ pair.
    """

    layer: str
    output: str
    reference: str
    quantized: str


def layer_errors(reference: Model, quantized: Model, data: Dataset) -> dict[Pair, float]:
    """Signal-to-noise ratio in decibels of each layer that both models have.

    Args:
        reference: the float model that was quantized.
        quantized: what became of it.
        data: samples that nothing was calibrated on.

    Raises:
        RunError: onnxruntime refuses one of the models.
        DataError: the data do not fit.
    """
    pairs = shared_outputs(reference, quantized)
    if not pairs:
        return {}
    config = SessionConfig(level="off")  # what is looked at would be fused away
    first = build_session(with_outputs(reference, [p.reference for p in pairs]), config)
    second = build_session(with_outputs(quantized, [p.quantized for p in pairs]), config)
    signal = np.zeros(len(pairs))
    noise = np.zeros(len(pairs))
    for batch in fitting(reference, data.take(SAMPLES).bind(reference)):
        expected, got = run(first, batch.feeds), run(second, batch.feeds)
        for i, pair in enumerate(pairs):
            powers = _powers(expected[pair.reference], got[pair.quantized])
            signal[i] += powers[0]
            noise[i] += powers[1]
    known = (signal > 0) & (noise > 0)
    ratios = zip(pairs, signal, noise, known, strict=True)
    return {pair: 10 * math.log10(s / n) for pair, s, n, told in ratios if told}


def _powers(expected: NDArray[np.generic], got: NDArray[np.generic]) -> tuple[float, float]:
    """Sums of squares of the signal and of the error; nothing where the shapes differ."""
    if expected.shape != got.shape:
        return 0.0, 0.0
    wanted = expected.astype(np.float64)
    return float((wanted**2).sum()), float(((wanted - got.astype(np.float64)) ** 2).sum())


def shared_outputs(reference: Model, quantized: Model) -> list[Pair]:
    """The outputs of the reference's layers that the quantized model has by name."""
    known = {v.name: v for node in quantized.graph for v in node.outputs if v.name}
    found = []
    for node in reference.graph:
        value = _after_activation(node.outputs[0], known) if node.op_type in FLOAT_OPS else None
        if value is not None and value.name:
            other = _after_rounding(known[value.name])
            name = node.outputs[0].name or ""
            found.append(Pair(node.name or name, name, value.name, other.name or value.name))
    return found


def _after_activation(value: ir.Value, known: Mapping[str, ir.Value]) -> ir.Value | None:
    """The furthest tensor behind a layer and its activation that the other model has, too."""
    furthest = value if value.name in known else None
    readers = [usage.node for usage in value.uses()]
    while len(readers) == 1 and readers[0].op_type in ACTIVATIONS and not value.is_graph_output():
        value = readers[0].outputs[0]
        furthest = value if value.name in known else furthest
        readers = [usage.node for usage in value.uses()]
    return furthest


def _after_rounding(value: ir.Value) -> ir.Value:
    """What a DequantizeLinear makes of a tensor, where it is quantized; else the tensor."""
    for usage in value.uses():
        if usage.node.op_type == "QuantizeLinear":
            for after in usage.node.outputs[0].uses():
                if after.node.op_type == "DequantizeLinear":
                    return after.node.outputs[0]
    return value


def prepared(model: Model) -> Model:
    """The float model as static quantization leaves it before it rounds: the same tensors."""
    from trimtab.passes.int8_forms import to_int8_forms
    from trimtab.passes.quantizable import prepare

    copy = model.clone()
    prepare(copy)
    to_int8_forms(copy.graph)
    return replace(copy, name=model.name)
