"""Export of a `torch.nn.Module` to a `Model`, which is returned only with parity proved."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import onnx
import torch
from torch import nn

from trimtab.core.errors import ExportError, OptionError, TrimtabError
from trimtab.core.lineage import Step
from trimtab.core.model import EXTERNAL_DATA_BYTES, Model

from .axes import LEAST, captured_ranges, nearest_size
from .capture import capture
from .export_errors import forward_error, independent_of_sizes
from .first_difference import first_difference
from .flat_module import FlatModule
from .given_module import module_to_export, refuse_unfed_types
from .inputs import batch_axes, data_rows, example_call, named_sizes, resize_example
from .module_state import ModuleState, eval_mode
from .output_shapes import correct_shapes
from .parity import check_edges, check_parity, open_proof, parity_trials
from .postprocess import postprocess
from .specs import Dynamic, Ranges, split_ranges
from .torch_functions import freeze_fake_quantizers, watch_symbolic

#: Default operator set: the one that onnxruntime fuses and quantizes best.
OPSET = 20
#: Oldest operator set that torch's exporter writes.
OLDEST_OPSET = 18


@dataclass(frozen=True)
class ExportJob:
    """Checked arguments of `export`, which explains them; `outputs` names the graph's outputs."""

    flat: FlatModule
    outputs: tuple[str, ...]
    opset: int
    parity: bool
    tolerance: float | None
    seed: int
    locate: bool
    trainable: bool
    name: str
    ranges: Ranges
    state: ModuleState


def export(  # noqa: PLR0913 - each is one decision of the user's, all but the first by name
    module: nn.Module,
    inputs: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
    opset: int = OPSET,
    parity: bool = True,
    tolerance: float | None = None,
    data: Any = None,
    seed: int = 0,
    locate: bool = False,
    trainable: bool = False,
    name: str | None = None,
) -> Model:
    """Export a module to an ONNX model that computes the same; its lineage has the errors.

    The module runs in eval mode; afterwards flags, attributes and buffers are as before.

    Args:
        module: module to export; one wrapped by `torch.compile` or `DataParallel` is unwrapped,
            and a `torch.export.ExportedProgram` is exported again.
        inputs: example inputs: a tensor, a tuple of positional arguments, a mapping of keyword
            arguments, or specs such as "input=1x3x32x32:float32"; None calls the module's method
            `example_inputs`. Arguments may be nested tuples, lists, dicts and dataclasses.
        kwargs: further keyword arguments.
        input_names: names of the tensors in them, in order; by default the parameters of
            `forward`, with positions and keys appended for nested ones.
        output_names: names of the tensors it returns; by default keys, `output`, `output_0`.
        dynamic: names of dynamic axes by position, by input; by default the result of the module's
            method `dynamic_axes`; without that method the first axis is `batch` if the module
            permits it. {} fixes all axes. A name such as `n>=5` or `5<=n<=64` claims that range.
        opset: version of the default operator set.
        parity: true to compare onnxruntime with torch, on the example and on other inputs.
        tolerance: largest error relative to an output's largest magnitude; by default 1e-4, for
            float16 1e-2, and where torch's float32 is further off its float64, four times that.
            Integers must be equal.
        data: rows to compare on instead of random inputs: a `Dataset`, or arrays by input name.
            Their first row is the example where there is no other.
        seed: random seed of inputs.
        locate: true to trace a difference to the first node that differs.
        trainable: true to keep BatchNormalization and Dropout as nodes, for training with
            `finetune` and `distill`; by default they are folded or removed. The model computes the
            same.
        name: name of the model in messages; by default the module's class.

    Raises:
        InputError: there are no example inputs, or `forward` does not take them.
        OptionError: names, axes or opset do not exist.
        ExportError: torch cannot export it; names the module and its source line.
        ParityError: the model computes other numbers; names the output.
    """
    _check_opset(opset)
    module, inputs = module_to_export(module, inputs)
    name = name or type(module).__name__
    with eval_mode(module) as state:
        freeze_fake_quantizers(module)
        call, spec_names = example_call(module, inputs, kwargs, seed, data)
        names = _checked_names(input_names or spec_names, call.names, "input")
        call = dataclasses.replace(call, names=names)
        if data is not None:
            call = dataclasses.replace(call, data=data_rows(data, call))
        flat = FlatModule(module, call)
        symbolic: set[str] = set()
        with watch_symbolic(symbolic):
            own_names = _output_names(flat)
        outputs = _checked_names(output_names, own_names, "output", taken=names)
        own_axes: Any = getattr(module, "dynamic_axes", None)
        if dynamic is None and inputs is None and callable(own_axes):
            dynamic = own_axes()
        named, ranges = split_ranges(dynamic or {})
        job = ExportJob(
            flat, outputs, opset, parity, tolerance, seed, locate, trainable, name, ranges, state
        )
        model, notes = _export(job, named) if dynamic is not None else _export_with_batch(job)
        if symbolic:
            notes["symbolic_ignored"] = sorted(symbolic)
    params = {
        "module": f"{type(module).__module__}:{type(module).__qualname__}",
        "torch": str(torch.__version__),
        "opset": opset,
    }
    step = Step("export", params, _weights_digest(module), notes)
    return dataclasses.replace(model, lineage=(step,))


def _export_with_batch(job: ExportJob) -> tuple[Model, dict[str, Any]]:
    """Export with a dynamic batch where the module permits it, else with the example's sizes."""
    dynamic = batch_axes(job.flat.call)
    if not dynamic:
        return _export(job, {})
    try:
        return _export(job, dynamic)
    except ExportError as refused:
        if independent_of_sizes(refused):
            raise
        try:
            model, notes = _export(job, {})
        except ExportError as error:
            raise error from None  # the error without a dynamic batch is the real one
        return model, notes | {"fixed_batch": refused.what}


def _export(job: ExportJob, dynamic: Dynamic) -> tuple[Model, dict[str, Any]]:
    """Export and return the model and its notes."""
    flat = job.flat
    sizes = named_sizes(flat.call, dynamic)
    # Torch fixes axes of size 1.
    large = {n: nearest_size(max(size, LEAST), job.ranges.get(n)) for n, size in sizes.items()}
    grown = resize_example(flat.call, dynamic, large)
    compared = parity_trials(flat, dynamic, sizes, job.ranges, job.seed)
    changed = job.state.changed()
    job.state.restore_buffers()  # the graph gets the values that they have now
    program = capture(flat, grown, dynamic, job.ranges, job.opset, trainable=job.trainable)
    origins = postprocess(program.model, flat.call.names, job.outputs)
    model = Model(correct_shapes(program.model, compared), name=job.name)
    _check(model)
    named = {n: {str(axis): label for axis, label in axes.items()} for n, axes in dynamic.items()}
    notes: dict[str, Any] = {"dynamic": named}
    if changed:
        notes["changed_buffers"] = changed
    captured = captured_ranges(program.exported_program, flat.call.names, dynamic)
    if job.parity:
        locate = partial(first_difference, model, flat, program.exported_program, origins)
        proof = open_proof(model, flat, job.tolerance)
        notes["parity"] = check_parity(
            proof, compared, locate=locate if job.locate else None, changed=changed
        )
        captured = check_edges(proof, dynamic, sizes, captured, job.ranges, job.seed)
    if ranges := {n: list(r) for n, r in captured.items() if r != (LEAST, None)}:
        notes["ranges"] = ranges
    return model, notes


def _output_names(flat: FlatModule) -> tuple[str, ...]:
    """Run the module on the example and return the names of its outputs."""
    try:
        outputs = flat.named([t.clone() for t in flat.call.tensors])
    except TrimtabError:
        raise
    except Exception as error:
        raise forward_error(error, flat.module, "the example inputs") from error
    fed = ((f"input {n!r}", t) for n, t in zip(flat.call.names, flat.call.tensors, strict=True))
    refuse_unfed_types([*fed, *((f"output {n!r}", t) for n, t in outputs.items())])
    if not outputs:
        raise ExportError(
            "it returns no tensor", where=type(flat.module).__name__, hint="Return a tensor"
        )
    return tuple(outputs)


def _checked_names(
    given: Sequence[str] | None, own: tuple[str, ...], kind: str, taken: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the user's names, checked, else the module's own."""
    if given is None:
        return own
    names = tuple(given)
    if len(names) != len(own):
        raise OptionError(
            f"{len(names)} {kind} names for {len(own)} {kind}s",
            where=f"{kind}_names",
            hint=f"In order, they are: {', '.join(own)}",
        )
    used = [n for i, n in enumerate(names) if not n or n in names[:i] or n in taken]
    if used:
        raise OptionError(
            f"the name {used[0]!r} is empty or taken",
            where=f"{kind}_names",
            hint="All inputs and outputs need different names",
        )
    return names


def _check_opset(opset: int) -> None:
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise OptionError(
            f"opset {opset} cannot be exported",
            where="opset",
            hint=f"torch's exporter writes {OLDEST_OPSET} to {newest}; {OPSET} suits onnxruntime",
        )


def _check(model: Model) -> None:
    """Run the full ONNX checker, as every pass does."""
    if model.weight_bytes > EXTERNAL_DATA_BYTES:  # too large for one message
        return
    try:
        onnx.checker.check_model(model.to_proto(), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            f"torch wrote a model that the ONNX checker refuses: {str(error).splitlines()[0]}",
            where=model.name,
            hint="Try another --opset; else report it to PyTorch",
        ) from error


def _weights_digest(module: nn.Module) -> str:
    """Return the SHA-256 of all parameters and buffers, by name."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
            raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(raw.numpy().data)
    return digest.hexdigest()
