"""Torch module of an ONNX graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.core.errors import DataError, RunError
from trimtab.core.model import Model

from .operators.quantize import spread
from .operators.table import Mode
from .operators.values import initializer_tensor
from .plan import NOTHING, ExecutionPlan, ExecutionStep, make_plan, outputs_of
from .roles import TrainableWeight, find_trainable_weights


def to_module(model: Model, intermediate: Sequence[str] = ()) -> TorchGraph:
    """Build a module whose parameters are the float initializers of a graph, in evaluation mode.

    Args:
        model: model to convert; unchanged, the module has weights of its own.
        intermediate: names of intermediate outputs that `run` returns beside the outputs.

    Raises:
        ModelError: unsupported operators, all of them named.
        OptionError: an unknown intermediate output.
    """
    return TorchGraph(model, intermediate).eval()


class TorchGraph(nn.Module):
    """ONNX graph that torch computes and differentiates.

    Attributes:
        weights: trained weights and statistics, by the name of their initializer.
        mode: mode of BatchNormalization and Dropout.
        inputs: names of the inputs, in order.
        outputs: names of the outputs, in order.
    """

    def __init__(self, model: Model, intermediate: Sequence[str] = ()) -> None:
        super().__init__()
        self.weights: dict[str, TrainableWeight] = find_trainable_weights(model.graph)
        self.mode = Mode()
        self._plan: ExecutionPlan = make_plan(model, self.weights, self.mode, intermediate)
        self.inputs = tuple(self._plan.feeds)
        self.outputs = tuple(spec.name for spec in model.outputs)
        for name, tensor in _initial(model, self.weights).items():
            if self.weights[name].role == "statistic":
                self.register_buffer(self.key(name), tensor)
            else:
                self.register_parameter(self.key(name), nn.Parameter(tensor))
        for slot, tensor in self._plan.constants.items():
            self.register_buffer(f"constant:{slot}", tensor, persistent=False)

    def weight(self, name: str) -> Tensor:
        """Return the parameter or statistic of an initializer."""
        found: Tensor = getattr(self, self.key(name))
        return found

    @staticmethod
    def key(name: str) -> str:
        """Return the name in torch of an initializer's parameter, which no attribute has."""
        return "weight:" + name.replace("%", "%25").replace(".", "%2E")

    def named_weights(self, *roles: str) -> dict[str, Tensor]:
        """Return parameters and statistics by initializer, all or those of some roles."""
        return {
            name: self.weight(name)
            for name, weight in self.weights.items()
            if not roles or weight.role in roles
        }

    def train(self, mode: bool = True) -> TorchGraph:  # noqa: FBT001, FBT002 - as torch has it
        """Set training or evaluation mode."""
        self.mode.training = mode
        super().train(mode)
        return self

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        """Compute the outputs, a tensor or a tuple of several, from inputs in order or by name."""
        made = self.run(dict(zip(self.inputs, inputs, strict=False)) | named)
        outputs = tuple(made[name] for name in self.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the outputs and intermediate outputs by name.

        Raises:
            DataError: an input is missing.
            RunError: a node refuses its inputs.
        """
        values = self._filled(feeds)
        device = next((tensor.device for tensor in feeds.values()), torch.device("cpu"))
        for step in self._plan.steps:
            _execute(step, values, device)
        results = {}
        for name, slot, dtype in self._plan.results:
            value: Any = values[slot]
            if dtype is not None and value.is_floating_point() and not dtype.is_floating_point:
                value = value.to(dtype)  # a quantized output, kept as floats inside
            results[name] = value
        return results

    def _filled(self, feeds: Mapping[str, Tensor]) -> list[Any]:
        values: list[Any] = [None] * self._plan.slots
        for name, slot in self._plan.feeds.items():
            if name not in feeds:
                raise DataError(f"input {name!r} is missing", hint=f"Fed: {', '.join(feeds)}")
            values[slot] = feeds[name]
        for name, slot in self._plan.weights.items():
            values[slot] = self.weight(name)
        for slot in self._plan.constants:
            values[slot] = getattr(self, f"constant:{slot}")
        for slot, tensor in self._plan.fixed.items():
            values[slot] = tensor
        return values


def _execute(step: ExecutionStep, values: list[Any], device: torch.device) -> None:
    inputs = [values[slot] for slot in step.inputs]
    for index, to_cpu in step.moves:
        inputs[index] = inputs[index].detach().cpu() if to_cpu else inputs[index].to(device)
    try:
        made = step.run(*inputs)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise RunError(
            f"cannot be computed in torch: {str(error).splitlines()[0][:200]}",
            where=step.name,
            hint="Check the shapes and types of the data",
        ) from error
    for slot, value in zip(step.outputs, outputs_of(made), strict=False):
        values[slot] = value
    values[NOTHING] = None
    for slot in step.free:
        values[slot] = None


def _initial(model: Model, weights: Mapping[str, TrainableWeight]) -> dict[str, Tensor]:
    """Return the initial values of weights; integers are dequantized."""
    made = {}
    for name, weight in weights.items():
        value, qparams = initializer_tensor(model, name), weight.qparams
        if qparams is not None:
            scale = initializer_tensor(model, qparams.scale)
            value = value.to(scale.dtype)
            if qparams.zero is not None:
                zero = initializer_tensor(model, qparams.zero)
                value = value - spread(zero, value, qparams.axis, qparams.block)
            value = value * spread(scale, value, qparams.axis, qparams.block)
        made[name] = value
    return made
