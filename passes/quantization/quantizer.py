"""Passes that make int8 of layers."""

from __future__ import annotations

from typing import ClassVar

from trimtab.core.errors import DataError
from trimtab.core.model import Model

from ..base import Pass, Rewrite


class Quantizer(Pass):
    """Pass that quantizes layers and their weights, and refuses a model that has none."""

    layers_only: ClassVar[bool] = True

    def without_layers(self, model: Model) -> Rewrite:
        """Refuse a model in which there are neither layers nor weights.

        Raises:
            DataError: always.
        """
        raise DataError(
            "has nothing to quantize",
            where=model.name,
            hint="It has no layer, as Conv, Gemm or MatMul, and no weights; trees stay as they are",
        )
