"""State of a module around its export: evaluation mode during, everything as before afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .given_module import is_compiled

#: Tables of a module that assignments in `forward` change in place.
TABLES = ("_parameters", "_buffers", "_modules")


class ModuleState:
    """Attributes, tables and values of buffers of a module and its parts, to be restored."""

    def __init__(self, module: nn.Module) -> None:
        self.parts = [
            (m, dict(m.__dict__), {t: dict(getattr(m, t)) for t in TABLES})
            for m in module.modules()
        ]
        self.buffers = [(name, b, b.detach().clone()) for name, b in module.named_buffers()]

    def changed(self) -> list[str]:
        """Return the names of the buffers that have other values now."""
        return [name for name, buffer, value in self.buffers if not _same(buffer, value)]

    def restore_buffers(self) -> None:
        """Give the buffers their values back, in place."""
        for part, _, tables in self.parts:
            _refill(part.__dict__["_buffers"], tables["_buffers"])
        for _, buffer, value in self.buffers:
            if not _same(buffer, value):
                buffer.data = value.clone()

    def restore(self) -> None:
        """Restore attributes as well; what they refer to stays as it is now."""
        for part, attributes, tables in self.parts:
            _refill(part.__dict__, attributes)
            for table, entries in tables.items():
                _refill(part.__dict__[table], entries)
        self.restore_buffers()


@contextlib.contextmanager
def eval_mode(module: nn.Module) -> Iterator[ModuleState]:
    """Put the module in eval mode, without gradients, in the default layout of memory.

    Afterwards flags, attributes, buffers and layouts are what they were, whatever `forward` did.
    """
    state = ModuleState(module)
    compiled = is_compiled(module)
    # A captured program has no eval mode of its own.
    with contextlib.suppress(NotImplementedError):
        module.eval()
    layouts = _make_contiguous(module)
    try:
        # A forward that draws random numbers must not change the caller's random state.
        eager = torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext()
        with torch.no_grad(), torch.random.fork_rng(devices=[]), eager:
            yield state
    finally:
        for tensor, before in layouts:
            tensor.data = before
        state.restore()


def _make_contiguous(module: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Store channels-last weights in the default layout; return each with its former data.

    From channels-last ones torch's exporter writes the strides of activations into the graph.
    """
    changed = []
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim > 3 and not tensor.is_contiguous():
            changed.append((tensor, tensor.data))
            tensor.data = tensor.data.contiguous()
    return changed


def _same(buffer: Tensor, value: Tensor) -> bool:
    return buffer.shape == value.shape and bool(
        torch.equal(torch.nan_to_num(buffer), torch.nan_to_num(value))
        if buffer.is_floating_point()
        else torch.equal(buffer, value)
    )


def _refill(table: dict[str, Any], entries: dict[str, Any]) -> None:
    """Give a dict these entries, in place."""
    table.clear()
    table.update(entries)
