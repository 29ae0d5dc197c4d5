"""Data with NaN or infinity: refused, with the row, by each pass that reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graphs import model_of

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError
from trimtab.passes import registry

NETWORK = """(float[N,3,8,8] x) => (float[N,10] y)
<float[16,3,3,3] v, float[16] b, float[16,10] w, float[16] scale, float[16] shift> {
    c = Conv <pads = [1, 1, 1, 1]> (x, v, b)
    r = Relu (c)
    p = GlobalAveragePool (r)
    f = Flatten (p)
    n = LayerNormalization (f, scale, shift)
    y = MatMul (n, w)
}"""
FIELDS = {
    "quantize-weights": {"method": "gptq", "block": 16},
    "prune-magnitude": {"importance": "activation"},
}
READERS = (
    *("compress-weights", "correct-bias", "finetune", "half", "prune-channels", "prune-magnitude"),
    *("quantize-auto", "quantize-static", "quantize-weights", "round-weights", "smooth-quant"),
)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("name", READERS)
def test_the_row_is_named_and_nothing_is_made(name: str, value: float, tmp_path: Path) -> None:
    model = model_of(NETWORK)
    x = np.random.default_rng(0).normal(size=(16, 3, 8, 8)).astype(np.float32)
    fields = FIELDS.get(name, {})
    if name == "finetune":
        fields = {"teacher": model, "epochs": 1}
    if name in {"correct-bias", "round-weights"}:
        fields = {"reference": str(model.save(tmp_path / "float.onnx"))}
        model = registry()["quantize-static"](data=Dataset.of_arrays({"x": x.copy()}))(model)
    x[2, 0, 2, 2] = value
    with pytest.raises(DataError, match=r"'x' holds NaN or infinity in row 2"):
        registry()[name](**fields)(model, Context(data=Dataset.of_arrays({"x": x})))
