"""Sessions whose tensors stay on a device: bound once, run many times, copies timed separately.

`session.run` on arrays copies to the device, computes, and copies back; only the compute is the
model's. It returns when the device is done, so its time needs no further synchronization.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.core.errors import OptionError, RunError, TrimtabError
from trimtab.core.model import Model
from trimtab.core.ort.accelerators import CUDA, TENSORRT, memory_of
from trimtab.core.ort.session import Feeds, SessionConfig, build_session
from trimtab.core.runtime import runtime

from ...machine.engine_cache import cache_options
from ...machine.placement import Placement
from ...machine.providers import RECORD, nodes_by_provider, nodes_of
from ..timing import Runs, time_calls

#: Option of each provider that captures a CUDA graph once and replays it.
GRAPH_OPTION: Mapping[str, str] = {CUDA: "enable_cuda_graph", TENSORRT: "trt_cuda_graph_enable"}
#: Factory of a value on a device from an array, such as `OrtValue.ortvalue_from_numpy`.
MakeValue = Callable[[NDArray[Any], str, int], Any]
SHOWN_NODES = 5


def with_cuda_graph(config: SessionConfig) -> SessionConfig:
    """Return the configuration that captures a CUDA graph.

    Raises:
        OptionError: its provider cannot.
    """
    option = GRAPH_OPTION.get(config.provider)
    if option is None:
        raise OptionError(
            f"{config.provider} cannot capture a CUDA graph",
            where="--cuda-graph",
            hint=f"Give --provider {CUDA} (an NVIDIA GPU, its driver, onnxruntime-gpu), or drop it",
        )
    return replace(config, provider_options={**config.provider_options, option: "1"})


def captures_cuda_graph(config: SessionConfig) -> bool:
    """Return whether a configuration captures a CUDA graph."""
    option = GRAPH_OPTION.get(config.provider)
    return option is not None and config.provider_options.get(option) == "1"


def without_capture(config: SessionConfig) -> SessionConfig:
    """Return the configuration without a CUDA graph."""
    options = {k: v for k, v in config.provider_options.items() if k not in GRAPH_OPTION.values()}
    return replace(config, provider_options=options)


def device_config(config: SessionConfig, source: Model | Path) -> SessionConfig:
    """Extend a configuration for a model on a device: record the placement, cache engines."""
    if memory_of(config.provider) is None:
        return config
    options = {**cache_options(config, source), **config.provider_options}
    return replace(config, config={RECORD: "1", **config.config}, provider_options=options)


def open_session(source: Model | Path, config: SessionConfig, name: str) -> Any:
    """Build a session; if its graph cannot be captured, report which nodes prevent it.

    Raises:
        RunError: onnxruntime refuses, or nodes fall back while a CUDA graph is asked for.
    """
    try:
        session = build_session(source, config)
    except RunError as error:
        fallen = _fallen(source, config) if captures_cuda_graph(config) else []
        if not fallen:
            raise
        raise _no_capture(name, fallen) from error
    if config.provider == TENSORRT and captures_cuda_graph(config):
        # TensorRT would only warn and not capture; CUDA refuses, and allows shape nodes on the CPU.
        fallen = _elsewhere(nodes_of(session), config.provider)
        if fallen:
            raise _no_capture(name, fallen)
    return session


def _fallen(source: Model | Path, config: SessionConfig) -> list[str]:
    """Find the nodes that the provider does not take, without the capture."""
    try:
        placed = nodes_by_provider(source, without_capture(config))
    except TrimtabError:
        return []
    return _elsewhere(placed, config.provider)


def _elsewhere(placed: Mapping[str, list[tuple[str, str]]], provider: str) -> list[str]:
    return [
        f"{op} {name!r} on {other}"
        for other, nodes in placed.items()
        if other != provider
        for name, op in nodes
    ]


def _no_capture(name: str, fallen: list[str]) -> RunError:
    shown = ", ".join(fallen[:SHOWN_NODES]) + (", ..." if len(fallen) > SHOWN_NODES else "")
    return RunError(
        f"no CUDA graph can be captured, {len(fallen)} nodes fall back: {shown}",
        where=name,
        hint="Drop --cuda-graph, or replace these operators",
    )


class BoundCaller:
    """A session with its inputs on the device and its outputs where the first run put them.

    The feeds are copied to the device immediately. A captured CUDA graph needs fixed addresses;
    without one they save an allocation in each run.

    Raises:
        RunError: an input is text.
    """

    def __init__(
        self, session: Any, feeds: Feeds, config: SessionConfig, make_value: MakeValue | None = None
    ) -> None:
        self.session, self.config = session, config
        self.memory = memory_of(config.provider) or "cpu"
        self.device_id = int(config.provider_options.get("device_id", 0))
        self.binding = session.io_binding()
        # Values in host memory are views of their array, so the timed copies need a second array.
        self.host = {n: np.ascontiguousarray(a) for n, a in feeds.items()}
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}
        self._fixed = False
        make = make_value or _ort_value
        for name, array in self.host.items():
            if array.dtype.kind in "OUS":
                raise RunError(
                    "onnxruntime binds numbers only, and this input is text",
                    where=f"input {name!r}",
                    hint="Measure the model without --provider, or from its token ids on",
                )
            self.inputs[name] = make(array.copy(), self.memory, self.device_id)
            self.binding.bind_ortvalue_input(name, self.inputs[name])
        for output in session.get_outputs():
            place = (self.memory, self.device_id) if _is_array(output.type) else ("cpu", 0)
            self.binding.bind_output(output.name, *place)

    def run(self) -> None:
        """Run once, and return when the device is done."""
        self.session.run_with_iobinding(self.binding)

    def time(self, runs: int) -> Runs:
        """Time a number of consecutive runs."""
        if self._fixed or not runs:
            return time_calls(self.run, runs)
        first = time_calls(self.run, 1)
        self._fix_outputs()
        rest = time_calls(self.run, runs - 1)
        return replace(rest, ns=first.ns + rest.ns, switches=first.switches + rest.switches)

    def _fix_outputs(self) -> None:
        """Bind the outputs to where this run wrote them."""
        for output, value in zip(
            self.session.get_outputs(), self.binding.get_outputs(), strict=True
        ):
            if _is_array(output.type):
                self.outputs[output.name] = value
                self.binding.bind_ortvalue_output(output.name, value)
        self._fixed = True

    def time_copies(self, runs: int) -> tuple[Runs, Runs]:
        """Time copies of all inputs to the device and of all outputs back, after a run."""
        pairs = [(value, self.host[name]) for name, value in self.inputs.items()]
        values = list(self.outputs.values())

        def copy_in() -> None:
            for value, array in pairs:
                value.update_inplace(array)

        def copy_out() -> None:
            for value in values:
                value.numpy()

        return time_calls(copy_in, runs), time_calls(copy_out, runs)

    def placement(self, copies: int, name: str) -> Placement:
        """Return the placement of the nodes, and time the copies, after a run.

        Raises:
            RunError: no node runs on the provider.
        """
        placed = nodes_of(self.session)
        provider = self.config.provider
        if placed and not placed.get(provider):
            total = sum(len(nodes) for nodes in placed.values())
            raise RunError(
                f"none of its {total} nodes runs on {provider}: all fell back to "
                f"{', '.join(placed)}",
                where=name,
                hint="Measure it without --provider, or replace what the provider does not know",
            )
        to, back = self.time_copies(copies) if self.memory != "cpu" else (Runs(()), Runs(()))
        return Placement(
            provider,
            self.memory,
            {name: len(nodes) for name, nodes in placed.items()},
            tuple(_elsewhere(placed, provider)),
            to.ns,
            back.ns,
            sum(self.host[name].nbytes for name in self.inputs),
            sum(value.tensor_size_in_bytes() for value in self.outputs.values()),
            captures_cuda_graph(self.config),
        )


def _is_array(kind: str) -> bool:
    """Return whether a device can hold an onnxruntime type; strings and sequences it cannot."""
    return kind.startswith("tensor(") and kind != "tensor(string)"


def _ort_value(array: NDArray[Any], memory: str, device_id: int) -> Any:
    return runtime().OrtValue.ortvalue_from_numpy(array, memory, device_id)
