"""Parameters of restored norms, chosen so that they change nothing before training does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trimtab.core.errors import DataError

from ...graph.forms.batch_norm_unfold import EPSILON, Restored
from .batches import BatchSampler, to_tensors
from .module import TorchGraph

#: Batches that statistics are estimated from.
_BATCHES = 20
#: Length below which a kernel counts as zero; scaling it would overflow.
_DEAD = 1e-12


def initialize_norms(
    module: TorchGraph, norms: Sequence[Restored], batches: BatchSampler, device: torch.device
) -> None:
    """Set statistics of restored norms to those of their inputs, and the parameters that undo them.

    Kernels are scaled to the length that He et al., "Delving Deep into Rectifiers", 2015, start
    from, and the norm behind them compensates: before a norm a step rotates a kernel the more the
    shorter it is, and folding has left kernels of any length.

    Raises:
        DataError: NaN or infinity, which would spread through statistics to all weights.
    """
    if not norms:
        return
    moments_of = {id(module.weight(n.shift)): _Moments() for n in norms}

    def observe(shift: Tensor, x: Tensor) -> None:
        if id(shift) in moments_of:
            moments_of[id(shift)].add(x)

    module.eval()
    module.mode.observe = observe
    try:
        with torch.no_grad():
            for count, drawn in enumerate(batches.stream(0), 1):
                module.run(to_tensors(drawn.batch, device))
                if not all(moments.finite for moments in moments_of.values()):
                    raise DataError(
                        f"NaN or infinity inside of the network, from some of {drawn}",
                        where="training data",
                        hint="Remove these items, or fix them",
                    )
                if count >= min(batches.per_epoch, _BATCHES):
                    break
    finally:
        module.mode.observe = None
    with torch.no_grad():
        for norm in norms:
            _initialize(module, norm, moments_of[id(module.weight(norm.shift))])


class _Moments:
    """Running mean and variance of each channel, over batches."""

    def __init__(self) -> None:
        self.sum: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0
        self.count = 0

    def add(self, x: Tensor) -> None:
        """Add a batch (N, C, ...)."""
        wide = x.detach().transpose(0, 1).flatten(1).double()
        self.sum, self.squares = self.sum + wide.sum(1), self.squares + wide.square().sum(1)
        self.count += wide.shape[1]

    @property
    def finite(self) -> bool:
        """True where all added values are finite."""
        return bool(torch.as_tensor(self.squares).isfinite().all())

    def mean_and_variance(self) -> tuple[Tensor, Tensor]:
        """Return mean and variance (C,)."""
        assert isinstance(self.sum, Tensor)
        assert isinstance(self.squares, Tensor)
        mean = self.sum / self.count
        return mean, (self.squares / self.count - mean.square()).clamp_min(0)


def _initialize(module: TorchGraph, norm: Restored, moments: _Moments) -> None:
    kernel = module.weight(norm.kernel)
    mean, var = moments.mean_and_variance()
    length = kernel.flatten(1).norm(dim=1)
    factor = torch.where(length > _DEAD, 2**0.5 / length, 1.0)
    kernel.mul_(factor.view(-1, *(1,) * (kernel.ndim - 1)))
    if norm.bias is not None:
        module.weight(norm.bias).mul_(factor)
    module.weight(norm.mean).copy_(mean * factor)
    module.weight(norm.var).copy_(var * factor.square())
    module.weight(norm.scale).copy_(torch.sqrt(var * factor.square() + EPSILON) / factor)
    module.weight(norm.shift).copy_(mean)
