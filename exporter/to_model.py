"""A `torch.nn.Module` as a `Model`, with parity proved before anything is returned."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import nn

from trimtab.core.errors import ExportError, OptionError, TrimtabError
from trimtab.core.model import EXTERNAL_DATA_BYTES, Model, Step

from .capture import capture, evaluating
from .explain import failed_forward, is_final
from .finish import finish
from .flat import Flat
from .inputs import batch_axes, example_call, named_sizes, resized
from .locate import first_difference
from .parity import Trial, prove, trials
from .shapes import correct
from .specs import Dynamic

#: What onnxruntime fuses and quantizes best.
OPSET = 20
#: The oldest that torch's exporter writes.
OLDEST_OPSET = 18


@dataclass(frozen=True)
class Job:
    """What `export` was asked for, checked.

    Attributes:
        flat: the module behind a flat signature.
        outputs: names of the graph's outputs.
        opset: version of the default operator set.
        parity: whether to compare with torch.
        tolerance: largest relative error; None for what the output's type can hold.
        seed: of random inputs.
        locate: whether a difference is traced to a node.
        trainable: whether BatchNormalization and Dropout stay nodes.
        name: for messages.
    """

    flat: Flat
    outputs: tuple[str, ...]
    opset: int
    parity: bool
    tolerance: float | None
    seed: int
    locate: bool
    trainable: bool
    name: str


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
    seed: int = 0,
    locate: bool = False,
    trainable: bool = False,
    name: str | None = None,
) -> Model:
    """The module as an ONNX model that computes the same; its lineage holds the errors measured.

    The module runs in eval mode; afterwards each submodule's training flag is as it was.

    Args:
        module: what to export.
        inputs: example inputs: a tensor, a tuple of positional arguments, a mapping of keyword
            arguments, or specs such as "input=1x3x32x32:float32"; None asks the module's method
            `example_inputs`. Arguments may be nested tuples, lists, dicts and dataclasses.
        kwargs: further keyword arguments.
        input_names: names of the tensors in them, in order; by default the parameters of
            `forward`, with positions and keys appended for nested ones.
        output_names: names of the tensors it returns; by default keys, `output`, `output_0`.
        dynamic: names of dynamic axes by position, by input; by default what the module's method
            `dynamic_axes` returns, without one the first axis is `batch` where the module permits
            it, and fixed otherwise. {} fixes everything.
        opset: version of the default operator set.
        parity: whether to compare onnxruntime with torch, on the example and on random inputs.
        tolerance: largest error relative to an output's largest magnitude; by default 1e-4, for
            float16 1e-2. Whole numbers must be equal.
        seed: of random inputs.
        locate: whether a difference is traced to the first node that differs.
        trainable: whether BatchNormalization and Dropout stay nodes, for `finetune` and `distill`
            to train with, where they would otherwise be folded and left out. It computes the same.
        name: of the model in messages; by default the module's class.

    Raises:
        InputError: there are no example inputs, or they are not what `forward` takes.
        OptionError: names, axes or opset that do not exist.
        ExportError: torch cannot export it; names the module and its source line.
        ParityError: the model computes other numbers; names the output.
    """
    _check_opset(opset)
    name = name or type(module).__name__
    with evaluating(module):
        call, spec_names = example_call(module, inputs, kwargs, seed)
        names = _chosen(input_names or spec_names, call.names, "input")
        call = dataclasses.replace(call, names=names)
        flat = Flat(module, call)
        outputs = _chosen(output_names, _output_names(flat), "output", taken=names)
        job = Job(flat, outputs, opset, parity, tolerance, seed, locate, trainable, name)
        own_axes: Any = getattr(module, "dynamic_axes", None)
        if dynamic is None and inputs is None and callable(own_axes):
            dynamic = own_axes()
        if dynamic is not None:
            model, notes = _export(job, {n: dict(axes) for n, axes in dynamic.items() if axes})
        else:
            model, notes = _export_with_batch(job)
    params = {
        "module": f"{type(module).__module__}:{type(module).__qualname__}",
        "torch": str(torch.__version__),
        "opset": opset,
    }
    step = Step("export", params, _weights_digest(module), notes)
    return dataclasses.replace(model, lineage=(step,))


def _export_with_batch(job: Job) -> tuple[Model, dict[str, Any]]:
    """With a dynamic batch where the module permits it, else with the example's sizes."""
    dynamic = batch_axes(job.flat.call)
    if not dynamic:
        return _export(job, {})
    try:
        return _export(job, dynamic)
    except ExportError as refused:
        if is_final(refused):
            raise
        try:
            model, notes = _export(job, {})
        except ExportError as error:
            raise error from None  # what is wrong without a dynamic batch is what is wrong
        return model, notes | {"fixed_batch": refused.what}


def _export(job: Job, dynamic: Dynamic) -> tuple[Model, dict[str, Any]]:
    """The model and what to note about it."""
    flat = job.flat
    sizes = named_sizes(flat.call, dynamic)
    # Torch takes a size of 1 for a constant.
    grown = resized(flat.call, dynamic, {n: max(size, 2) for n, size in sizes.items()})
    compared = trials(flat, dynamic, sizes, job.seed)
    program = capture(flat, grown, dynamic, job.opset, trainable=job.trainable)
    origins = finish(program.model, flat.call.names, job.outputs)
    model = Model(correct(program.model, compared), name=job.name)
    _check(model)
    notes: dict[str, Any] = {
        "dynamic": {
            n: {str(axis): label for axis, label in axes.items()} for n, axes in dynamic.items()
        }
    }
    if job.parity:

        def locate(trial: Trial) -> str:
            return first_difference(model, flat, program.exported_program, origins, trial)

        notes["parity"] = prove(
            model, flat, compared, tolerance=job.tolerance, locate=locate if job.locate else None
        )
    return model, notes


def _output_names(flat: Flat) -> tuple[str, ...]:
    """Names of what the module returns, found by running it on the example."""
    try:
        outputs = tuple(flat.named(flat.call.tensors))
    except TrimtabError:
        raise
    except Exception as error:
        raise failed_forward(error, flat.module, "the example inputs") from error
    if not outputs:
        raise ExportError(
            "it returns no tensor", where=type(flat.module).__name__, hint="Return what it computes"
        )
    return outputs


def _chosen(
    given: Sequence[str] | None, own: tuple[str, ...], kind: str, taken: Sequence[str] = ()
) -> tuple[str, ...]:
    """The names that the user gave, checked, else the module's own."""
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
    """The full ONNX checker, which every pass will apply as well."""
    if model.weight_bytes > EXTERNAL_DATA_BYTES:  # no message holds it
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
    """SHA-256 of all parameters and buffers, by name."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
            raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(raw.numpy().data)
    return digest.hexdigest()
