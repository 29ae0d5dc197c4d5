"""Random mirroring and shifting of images, reproducible by item, view and seed.

A view is one way to augment each item: by default every epoch is a new one. With a fixed number of
views the teacher's outputs can be cached, and the student still sees images in several places,
always the same ones as its teacher (Beyer et al., "Knowledge distillation: A good teacher
is patient and consistent", 2022).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trimtab.core.data import Rows
from trimtab.core.model import Model

#: Size of the smallest image that survives a shift.
_SMALLEST = 16
#: View without augmentation.
UNAUGMENTED = -1


def resolve_augmentation(model: Model, wanted: str, *, taught: bool) -> str:
    """Choose the augmentation that `auto` stands for.

    Colour images are mirrored and shifted where a teacher sees the result as well, and only shifted
    where labels are the target: mirrored text would not fit its label.
    """
    if wanted != "auto":
        return wanted
    shape = model.inputs[0].shape if len(model.inputs) == 1 else None
    if shape is None or len(shape) != 4 or shape[1] != 3:
        return "none"
    if any(isinstance(s, int) and s < _SMALLEST for s in shape[2:]):
        return "none"
    return "both" if taught else "shift"


@dataclass
class Augment:
    """Augmentation of the images of a batch.

    Attributes:
        mode: none, mirror, shift or both.
        seed: random seed.
        views: augmented versions of an item; 0 for a new one each epoch.
        count: items of the source; 0 where it yields whole batches.
    """

    mode: str
    seed: int
    views: int
    count: int
    _drawn: tuple[int, NDArray[Any]] | None = field(default=None, repr=False)

    def view(self, epoch: int) -> int:
        """Return the view of an epoch."""
        if self.mode == "none":
            return UNAUGMENTED
        return epoch % self.views if self.views else epoch

    def __call__(self, feeds: dict[str, Tensor], view: int, rows: Rows) -> dict[str, Tensor]:
        """Augment every (N, C, H, W) tensor of a batch; `rows` are its items, or the batch."""
        if view == UNAUGMENTED or self.mode == "none":
            return feeds
        size = max((len(x) for x in feeds.values() if x.ndim == 4), default=0)
        draws = self._draws(view, rows, size)
        return {n: self._apply(x, draws) if x.ndim == 4 else x for n, x in feeds.items()}

    def _draws(self, view: int, rows: Rows, size: int) -> NDArray[Any]:
        """Draw (3, N) numbers from 0 to 1: for mirroring, shift down and shift right."""
        if not self.count:
            return np.random.default_rng((self.seed, view, int(rows[0]))).random((3, size))
        if self._drawn is None or self._drawn[0] != view:
            drawn = np.random.default_rng((self.seed, view)).random((3, self.count))
            self._drawn = view, drawn
        return self._drawn[1][:, rows]

    def _apply(self, x: Tensor, draws: NDArray[Any]) -> Tensor:
        if self.mode in {"mirror", "both"}:
            chosen = torch.from_numpy(draws[0] < 0.5).view(-1, 1, 1, 1)
            x = torch.where(chosen.to(x.device), x.flip(-1), x)
        return _shift_images(x, draws[1:]) if self.mode in {"shift", "both"} else x


def _shift_images(x: Tensor, draws: NDArray[Any]) -> Tensor:
    """Shift each image by up to an eighth of its shorter side, padding with zeros."""
    height, width = x.shape[2:]
    reach = max(min(height, width) // 8, 1)
    padded = functional.pad(x, (reach,) * 4)
    by = torch.from_numpy((draws * (2 * reach + 1)).astype(np.int64)).unsqueeze(-1)
    rows = (by[0] + torch.arange(height))[:, None, :, None].to(x.device)
    columns = (by[1] + torch.arange(width))[:, None, None, :].to(x.device)
    items = torch.arange(len(x), device=x.device)[:, None, None, None]
    channels = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
    return padded[items, channels, rows, columns]
