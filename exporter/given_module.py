"""Modules as users hand them over: wrapped, compiled, captured, scripted, quantized."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.eval_frame import OptimizedModule
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from trimtab.core.errors import ExportError, InputError

#: Attributes under which wrappers hold the module whose `forward` has the signature.
WRAPPED = "module"
WRAPPERS = (
    nn.DataParallel,
    nn.parallel.DistributedDataParallel,
    torch.optim.swa_utils.AveragedModel,
)
#: Packages of modules with integer weights, whose operators exist in torch alone.
QUANTIZED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized")
#: Element types that NumPy lacks, so that nothing can be fed or read in them.
UNFED = (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
FLOAT_MODULE = "Export the float module; `trimtab quantize` makes it smaller"


def module_to_export(given: Any, inputs: Any) -> tuple[nn.Module, Any]:
    """Return the module to export, out of its wrappers, and its example inputs.

    `torch.compile`, `DataParallel` and their kin hide the signature of `forward`. A captured
    `ExportedProgram` is a module with example inputs.

    Raises:
        InputError: it is not a module, or one whose code torch's exporter cannot read.
    """
    if isinstance(given, torch.export.ExportedProgram):
        args, kwargs = given.example_inputs or ((), {})
        if inputs is None and (args or kwargs):
            inputs = kwargs if not args else tuple(args)
        given = given.module()
    while (inner := _unwrapped(given)) is not None:
        given = inner
    if not isinstance(given, nn.Module):
        raise InputError(
            f"a {type(given).__name__} is not a torch.nn.Module",
            where="export",
            hint=_advice(given),
        )
    for path, part in given.named_modules():
        where = f"module {path!r}" if path else "export"
        if isinstance(part, torch.jit.ScriptModule):
            raise InputError(
                "a TorchScript module (of torch.jit.trace, script or load) has no Python code "
                "that torch's exporter could read",
                where=where,
                hint="Export the torch.nn.Module that it was made from",
            )
        if type(part).__module__.startswith(QUANTIZED):
            raise InputError(
                f"{type(part).__name__} holds integer weights of torch's own quantization, whose "
                "operators have no ONNX equivalent",
                where=where,
                hint=FLOAT_MODULE,
            )
    _refuse_packed_weights(given)
    return given, inputs


def is_compiled(module: nn.Module) -> bool:
    """Return whether `torch.compile` was used on the module or a part of it."""
    return any(
        isinstance(m, OptimizedModule) or getattr(m, "_compiled_call_impl", None) is not None
        for m in module.modules()
    )


def refuse_unfed_types(tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Refuse inputs or outputs of types that NumPy lacks.

    Args:
        tensors: descriptions such as `input 'x'`, and tensors.

    Raises:
        ExportError: a tensor has such a type.
    """
    for what, tensor in tensors:
        if tensor.dtype in UNFED:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ExportError(
                f"{what} is {kind}, for which neither NumPy nor onnxruntime's CPU kernels are made",
                where="export",
                hint="Export module.float(), on examples in float32",
            )


def type_advice(module: nn.Module) -> str | None:
    """Return what to do about a module whose weights are not float32, None for one of float32."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            kind = str(tensor.dtype).removeprefix("torch.")
            return (
                f"Its weights are {kind}, for which onnxruntime's CPU has few kernels: export "
                "module.float(), on examples in float32"
            )
    return None


def _unwrapped(given: Any) -> Any:
    """Return the module inside of a wrapper, else None."""
    if isinstance(given, OptimizedModule):
        return given._orig_mod  # noqa: SLF001 - torch has no other name for it
    return getattr(given, WRAPPED) if isinstance(given, WRAPPERS) else None


def _advice(given: Any) -> str:
    if isinstance(given, type) and issubclass(given, nn.Module):
        return f"Make an instance: {given.__name__}(...)"
    if isinstance(given, str):
        return "Give the module itself, for instance of load_module('package.module:factory')"
    if callable(given):
        return "Give a torch.nn.Module whose forward calls it"
    return "Give the module that has the code, with these weights loaded"


def _refuse_packed_weights(module: nn.Module) -> None:
    """Refuse weights that are a subclass of a tensor with arithmetic of its own (torchao)."""
    for name, weight in (*module.named_parameters(), *module.named_buffers()):
        packed: Any = weight.data if isinstance(weight, nn.Parameter) else weight
        if is_traceable_wrapper_subclass(packed):
            kind = f"{type(packed).__module__.partition('.')[0]}.{type(packed).__name__}"
            raise InputError(
                f"it is a {kind}, whose arithmetic has no ONNX equivalent",
                where=f"weight {name!r}",
                hint=FLOAT_MODULE,
            )
