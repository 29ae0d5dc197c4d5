"""Norms that were put back: their numbers, so that they change nothing before training does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trimtab.core.errors import DataError

from ...graph.batch_norm_unfold import EPSILON, Restored
from .batches import Batches, to_tensors
from .module import TorchGraph

#: Batches that statistics are taken of.
_BATCHES = 20
#: A kernel this short is none; to lengthen it would overflow.
_DEAD = 1e-12


def settle_norms(
    module: TorchGraph, norms: Sequence[Restored], batches: Batches, device: torch.device
) -> None:
    """Mean and variance of what arrives, and the scale and shift that undo them.

    Kernels come to the length that He et al., "Delving Deep into Rectifiers", 2015, start from,
    which the norm behind them makes up for: behind a norm a step turns a kernel by the more the
    shorter it is, and folding has left them of any length.

    Raises:
        DataError: NaN or infinity, which statistics would carry into all weights.
    """
    if not norms:
        return
    seen = {id(module.weight(n.shift)): _Moments() for n in norms}

    def observe(shift: Tensor, x: Tensor) -> None:
        if id(shift) in seen:
            seen[id(shift)].add(x)

    module.eval()
    module.mode.observe = observe
    try:
        with torch.no_grad():
            for count, taken in enumerate(batches.stream(0), 1):
                module.run(to_tensors(taken.batch, device))
                if not all(moments.finite for moments in seen.values()):
                    raise DataError(
                        f"NaN or infinity inside of the network, from some of {taken}",
                        where="training data",
                        hint="Take these items out, or mend them",
                    )
                if count >= min(batches.per_epoch, _BATCHES):
                    break
    finally:
        module.mode.observe = None
    with torch.no_grad():
        for norm in norms:
            _settle(module, norm, seen[id(module.weight(norm.shift))])


class _Moments:
    """Mean and variance of each channel, over batches."""

    def __init__(self) -> None:
        self.sum: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0
        self.count = 0

    def add(self, x: Tensor) -> None:
        """Take in (N, C, ...)."""
        wide = x.detach().transpose(0, 1).flatten(1).double()
        self.sum, self.squares = self.sum + wide.sum(1), self.squares + wide.square().sum(1)
        self.count += wide.shape[1]

    @property
    def finite(self) -> bool:
        """Whether all that was taken in is."""
        return bool(torch.as_tensor(self.squares).isfinite().all())

    def found(self) -> tuple[Tensor, Tensor]:
        """(C,) mean and variance."""
        assert isinstance(self.sum, Tensor)
        assert isinstance(self.squares, Tensor)
        mean = self.sum / self.count
        return mean, (self.squares / self.count - mean.square()).clamp_min(0)


def _settle(module: TorchGraph, norm: Restored, moments: _Moments) -> None:
    kernel = module.weight(norm.kernel)
    mean, var = moments.found()
    length = kernel.flatten(1).norm(dim=1)
    factor = torch.where(length > _DEAD, 2**0.5 / length, 1.0)
    kernel.mul_(factor.view(-1, *(1,) * (kernel.ndim - 1)))
    if norm.bias is not None:
        module.weight(norm.bias).mul_(factor)
    module.weight(norm.mean).copy_(mean * factor)
    module.weight(norm.var).copy_(var * factor.square())
    module.weight(norm.scale).copy_(torch.sqrt(var * factor.square() + EPSILON) / factor)
    module.weight(norm.shift).copy_(mean)
