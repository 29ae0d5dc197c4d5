"""Images mirrored and shifted at random, the same for the same item, view and seed.

A view is one way to augment each item: by default every epoch is a new one. With a fixed number of
views what the teacher says about them can be kept, and the student still sees images in several
places, always the same ones as its teacher (Beyer et al., "Knowledge distillation: A good teacher
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

#: Smaller images hold nothing that a shift leaves as it was.
_SMALLEST = 16
#: The view of items as they are.
PLAIN = -1


def augmentation_for(model: Model, wanted: str, *, taught: bool) -> str:
    """What `auto` stands for.

    Colour images are mirrored and shifted where a teacher answers for what came out, and shifted
    only where labels alone say what they show: a mirrored character is no character.
    """
    if wanted != "auto":
        return wanted
    shapes = [spec.shape for spec in model.inputs if spec.shape and len(spec.shape) == 4]
    colour = len(model.inputs) == 1 and any(
        shape[1] == 3 and all(not isinstance(s, int) or s >= _SMALLEST for s in shape[2:])
        for shape in shapes
    )
    if not colour:
        return "none"
    return "both" if taught else "shift"


@dataclass
class Augment:
    """Mirrors and shifts the images of a batch.

    Attributes:
        how: none, mirror, shift or both.
        seed: of all choices.
        views: different ways to augment an item; without end where 0.
        count: items of the source; 0 where it yields whole batches.
    """

    how: str
    seed: int
    views: int
    count: int
    _drawn: tuple[int, NDArray[Any]] | None = field(default=None, repr=False)

    def view(self, epoch: int) -> int:
        """The view that an epoch shows."""
        if self.how == "none":
            return PLAIN
        return epoch % self.views if self.views else epoch

    def __call__(self, feeds: dict[str, Tensor], view: int, rows: Rows) -> dict[str, Tensor]:
        """Feeds with every (N, C, H, W) tensor augmented.

        Args:
            feeds: of one batch.
            view: which; PLAIN leaves them as they are.
            rows: positions of the items, or the one of the batch.
        """
        if view == PLAIN or self.how == "none":
            return feeds
        size = max((len(x) for x in feeds.values() if x.ndim == 4), default=0)
        draws = self._draws(view, rows, size)
        return {n: self._apply(x, draws) if x.ndim == 4 else x for n, x in feeds.items()}

    def _draws(self, view: int, rows: Rows, size: int) -> NDArray[Any]:
        """(3, N) from 0 to 1: whether to mirror, how far down, how far right."""
        if not self.count:
            return np.random.default_rng((self.seed, view, int(rows[0]))).random((3, size))
        if self._drawn is None or self._drawn[0] != view:
            drawn = np.random.default_rng((self.seed, view)).random((3, self.count))
            self._drawn = view, drawn
        return self._drawn[1][:, rows]

    def _apply(self, x: Tensor, draws: NDArray[Any]) -> Tensor:
        if self.how in {"mirror", "both"}:
            chosen = torch.from_numpy(draws[0] < 0.5).view(-1, 1, 1, 1)
            x = torch.where(chosen.to(x.device), x.flip(-1), x)
        return _shifted(x, draws[1:]) if self.how in {"shift", "both"} else x


def _shifted(x: Tensor, draws: NDArray[Any]) -> Tensor:
    """Each image moved by up to an eighth of its shorter side, zeros coming in."""
    height, width = x.shape[2:]
    reach = max(min(height, width) // 8, 1)
    padded = functional.pad(x, (reach,) * 4)
    by = torch.from_numpy((draws * (2 * reach + 1)).astype(np.int64)).unsqueeze(-1)
    rows = (by[0] + torch.arange(height))[:, None, :, None].to(x.device)
    columns = (by[1] + torch.arange(width))[:, None, None, :].to(x.device)
    items = torch.arange(len(x), device=x.device)[:, None, None, None]
    channels = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
    return padded[items, channels, rows, columns]
