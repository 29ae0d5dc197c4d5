"""Write-back of trained weights into the graph that they came from."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from trimtab.core.model import Model

from ...graph.queries import producer
from .module import TorchGraph
from .operators.quantize import spread
from .operators.values import initializer_tensor
from .roles import QuantizationParameters

#: Largest bias: float32 does not represent the end of int32 exactly.
_LARGEST_BIAS = 2**31 - 128


def write_back(model: Model, module: TorchGraph) -> Model:
    """Return the graph that a module was made from with its weights, integers quantized again."""
    after = model.clone()
    initializers = after.graph.initializers
    with torch.no_grad():
        # Biases last: the step sizes that they are stored with follow from the others.
        order = sorted(module.weights.values(), key=lambda w: bool(w.qparams and w.qparams.bias))
        for weight in order:
            value, tensor = initializers[weight.name], module.weight(weight.name).detach().cpu()
            if weight.qparams is None:
                _assign(value, tensor)
            elif weight.qparams.bias:
                _assign_bias(after, value, weight.qparams, tensor)
            else:
                _assign(value, _integers(after, weight.qparams, tensor))
    return dataclasses.replace(model, ir=after.ir)


def _integers(model: Model, qparams: QuantizationParameters, tensor: Tensor) -> Tensor:
    """Compute clamp(round(w / s) + z), in the arithmetic of the module."""
    scale = spread(initializer_tensor(model, qparams.scale), tensor, qparams.axis, qparams.block)
    q = torch.round(tensor.to(scale.dtype) / scale)
    if qparams.zero is not None:
        q = q + spread(initializer_tensor(model, qparams.zero), tensor, qparams.axis, qparams.block)
    return torch.clamp(q, qparams.low, qparams.high)


def _assign_bias(
    model: Model, value: ir.Value, qparams: QuantizationParameters, tensor: Tensor
) -> None:
    """Assign a bias in steps of input scale times weight scale, which integer kernels assume."""
    scale, product = initializer_tensor(model, qparams.scale), _product_of_scales(model, value)
    if product is not None and product.numel() in {1, scale.numel()}:
        scale = product.expand(scale.numel()).reshape(scale.shape)
        _assign(model.graph.initializers[qparams.scale], scale)
    wide = spread(scale, tensor, 0 if tensor.ndim == 1 else qparams.axis, qparams.block)
    q = torch.round(tensor.double() / wide.double())
    _assign(value, torch.clamp(q, -_LARGEST_BIAS, _LARGEST_BIAS))


def _product_of_scales(model: Model, bias: ir.Value) -> Tensor | None:
    """Return input scale times weight scale of the layer that a bias belongs to."""
    for dequantize, _ in bias.uses():
        for layer, _ in dequantize.outputs[0].uses():
            if layer.op_type not in {"Conv", "ConvTranspose", "Gemm"}:
                continue
            first, second = (_scale_of(model, v) for v in layer.inputs[:2])
            if first is not None and second is not None:
                return first.reshape(-1) * second.reshape(-1)
    return None


def _scale_of(model: Model, value: ir.Value | None) -> Tensor | None:
    """Return the scale that a value was dequantized with."""
    dequantize = producer(value, "DequantizeLinear")
    scale = dequantize.inputs[1] if dequantize is not None else None
    name = str(scale.name) if scale is not None else ""
    return initializer_tensor(model, name) if name in model.graph.initializers else None


def _assign(value: ir.Value, tensor: Tensor) -> None:
    """Assign a new tensor in the initializer's own type; the old one may be shared."""
    old = value.const_value
    assert old is not None
    wide = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    array = np.array(wide.numpy().astype(old.dtype.numpy()), order="C").reshape(old.shape.numpy())
    value.const_value = ir.Tensor(array, dtype=old.dtype, name=value.name)
