"""Functions of torch that its exporter writes badly or not at all, written otherwise."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn
from torch.ao.quantization import FakeQuantizeBase
from torch.overrides import TorchFunctionMode

#: Bounds of the integers that QuantizeLinear makes on CPUs, by their type.
INTEGERS = {torch.int8: (-128, 127), torch.uint8: (0, 255)}


class ExportableFunctions(TorchFunctionMode):
    """Mode in which such functions are called by an equivalent that the exporter can write."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the equivalent where there is one and it applies, else the function."""
        write = EQUIVALENTS.get(func)
        made = write(*args, **(kwargs or {})) if write else NotImplemented
        return func(*args, **(kwargs or {})) if made is NotImplemented else made


def pool_all(x: Tensor, output_size: Any) -> Any:
    """Return the mean over height and width where the pool has one cell.

    On channels-last activations torch computes the same and calls `as_strided`, which becomes a
    Gather with computed positions.
    """
    cells = output_size if isinstance(output_size, tuple | list) else (output_size,)
    whole = x.ndim == 4 and x.is_floating_point() and all(cell == 1 for cell in cells)
    return x.mean((-2, -1), keepdim=True) if whole else NotImplemented


def fake_quantize_tensor(
    input: Tensor,  # noqa: A002
    scale: float | Tensor,
    zero_point: int | Tensor,
    quant_min: int,
    quant_max: int,
) -> Any:
    """Write rounding to one scale as QuantizeLinear and DequantizeLinear."""
    scales = torch.as_tensor(scale, dtype=torch.float32).reshape(())
    zeros = torch.as_tensor(zero_point).reshape(())
    return _quantize_dequantize(input, scales, zeros, (quant_min, quant_max))


def fake_quantize_channels(
    input: Tensor,  # noqa: A002
    scale: Tensor,
    zero_point: Tensor,
    axis: int,
    quant_min: int,
    quant_max: int,
) -> Any:
    """Write rounding to a scale for each channel as QuantizeLinear and DequantizeLinear."""
    return _quantize_dequantize(input, scale, zero_point, (quant_min, quant_max), axis)


#: Equivalents of functions; each returns NotImplemented where it does not apply.
EQUIVALENTS: dict[Any, Any] = {
    F.adaptive_avg_pool2d: pool_all,
    torch._C._nn.adaptive_avg_pool2d: pool_all,  # noqa: SLF001 - as modules call it
    torch.fake_quantize_per_tensor_affine: fake_quantize_tensor,
    torch.fake_quantize_per_channel_affine: fake_quantize_channels,
}


def _quantize_dequantize(
    x: Tensor, scale: Tensor, zero: Tensor, bounds: tuple[int, int], axis: int | None = None
) -> Any:
    fits = (k for k, (least, most) in INTEGERS.items() if least <= bounds[0] and bounds[1] <= most)
    kind = next(fits, None)
    if kind is None or x.dtype != torch.float32:
        return NotImplemented
    if bounds != INTEGERS[kind]:  # fewer integers than the type has
        ends = [(bound - zero.float()) * scale for bound in bounds]
        if axis is not None:
            shape = [-1 if i == axis else 1 for i in range(x.ndim)]
            ends = [end.reshape(shape) for end in ends]
        x = torch.minimum(torch.maximum(x, ends[0]), ends[1])
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    pair = (scale, zero.to(kind))
    q = torch.onnx.ops.symbolic("QuantizeLinear", [x, *pair], attributes, dtype=kind, shape=x.shape)
    return torch.onnx.ops.symbolic(
        "DequantizeLinear", [q, *pair], attributes, dtype=x.dtype, shape=x.shape
    )


def freeze_fake_quantizers(module: nn.Module) -> None:
    """Make fake quantizers round by the scales that they have, without observing.

    Their `forward` asks buffers whether to observe and to round, on which a graph cannot branch.
    The instances' `forward` is replaced; restore the modules' attributes afterwards.
    """
    for part in module.modules():
        if isinstance(part, FakeQuantizeBase):
            part.forward = _frozen(part)  # type: ignore[method-assign]


def _frozen(part: Any) -> Any:
    observer = part.activation_post_process
    bounds = int(observer.quant_min), int(observer.quant_max)
    if not int(part.fake_quant_enabled[0]):
        return lambda x: x
    if part.is_per_channel:
        return lambda x: torch.fake_quantize_per_channel_affine(
            x, part.scale, part.zero_point, part.ch_axis, *bounds
        )
    scale, zero = float(part.scale[0]), int(part.zero_point[0])
    return lambda x: torch.fake_quantize_per_tensor_affine(x, scale, zero, *bounds)


@contextlib.contextmanager
def watch_symbolic(found: set[str]) -> Iterator[None]:
    """Collect the names of the autograd Functions with a `symbolic` that are called.

    torch's exporter of today traces their `forward` and never calls `symbolic`.
    """
    original = torch.autograd.Function.__dict__["apply"]

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if hasattr(cls, "symbolic"):
            found.add(cls.__name__)
        return original.__func__(cls, *args, **kwargs)

    torch.autograd.Function.apply = classmethod(apply)  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        torch.autograd.Function.apply = original  # type: ignore[method-assign]
